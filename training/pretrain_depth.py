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
#     "av>=18",
#     "opencv-python-headless>=4.10",
# ]
# ///
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
