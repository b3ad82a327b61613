"""What one item of every data set is: an image, what is known about it, and the images that go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from .label_spaces import LabelSpace
    from .pixel_changes import PixelChange


@dataclass(frozen=True)
class Sample:
    """One image and what goes with it; images and maps are all of one size (H, W).

    What a data set does not have is None, or empty for the frames.

    Attributes:
        name: Stable, unique in its data set.
        image: uint8 `(H, W, 3)`, RGB; a grey image of more than 8 bits is uint16 or float32 `(H, W)` until
            `TrainTransform` makes it float32 `(H, W, 3)` on the same scale, 0 to 255. Frames and stereo likewise.
        labels: uint8 `(H, W)`, class ids 0..K-1, 255 = ignored.
        depth: float32 `(H, W)`, metres, 0 = unknown.
        frames: Neighbours in the video by their offset, such as -1 and 1: uint8 `(H, W, 3)`.
        stereo: uint8 `(H, W, 3)`, the image of the other camera of a rectified pair.
        stereo_x: Where the other camera stands on the x axis of this one, metres or any unit; above 0 = to the right.
        intrinsics: float64 `(3, 3)` in pixels of `image`, as `depthseg.geometry` has them.
        flow: float32 `(H, W, 2)`, where each pixel is found in `frames[-1]`, pixels right and down, NaN = unknown or
            not visible there; for scoring only.
        category: Class of the whole image.
        holes: bool `(H, W)`, True = erased, to be painted in.
        clean: This sample before its colours were changed, where a loss compares its images with one another.
        change: What is still to be done to image, frames and stereo, which are as they were read while all else is
            changed already; None = nothing.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray | None = None
    depth: np.ndarray | None = None
    frames: Mapping[int, np.ndarray] = field(default_factory=dict)
    stereo: np.ndarray | None = None
    stereo_x: float | None = None
    intrinsics: np.ndarray | None = None
    flow: np.ndarray | None = None
    category: int | None = None
    holes: np.ndarray | None = None
    clean: Sample | None = None
    change: PixelChange | None = None


@dataclass(frozen=True, kw_only=True)
class SegmentationSample(Sample):
    """A sample of a data set that has labels `(H, W)` for every image; all else as in `Sample`."""

    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class DepthSample(Sample):
    """A sample of a data set that has depth `(H, W)` in metres for every image; all else as in `Sample`."""

    depth: np.ndarray


@dataclass(frozen=True, kw_only=True)
class VideoSample(Sample):
    """A sample of a data set that knows the camera of every image; `frames` holds the neighbours asked for.

    Intrinsics are `(3, 3)`, in pixels of the image; all else is as in `Sample`.
    """

    intrinsics: np.ndarray


def sample_of(**parts: Any) -> Sample:
    """The record that fits: of a sample with labels, else with depth, else with a camera.

    Args:
        **parts: Attributes of `Sample`.
    """
    for what, record in (("labels", SegmentationSample), ("depth", DepthSample), ("intrinsics", VideoSample)):
        if parts.get(what) is not None:
            return record(**parts)
    return Sample(**parts)


class SampleDataset(Protocol):
    """The form of every data set: ordered, indexable, named.

    A data set whose depth may be missing for some samples may say so: `has_depth(index) -> bool`, without reading
    images. One that is read shard by shard says so as well: `shard_lengths`, the number of samples of each shard in
    their order, and `shuffle_buffer`, how many samples that follow one another are mixed.
    """

    @property
    def names(self) -> Sequence[str]:
        """Names of the samples, in their order."""

    @property
    def label_space(self) -> LabelSpace | None:
        """The classes, if it has any."""

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`, in the order of `names`."""
