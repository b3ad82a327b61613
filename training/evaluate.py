# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "torch>=2.11,<2.14",
#     "transformers>=5.20,<6",
#     "huggingface-hub>=1.31",
#     "safetensors>=0.4",
#     "accelerate>=1.10",
#     "datasets>=4.0",
#     "evaluate>=0.4.6",
#     "numpy>=2.0",
#     "scipy>=1.14",
#     "pillow>=11",
#     "pyyaml>=6",
#     "omegaconf>=2.3",
#     "matplotlib>=3.9",
#     "tensorboard>=2.17",
#     "tqdm>=4.66",
#     "jinja2>=3.1",
# ]
# ///
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
