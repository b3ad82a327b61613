"""Train a depth network on depth labels.

On two CPU cores, a few minutes (frames are rendered once into data/world):

    python training/pretrain_depth.py --config pretrain_synthetic_supervised

On all GPUs of a machine, at the width of the paper:

    torchrun --standalone --nproc-per-node gpu training/pretrain_depth.py \
        --config pretrain_synthetic_supervised \
        model.encoder.width_factor=1.0 optim.batch_size=32 run.precision=bf16 data.num_workers=8
"""

from __future__ import annotations

import argparse

from depthseg.engine.command import add_training_options, run_training, scores_text
from depthseg.engine.options import TASK_NAMES


def main() -> None:
    """Parse, train, print the scores of the selected weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_options(parser)
    result = run_training(TASK_NAMES, parser.parse_args())
    if result.is_main_process:
        print(f"{result.model_dir}\n{scores_text(result.scores)}")


if __name__ == "__main__":
    main()
