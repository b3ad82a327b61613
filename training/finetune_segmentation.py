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
"""Turn a depth network into a segmenter, or train one from random weights.

16 labelled images of CamVid, from a depth checkpoint and from random weights:

    python training/finetune_segmentation.py --config camvid_fewshot_resnet18 \
        data.root=/path/to/camvid model.pretrained=runs/pretrain_synthetic_supervised/model
    python training/finetune_segmentation.py --config camvid_fewshot_resnet18 \
        data.root=/path/to/camvid

The same in two CPU processes (`accelerate launch --cpu --num_processes 2` starts only one, without a warning):

    torchrun --standalone --nproc-per-node 2 training/finetune_segmentation.py \
        --config camvid_fewshot_resnet18 data.root=/path/to/camvid
"""

from __future__ import annotations

import argparse

from depthseg.engine.command import add_training_options, run_training, scores_text


def main() -> None:
    """Parse, train, print the scores of the selected weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_options(parser)
    result = run_training(("segmentation",), parser.parse_args())
    if result.is_main_process:
        print(f"{result.model_dir}\n{scores_text(result.scores)}")


if __name__ == "__main__":
    main()
