"""A run on images made in memory: imported by the tests, and launched by torchrun as a script."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import set_seed

from depthseg.data import LabelSpace, Sample
from depthseg.engine.build import build_model
from depthseg.engine.config import load_config
from depthseg.engine.options import RunConfig
from depthseg.engine.run import RunResult, train

SPACE = LabelSpace("blocks", ("left", "right", "far"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
SIZE = (32, 64)
INTRINSICS = np.array([[60.0, 0.0, 31.5], [0.0, 60.0, 15.5], [0.0, 0.0, 1.0]])


class Blocks:
    """Noisy images of two colours with labels, depth, and a different share of unknown pixels in each.

    Their neighbours in time are the same image, a pixel aside.
    """

    label_space = SPACE

    def __init__(self, count: int, seed: int = 0) -> None:
        self.names = [f"block_{index:02d}" for index in range(count)]
        self._seed = seed

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self._seed, index])
        labels = np.zeros(SIZE, dtype=np.uint8)
        labels[:, rng.integers(8, 56) :] = 1
        labels[: rng.integers(4, 12)] = 2
        image = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])[labels] + rng.integers(-40, 40, (*SIZE, 3))
        depth = np.float32(5.0) + 10 * labels.astype(np.float32)
        unknown = rng.random(SIZE) < rng.random()
        labels[unknown], depth[unknown] = 255, 0
        image = image.clip(0, 255).astype(np.uint8)
        frames = {offset: np.roll(image, offset, axis=1) for offset in (-1, 1)}
        return Sample(self.names[index], image, labels, depth, frames, intrinsics=INTRINSICS)


def tiny_config(output_dir: object, *overrides: str) -> RunConfig:
    """A few steps of a network with few weights."""
    return load_config(
        None,
        [
            "model.encoder={model_type: depthseg_resnet, depth: 18, width_factor: 0.125}",
            f"data.size=[{SIZE[0]},{SIZE[1]}]",
            "optim.batch_size=4",
            "schedule.steps=6",
            "run.trackers=[]",
            "run.cpu=true",
            f"run.output_dir={output_dir}",
            *overrides,
        ],
    )


def tiny_pretext_config(output_dir: object, task: str, *pretext: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Four steps of that network; `pretext` are options of that section."""
    small = ["model.head_config={decoder_channels: [8, 8, 8, 16, 16]}", "optim.batch_size=2", "schedule.steps=4"]
    options = (f"pretext.{option}" for option in pretext)
    return tiny_config(output_dir, f"task={task}", *small, *options, *overrides)


def tiny_train(output_dir: object, *overrides: str, scored: int = 3) -> RunResult:
    """Train on ten images, score on a few."""
    return train(tiny_config(output_dir, *overrides), Blocks(10), Blocks(scored, seed=1))


def tiny_start(*overrides: str) -> dict[str, torch.Tensor]:
    """Weights and statistics that `tiny_train` begins with, by their names in its checkpoints."""
    config = tiny_config("unused", *overrides)
    set_seed(config.run.seed)
    model, _ = build_model(config, Blocks(10))
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}


if __name__ == "__main__":
    tiny_train(*sys.argv[2:], scored=int(sys.argv[1]))
    PartialState().destroy_process_group()
