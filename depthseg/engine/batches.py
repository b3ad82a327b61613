"""From samples to the tensors that an objective takes."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..data.decoded import keep_in_workers
from ..data.transforms import applied
from ..models import DepthSegImageProcessor
from .device_pixels import change_pixels, levels, pack_changes, pack_plan
from .guarded_reading import GuardedCollate, GuardedDataset, read_guarded
from .sampling import MicroBatches, stream_of
from .stopping import leave_stopping_to_the_run

if TYPE_CHECKING:
    from ..data import Sample, SampleDataset
    from .label_range import LabelRange

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
        label_range: Class ids that samples may have; None = they are not checked.

    Attributes:
        content, label_stride: As given.
    """

    def __init__(
        self, processor: Any, content: BatchContent, label_stride: int = 1, label_range: LabelRange | None = None
    ) -> None:
        self._processor = processor
        self.content = content
        self.label_stride = label_stride
        self._label_range = label_range

    def __call__(self, samples: list[Sample]) -> dict[str, Tensor]:
        """Make the tensors that an objective of `depthseg.pretext` takes.

        Returns:
            `pixel_values` `(B, 3, H, W)` as the processor scales them, black in holes. As asked for: `image`
            `(B, 3, H, W)` in [0, 1], without colour jitter; of S sources, frames in their order and then the other
            camera, `source_pixel_values` and `source_images` `(B, S, 3, H, W)`; `intrinsics` `(B, 3, 3)`; `stereo_x`
            `(B,)`; `holes` bool `(B, H, W)`; labels and depth `(B, H, W)` or as `label_stride` says, categories
            `(B,)`.

        Raises:
            ValueError: A sample that lacks what is asked for, or has a class id that the model does not know.
        """
        return self.finish(self.gather(samples))

    def gather(self, samples: list[Sample]) -> dict[str, Any]:
        """As calling this, but images of 8 bits stay bytes, and what is left of their `change` is left to `finish`.

        Returns:
            What calling this returns but images, and these as uint8 `(B, H, W, 3)` or `(B * S, H, W, 3)`, or as
            `pack_changes` packs them. `image` and `source_images` are left out where they are what the network sees.
            Images of more than 8 bits, and those of a processor of another kind, are finished.
        """
        content = self.content
        whole = self._table is None or any(map(_has_deep_images, samples))
        if whole:
            samples = [applied(sample) for sample in samples]
        clean = [sample.clean or sample for sample in samples]
        batch = self._scaled_views(samples, clean) if whole else self._views(samples, clean)
        for key, kind in content.truth.items():
            truths = [_at_stride(self._checked(sample, kind), self.label_stride) for sample in samples]
            batch[key] = torch.from_numpy(np.stack(truths))
        if content.intrinsics:
            intrinsics = [_require(sample, "intrinsics", UNCALIBRATED) for sample in samples]
            batch["intrinsics"] = torch.from_numpy(np.stack(intrinsics).astype(np.float32))
        if content.stereo:
            baselines = [float(_require(sample, "stereo_x", "the baseline of a stereo pair")) for sample in samples]
            batch["stereo_x"] = torch.tensor(baselines)
        if content.holes:
            batch["holes"] = torch.from_numpy(np.stack([_holes_of(sample) for sample in samples]))
        return batch

    def finish(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Change and scale what `gather` left as bytes, on the device that it is on."""
        truths = self.content.truth.items()
        finished = batch | {key: batch[key].to(_TRUTHS[kind][1]) for key, kind in truths}
        for seen, compared in _VIEWS.items():
            left = batch.get(seen)
            if isinstance(left, dict) or getattr(left, "dtype", None) == torch.uint8:
                own = _bytes_of(left)
                clean = _bytes_of(batch[compared], left) if compared in batch else own
                if seen == "pixel_values" and self.content.holes:
                    own = own.masked_fill(batch["holes"][..., None], 0)
                finished[seen] = levels(own, self._table_on(own.device))
                if seen != "pixel_values" or self.content.images:
                    finished[compared] = levels(clean, _unit_on(own.device))
                if seen != "pixel_values":
                    shape = (len(finished["pixel_values"]), -1)
                    finished |= {key: finished[key].unflatten(0, shape) for key in (seen, compared)}
        return finished

    @cache  # noqa: B019 - a device is asked to copy it once, not at every step
    def _table_on(self, device: torch.device) -> Tensor:
        return self._table.to(device)

    @cached_property
    def _table(self) -> Tensor | None:
        """What the processor makes of each byte of each channel, `(3, 256)`; None of one that may not go by bytes."""
        if type(self._processor) is not DepthSegImageProcessor:
            return None
        ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
        return self.scale([ramp])[0].flatten(1)

    def _views(self, samples: list[Sample], clean: list[Sample]) -> dict[str, Any]:
        """The images, as bytes."""
        content = self.content
        changed_alike = all(map(operator.is_, samples, clean))
        views = {"pixel_values": _gathered(samples, [[sample.image] for sample in samples])}
        if content.images and not changed_alike:
            views["image"] = _gathered(clean, [[sample.image] for sample in clean], views["pixel_values"])
        if content.source_frames or content.stereo:
            views["source_pixel_values"] = first = _gathered(samples, [self._sources(sample) for sample in samples])
            if not changed_alike:
                views["source_images"] = _gathered(clean, [self._sources(sample) for sample in clean], first)
        return views

    def _scaled_views(self, samples: list[Sample], clean: list[Sample]) -> dict[str, Any]:
        """The images, scaled."""
        content = self.content
        images = [sample.image for sample in samples]
        if content.holes:
            images = [np.where(_holes_of(sample)[..., None], np.uint8(0), sample.image) for sample in samples]
        views = {"pixel_values": self.scale(images)}
        if content.images:
            views["image"] = _to_unit(np.stack([sample.image for sample in clean]))
        if content.source_frames or content.stereo:
            shape = (len(samples), -1)
            jittered = [image for sample in samples for image in self._sources(sample)]
            views["source_pixel_values"] = self.scale(jittered).unflatten(0, shape)
            images = [image for sample in clean for image in self._sources(sample)]
            views["source_images"] = _to_unit(np.stack(images)).unflatten(0, shape)
        return views

    def truths_of(self, sample: Sample) -> dict[str, np.ndarray]:
        """What is known about one sample, by its name in the batch, as `target_of` has it, at the label stride."""
        for kind in self.content.truth.values():
            self._checked(sample, kind)
        found = {key: target_of(sample, kind) for key, kind in self.content.truth.items()}
        return {key: _at_stride(truth, self.label_stride) for key, truth in found.items()}

    def _checked(self, sample: Sample, kind: str) -> np.ndarray:
        truth = _known(sample, kind)
        if self._label_range is not None and kind in CLASS_IDS:
            self._label_range.check(sample.name, truth)
        return truth

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
        if self.content.stereo:
            sources.append(_require(sample, "stereo", "the second view of a stereo pair"))
        return sources


def _require(sample: Sample, name: str, what: str) -> Any:
    value = getattr(sample, name)
    if value is None:
        raise ValueError(f"Image {sample.name!r} comes without {what}.")
    return value


def _holes_of(sample: Sample) -> np.ndarray:
    return _require(sample, "holes", "holes, which the transform draws")


def _has_deep_images(sample: Sample) -> bool:
    """Whether an image has more than 8 bits."""
    images = [sample.image, *sample.frames.values(), *([] if sample.stereo is None else [sample.stereo])]
    return any(image.dtype != np.uint8 for image in images)


def _gathered(samples: list[Sample], images: list[list[np.ndarray]], like: dict | Tensor | None = None) -> Any:
    """The images of each sample as bytes, with what is left of its change; without those that `like` holds already."""
    together = [image for of_sample in images for image in of_sample]
    if samples[0].change is None:
        return torch.from_numpy(np.stack(together))
    changes = [sample.change for sample, of_sample in zip(samples, images, strict=True) for _ in of_sample]
    return (pack_changes if like is None else pack_plan)(together, changes)


def _bytes_of(gathered: Any, like: Any = None) -> Tensor:
    """The bytes of gathered images with their change done, uint8 `(N, H, W, 3)`; `like` may hold those before it."""
    if isinstance(gathered, Tensor):
        return gathered
    return change_pixels(gathered if like is None else {"values": like["values"], **gathered})


@cache
def _unit_on(device: torch.device) -> Tensor:
    """What `_to_unit` makes of each byte, `(3, 256)`."""
    return _to_unit(np.arange(256, dtype=np.uint8).reshape(1, 1, -1, 1).repeat(3, axis=3))[0, :, 0].to(device)


def _to_unit(images: np.ndarray) -> Tensor:
    """Images `(N, H, W, 3)` from 0 to 255 as float32 `(N, 3, H, W)` in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255


UNCALIBRATED = (
    "the intrinsics of its camera: give a calibration (data.options.calibration, or calib.txt beside the frames), or "
    "do without: depth learns the focal length with pretext.intrinsics=one_camera, and flow takes images as they "
    "are with pretext.derotate=false"
)

_VIEWS = {"pixel_values": "image", "source_pixel_values": "source_images"}
"""Images as the network sees them -> the same as losses compare them."""

_TRUTHS = {
    "labels": ("label map", torch.int64),
    "depth": ("depth map", torch.float32),
    "category": ("class of the whole image", torch.int64),
}

CLASS_IDS = ("labels", "category")
"""The truths that are class ids."""


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
    return _known(sample, kind).astype(np.float32 if kind == "depth" else np.int64, copy=False)


def _known(sample: Sample, kind: str) -> np.ndarray:
    """Truth of a sample in the type that it has; see `target_of`."""
    target = getattr(sample, kind)
    if target is None:
        what = _TRUTHS[kind][0]
        raise ValueError(f"Image {sample.name!r} has no {what}, and this task needs one for every image.")
    return np.asarray(target)


def _start_worker(keep: Callable[[int], None], number: int) -> None:
    leave_stopping_to_the_run()
    keep(number)


def micro_batches(
    dataset: Dataset,
    collate: Callable[[list], dict[str, Any]],
    plan: MicroBatches,
    num_workers: int,
    device: torch.device,
    finish: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Read the micro-batches of a plan, one after the other, onto a device.

    Reading processes, which live as long as this iterator, are ahead by two micro-batches each. For a GPU they are
    pinned in memory, so that copying one does not wait for the GPU.

    Args:
        dataset: What to read.
        collate: How samples become a batch, in the reading process.
        plan: Which positions make up which micro-batch.
        num_workers: Reading processes; 0 = read in this process.
        device: Where batches go.
        finish: What is done to a batch on the device; None = nothing.
    """
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        GuardedDataset(dataset),
        batch_sampler=plan,
        collate_fn=GuardedCollate(collate),
        num_workers=num_workers,
        worker_init_fn=partial(_start_worker, keep_in_workers()),
        pin_memory=on_gpu,
        # A generator of its own: drawing from the global one would make a resumed run differ from an unbroken one.
        generator=torch.Generator().manual_seed(0),
    )
    for batch in read_guarded(loader):
        moved = _moved(batch, device)
        yield finish(moved) if finish else moved


def _moved(batch: Any, device: torch.device) -> Any:
    """A batch, or a part of it, on a device; what is neither tensors nor features stays where it is."""
    if isinstance(batch, dict):
        return {name: _moved(value, device) for name, value in batch.items()}
    return batch.to(device, non_blocking=device.type == "cuda") if hasattr(batch, "to") else batch
