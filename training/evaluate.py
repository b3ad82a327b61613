"""Evaluate a model on a data set.

    python training/evaluate.py --model runs/camvid_fewshot/model --dataset camvid --root /path/to/camvid
    python training/evaluate.py --model runs/pretrain_synthetic_supervised/model --dataset synthetic \
        --root data/world --option count=200 --option size=[96,320]

The evaluation is that of training: on the same split it prints the scores that the run logged, with --json to
the last digit.
"""

from __future__ import annotations

import argparse

from depthseg.engine.evaluation_command import add_evaluation_options, print_evaluation


def main() -> None:
    """Parse, evaluate, print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_evaluation_options(parser)
    options = parser.parse_args()
    print_evaluation(options)


if __name__ == "__main__":
    main()
