"""Training steps of Depth Anything as a segmenter: the step of the engine against a hand-written loop.

The other side is transformers' own network, its last convolution replaced by one with a channel a class, in the loop
that a user would write: autocast, cross-entropy at the size of the labels, backward, AdamW. Both begin with the same
weights and see one batch again and again, so the first losses are equal up to rounding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.compiling import compile_parts
from ..engine.loop import Training, train_step
from ..engine.optim import build_optimizer
from ..engine.options import OptimOptions, RunConfig, RunOptions
from ..engine.pure_bf16 import compute_in_bf16
from ..engine.run import make_accelerator
from ..engine.state import Progress
from ..models import DepthSegForSemanticSegmentation
from ..pretext import SupervisedObjective
from .forward import build_depth_anything
from .timing import Comparison, relative_difference, time_in_turns

NUM_LABELS = 19
IGNORED = 255
LR = 1e-5

NETWORKS: dict[str, dict[str, Any]] = {
    "small": {},
    "base": {
        "backbone": {"hidden_size": 768, "num_attention_heads": 12},
        "reassemble_hidden_size": 768,
        "neck_hidden_sizes": [96, 192, 384, 768],
        "fusion_hidden_size": 128,
    },
    "large": {
        "backbone": {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "out_indices": [5, 12, 18, 24],
        },
        "reassemble_hidden_size": 1024,
        "neck_hidden_sizes": [256, 512, 1024, 1024],
        "fusion_hidden_size": 256,
    },
}
"""What differs from the small network in Depth Anything 2 of each size, as its authors publish them."""


@dataclass(frozen=True)
class Setting:
    """One network, its batch, and where it is trained.

    Attributes:
        config: What differs from the small network.
        batch: Number of images.
        size: Height and width, multiples of 14.
        device: Where it is trained.
        precision: That of `run.precision`.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 2
    size: tuple[int, int] = (182, 252)
    device: str = "cpu"
    precision: str = "no"

    def make_batch(self) -> dict[str, Tensor]:
        """Random images `(B, 3, H, W)` and labels `(B, H, W)`, of which some are ignored."""
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(self.batch, 3, *self.size, generator=generator)
        labels = torch.randint(0, NUM_LABELS, (self.batch, *self.size), generator=generator)
        labels[:, : self.size[0] // 16] = IGNORED
        return {"pixel_values": pixels.to(self.device), "labels": labels.to(self.device)}

    def build_plain(self) -> nn.Module:
        """Transformers' network with one output channel a class, on the CPU."""
        torch.manual_seed(0)
        network = build_depth_anything(**self.config)
        network.head.conv3 = nn.Conv2d(network.head.conv3.in_channels, NUM_LABELS, kernel_size=1)
        network.head.activation2 = nn.Identity()
        return network


@dataclass(frozen=True)
class Variant:
    """How the engine does its step.

    Attributes:
        compile: As `model.compile`.
        pure_bf16: As `run.pure_bf16`.
        label_stride: As `data.label_stride`; above 1 the loss has other numbers.
        channels_last: Weights with the channels innermost, as runs have them.
        fused: The optimiser updates all weights in one pass over memory, as that of runs does.
        backend: Of `torch.compile`.
    """

    compile: bool = False
    pure_bf16: bool = False
    label_stride: int = 1
    channels_last: bool = True
    fused: bool = True
    backend: str = "inductor"


AS_IN_A_RUN = Variant()


class PlainLoop:
    """Steps of the hand-written loop, one a call.

    Args:
        setting: Network and batch.
    """

    def __init__(self, setting: Setting) -> None:
        self._network = setting.build_plain().to(setting.device).train()
        self._optimizer = torch.optim.AdamW(self._network.parameters(), lr=LR, fused=True)
        self._batch = setting.make_batch()
        half = setting.precision != "no"
        self._autocast = {"device_type": torch.device(setting.device).type, "dtype": torch.bfloat16, "enabled": half}

    def loss(self) -> Tensor:
        """The loss of the batch, `()`."""
        with torch.autocast(**self._autocast):
            logits = self._network(self._batch["pixel_values"]).predicted_depth
        return F.cross_entropy(logits.float(), self._batch["labels"], ignore_index=IGNORED)

    def __call__(self) -> None:
        """Do a step."""
        self.loss().backward()
        self._optimizer.step()
        self._optimizer.zero_grad()


class EngineLoop:
    """Steps of the engine, one a call.

    Args:
        setting: Network and batch.
        variant: How steps are done; by default as in a run.
    """

    def __init__(self, setting: Setting, variant: Variant = AS_IN_A_RUN) -> None:
        on_cpu = torch.device(setting.device).type == "cpu"
        config = RunConfig(
            optim=OptimOptions(lr=LR, batch_size=setting.batch),
            run=RunOptions(precision=setting.precision, cpu=on_cpu),
        )
        accelerator = make_accelerator(config)
        model = self.build(setting)
        if variant.compile:
            compile_parts(model, variant.backend)
        if variant.pure_bf16:
            compute_in_bf16(model)
        memory_format = torch.channels_last if variant.channels_last else torch.contiguous_format
        objective = SupervisedObjective(model).train().to(accelerator.device, memory_format=memory_format)
        optimizer = build_optimizer(objective, model.encoder, config.optim)
        for options in (optimizer.defaults, *optimizer.param_groups):
            options["fused"], options["foreach"] = variant.fused, not variant.fused
        prepared, optimizer = accelerator.prepare(objective, optimizer)
        self._batch = setting.make_batch()
        stride = variant.label_stride
        self._batch["labels"] = self._batch["labels"][:, stride // 2 :: stride, stride // 2 :: stride]
        self._training = Training(
            config=config,
            run_dir=Path("."),
            accelerator=accelerator,
            objective=prepared,
            count_valid=objective.count_valid,
            optimizer=optimizer,
            progress=Progress(),
            log=None,
            score=dict,
            selection=None,
            show=dict,
            save_model=lambda: None,
        )

    @staticmethod
    def build(setting: Setting) -> nn.Module:
        """The segmenter with the weights of the other side."""
        plain = setting.build_plain()
        classifier = plain.head.conv3
        # The checkpoint is one of depth; its last layer is replaced anyway.
        plain.head.conv3 = nn.Conv2d(classifier.in_channels, 1, kernel_size=1)
        with tempfile.TemporaryDirectory() as folder:
            plain.save_pretrained(folder)
            model = DepthSegForSemanticSegmentation.from_depth_pretrained(folder, num_labels=NUM_LABELS)
        model.classifier.load_state_dict(classifier.state_dict())
        return model

    def loss(self) -> Tensor:
        """The loss of the batch, `()`."""
        return self._training.objective(self._batch)["loss"]

    def __call__(self) -> None:
        """Do a step."""
        train_step(self._training, [self._batch])


def compare(name: str, repeats: int, **setting: Any) -> Iterator[Comparison]:
    """Compare both sides; see `bench`. Their difference is that of the first losses.

    Args:
        name: Of the case.
        repeats: Timed steps of each side.
        setting: Of `Setting`.
    """
    chosen = Setting(**setting)
    sides = {"plain loop": PlainLoop(chosen), "depthseg": EngineLoop(chosen)}
    difference = relative_difference(*(side.loss().detach() for side in sides.values()))
    yield Comparison(name, time_in_turns(sides, repeats), *chosen.size, difference=difference)
