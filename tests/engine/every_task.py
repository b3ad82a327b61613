"""A short run of every task and of the mask heads: imported by the tests, and launched by torchrun as a script."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import PartialState

sys.path.insert(0, str(Path(__file__).parent))
from tiny_run import Blocks, tiny_config, tiny_pretext_config

from depthseg.data import Sample
from depthseg.engine.run import train

DINOV2 = "{model_type: dinov2, hidden_size: 16, num_hidden_layers: 4, num_attention_heads: 2}"
MASK2FORMER = (
    "{channels: 32, num_attention_heads: 2, num_queries: 7, pixel_layers: 1, pixel_feedforward: 16, "
    "decoder_layers: 3, decoder_feedforward: 16}"
)
MASK_QUERIES = "{channels: 32, num_attention_heads: 2, num_layers: 2, num_queries: 8}"

# A batch of 10 is no multiple of 4 processes, and its images are all of the data set.
COMMON = (
    *("optim.name=sgd", "optim.lr=0.003", "optim.batch_size=10", "schedule.steps=2", "schedule.name=constant"),
    *("run.eval_every=1", "run.report=false"),
)


class Everything(Blocks):
    """Blocks with what any task wants: the other camera, flow to the frame before, a category of the image."""

    categories = ("few", "many")

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        flow = np.tile(np.float32([-1, 0]), (*sample.labels.shape, 1))
        other = np.roll(sample.image, -2, axis=1)
        return replace(sample, stereo=other, stereo_x=0.5, flow=flow, category=index % 2)


class Sparse(Blocks):
    """Blocks of which two have labels: most processes of four see none in a step."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return sample if index in (2, 7) else replace(sample, labels=np.full_like(sample.labels, 255))


def masks(head: str, config: str) -> tuple[str, ...]:
    return (f"model.encoder={DINOV2}", "data.size=[28,56]", f"model.head_type={head}", f"model.head_config={config}")


# The ResNet has a ReLU whose input is nearly zero on these images, and rounding decides about its gradient.
SMOOTH = (f"model.encoder={DINOV2}", "model.head_config=null", "data.size=[28,56]")
PRETEXTS = {
    "mono": ("depth", "supervision=mono", "intrinsics=per_image"),
    "stereo": ("depth", "supervision=stereo"),
    "mono_stereo": ("depth", "supervision=mono_stereo"),
    "flow": ("flow",),
    "inpainting": ("inpainting",),
    "classification": ("classification",),
    "depth": ("depth", "supervision=labels"),
}
SEGMENTERS = {
    "segmentation": (Everything, ()),
    "ignored": (Sparse, ()),
    "mask_queries": (Everything, masks("mask_queries", MASK_QUERIES)),
    "mask2former": (Everything, masks("mask2former", MASK2FORMER)),
    "ignored_masks": (Sparse, masks("mask_queries", MASK_QUERIES)),
}


def train_all(folder: Path) -> None:
    """Train on ten images and score on three, so that one of four processes has none to score."""
    for name, (task, *pretext) in PRETEXTS.items():
        overrides = (*COMMON, *SMOOTH) if name == "classification" else COMMON
        config = tiny_pretext_config(folder / name, task, *pretext, overrides=overrides)
        train(config, Everything(10), Everything(3, seed=1))
    for name, (data, options) in SEGMENTERS.items():
        train(tiny_config(folder / name, *COMMON, *options), data(10), Everything(3, seed=1))


if __name__ == "__main__":
    train_all(Path(sys.argv[1]))
    PartialState().destroy_process_group()
