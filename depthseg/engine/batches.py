"""From samples to the tensors that an objective takes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .guarded_reading import GuardedCollate, GuardedDataset, leave_signals, read_guarded
from .sampling import MicroBatches, stream_of

if TYPE_CHECKING:
    from ..data import Sample, SampleDataset

Transform = Callable[["Sample", np.random.Generator], "Sample"]


class StreamDataset(Dataset):
    """Augmented samples by their position in the stream, for `DataLoader` workers.

    Args:
        samples: The training set.
        transform: Called as `transform(sample, rng)`.
        seed: Seed of the order and of the augmentation.
        copies: How many augmented copies of a sample there are, which take turns from epoch to epoch; 0 = a new one
            each time.

    Attributes:
        samples, transform, copies: As given.
        stream: The order of the samples.
    """

    def __init__(self, samples: SampleDataset, transform: Transform, seed: int, copies: int = 0) -> None:
        self.samples = samples
        self.transform = transform
        self.stream = stream_of(samples, seed)
        self.copies = copies

    def __getitem__(self, position: int) -> Sample:
        sample = self.samples[self.stream.index(position)]
        if self.copies:
            return self.transform(sample, copy_rng(sample.name, self.copy_at(position)))
        return self.transform(sample, self.stream.rng(position))

    def copy_at(self, position: int) -> int:
        """Number of the copy at a position, where there are `copies` of every sample."""
        return position // self.stream.length % self.copies


def copy_rng(name: str, copy: int) -> np.random.Generator:
    """Generator for the augmentation of a copy: the same in every run, whatever its seed, so that runs share copies.

    Args:
        name: Of the sample.
        copy: Number of the copy.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([copy, int.from_bytes(digest[:8], "big")])


@dataclass(frozen=True)
class BatchContent:
    """What an objective reads of its samples, beside the images as the network sees them.

    Attributes:
        truth: Name in the batch -> attribute of the samples: `labels`, `depth` or `category`.
        images: Whether it compares images, which colour jitter must not have touched.
        source_frames: Offsets in time of the frames that it compares with.
        stereo: Whether it compares with the other camera of a pair.
        intrinsics: Whether it asks for the camera's intrinsics.
        holes: Whether parts of the network's image are erased.
    """

    truth: Mapping[str, str] = field(default_factory=dict)
    images: bool = False
    source_frames: tuple[int, ...] = ()
    stereo: bool = False
    intrinsics: bool = False
    holes: bool = False


class Collate:
    """Turn samples of one size into a batch.

    Args:
        processor: Image processor of the model; it scales pixel values, the transform has set the size.
        content: What the batch is to hold.
        label_stride: Label and depth maps are taken at every so many pixels; 1 = at all.

    Attributes:
        content, label_stride: As given.
    """

    def __init__(self, processor: Any, content: BatchContent, label_stride: int = 1) -> None:
        self._processor = processor
        self.content = content
        self.label_stride = label_stride

    def __call__(self, samples: list[Sample]) -> dict[str, Tensor]:
        """Make the tensors that an objective of `depthseg.pretext` takes.

        Returns:
            `pixel_values` `(B, 3, H, W)` as the processor scales them, black in holes. As asked for: `image`
            `(B, 3, H, W)` in [0, 1], without colour jitter; of S sources, frames in their order and then the other
            camera, `source_pixel_values` and `source_images` `(B, S, 3, H, W)`; `intrinsics` `(B, 3, 3)`; `stereo_x`
            `(B,)`; `holes` bool `(B, H, W)`; labels and depth `(B, H, W)` or as `label_stride` says, categories
            `(B,)`.

        Raises:
            ValueError: A sample that lacks what is asked for.
        """
        content = self.content
        images = [_erased(sample) if content.holes else sample.image for sample in samples]
        batch = {"pixel_values": self.scale(images)}
        truths = [self.truths_of(sample) for sample in samples]
        batch |= {key: torch.from_numpy(np.stack([truth[key] for truth in truths])) for key in content.truth}
        clean = [sample.clean or sample for sample in samples]
        if content.images:
            batch["image"] = _to_unit(np.stack([sample.image for sample in clean]))
        if content.source_frames or content.stereo:
            shape = (len(samples), -1)
            jittered = [image for sample in samples for image in self._sources(sample)]
            batch["source_pixel_values"] = self.scale(jittered).unflatten(0, shape)
            images = [image for sample in clean for image in self._sources(sample)]
            batch["source_images"] = _to_unit(np.stack(images)).unflatten(0, shape)
        if content.intrinsics:
            intrinsics = [_require(sample, "intrinsics", UNCALIBRATED) for sample in samples]
            batch["intrinsics"] = torch.from_numpy(np.stack(intrinsics).astype(np.float32))
        if content.stereo:
            batch["stereo_x"] = torch.tensor(
                [float(_require(s, "stereo_x", "the baseline of a stereo pair")) for s in samples]
            )
        if content.holes:
            batch["holes"] = torch.from_numpy(np.stack([sample.holes for sample in samples]))
        return batch

    def truths_of(self, sample: Sample) -> dict[str, np.ndarray]:
        """What is known about one sample, by its name in the batch, as `target_of` has it, at the label stride."""
        found = {key: target_of(sample, kind) for key, kind in self.content.truth.items()}
        return {key: _at_stride(truth, self.label_stride) for key, truth in found.items()}

    def scale(self, images: list[np.ndarray]) -> Tensor:
        """Images `(H, W, 3)` of one size, RGB from 0 to 255, as `(B, 3, H, W)` that the processor has normalised."""
        # The transform has applied the processor's range of values; once is enough.
        on_scale = {"value_range": (0, 255)} if hasattr(self._processor, "value_range") else {}
        return self._processor(images=images, do_resize=False, return_tensors="pt", **on_scale)["pixel_values"]

    def _sources(self, sample: Sample) -> list[np.ndarray]:
        missing = [offset for offset in self.content.source_frames if offset not in sample.frames]
        if missing:
            raise ValueError(
                f"Image {sample.name!r} lacks its neighbours at {', '.join(f'{o:+d}' for o in missing)}, it has "
                f"{', '.join(f'{o:+d}' for o in sample.frames) or 'none'}. Make data.options.frames name every one of "
                "pretext.source_frames."
            )
        sources = [sample.frames[offset] for offset in self.content.source_frames]
        return (
            [*sources, _require(sample, "stereo", "the second view of a stereo pair")]
            if self.content.stereo
            else sources
        )


def _require(sample: Sample, name: str, what: str) -> Any:
    value = getattr(sample, name)
    if value is None:
        raise ValueError(f"Image {sample.name!r} comes without {what}.")
    return value


def _erased(sample: Sample) -> np.ndarray:
    """The image `(H, W, 3)` with black holes."""
    return np.where(
        _require(sample, "holes", "holes, which the transform draws")[..., None], np.uint8(0), sample.image
    )


def _to_unit(images: np.ndarray) -> Tensor:
    """Images `(N, H, W, 3)` from 0 to 255 as float32 `(N, 3, H, W)` in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255


UNCALIBRATED = (
    "the intrinsics of its camera: give a calibration (data.options.calibration, or calib.txt beside the frames), or "
    "do without: depth learns the focal length with pretext.intrinsics=one_camera, and flow takes images as they "
    "are with pretext.derotate=false"
)

_TRUTHS = {
    "labels": ("label map", np.int64),
    "depth": ("depth map", np.float32),
    "category": ("class of the whole image", np.int64),
}


def _at_stride(truth: np.ndarray, stride: int) -> np.ndarray:
    """Every so many pixels of a map `(H, W)`, the one in the middle of each; other truths as they are."""
    if truth.ndim != 2 or stride == 1:
        return truth
    rows, columns = (_middles(side, stride) for side in truth.shape)
    return truth[np.ix_(rows, columns)]


def _middles(side: int, stride: int) -> np.ndarray:
    """Which pixels of a side stand for the `ceil(side / stride)` cells that it is cut into evenly."""
    count = -(-side // stride)
    return (2 * np.arange(count) + 1) * side // (2 * count)


def target_of(sample: Sample, kind: str) -> np.ndarray:
    """Truth of a sample.

    Args:
        sample: The sample.
        kind: `labels` (class ids as int64 `(H, W)`), `depth` (metres as float32 `(H, W)`) or `category` (int64 `()`).

    Raises:
        ValueError: The sample has none.
    """
    what, dtype = _TRUTHS[kind]
    target = getattr(sample, kind)
    if target is None:
        raise ValueError(f"Image {sample.name!r} has no {what}, and this task needs one for every image.")
    return np.asarray(target, dtype=dtype)


def micro_batches(
    dataset: StreamDataset, collate: Collate, plan: MicroBatches, num_workers: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Read the micro-batches of a plan, one after the other, onto a device.

    Args:
        dataset: What to read.
        collate: How samples become a batch.
        plan: Which positions make up which micro-batch.
        num_workers: Reading processes; 0 = read in this process.
        device: Where batches go.
    """
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        GuardedDataset(dataset),
        batch_sampler=plan,
        collate_fn=GuardedCollate(collate),
        num_workers=num_workers,
        pin_memory=on_gpu,
        worker_init_fn=leave_signals,
        # A generator of its own: drawing from the global one would make a resumed run differ from an unbroken one.
        generator=torch.Generator().manual_seed(0),
    )
    for batch in read_guarded(loader):
        yield {name: values.to(device, non_blocking=on_gpu) for name, values in batch.items()}
