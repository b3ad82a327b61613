"""Joint geometry and colour changes of a sample for training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from .label_encoding import IGNORED, distinct
from .pixel_changes import ColourChange, Geometry, PixelChange
from .sample import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

CROP_TRIALS = 10
"""How often a crop is drawn again in which one class has too large a share."""


def resize_nearest(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize `(H, W)` ids or depths to `size` = (height, width) without ever mixing two values."""
    return np.array(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.NEAREST))


class TrainTransform:
    """Random crop, resize to one size, mirroring, colour changes and holes.

    All parts of a sample go through the same geometry: images with an antialiased bilinear filter, labels and depth
    with the nearest pixel, so no id or depth is invented. The crop takes the same share of the height and of the
    width, so images are squeezed exactly as a processor that resizes whole images squeezes them. Intrinsics follow.
    Depth values stay as they are: a crop that is enlarged is a longer focal length, not a nearer scene. In a mirrored
    pair the image stays what it is and the other camera stands on the other side. Flow is dropped.

    The colours of all images of a sample change alike. Where it has frames or a second view, `clean` of the result
    holds the same images with their own colours.

    Args:
        size: Height and width of the result.
        hflip: Probability of mirroring left and right.
        crop_scale: Range of the crop's share of the height and width, 0 < low <= high <= 1; (1, 1) = whole image.
        colour_jitter: Brightness, contrast and saturation are changed in random order, each by a factor drawn from
            [1 - j, 1 + j]; 0 <= j <= 1.
        random_crop: Cut a random patch of `size` out of the image, as it is or resized by `scale_range`.
        scale_range: Range of the factor that images are resized by before a random patch is cut, above 0. Where an
            image is smaller than the patch then, it is padded at the right and bottom: black, labels 255, depth 0.
            Images that a loss compares with one another are never padded.
        shortest_edges: Lengths in pixels, at least 1; the shorter side of an image gets one of them, drawn at random,
            before a random patch is cut, in place of `scale_range`; padded likewise. Empty = by `scale_range`.
        longest_edge: Largest length of the longer side then, with the same ratio of sides; 0 = any.
        max_class_share: Largest share that one class may have of the labelled pixels of a patch or crop, above 0; it
            is drawn again up to ten times. 1 = any.
        hole_share: Range of the share of pixels that get a hole around them, 0 <= low <= high <= 1; None = `holes`
            stays None.
        hole_size: Side of the square holes in pixels, at least 1; an even one reaches farther up and left.
        to_rgb: How images of more than 8 bits become RGB `(H, W, 3)`, uint8 or float32 from 0 to 255: `to_rgb` of an
            image processor. They are scaled first of all; None = there are none.
    """

    def __init__(
        self,
        size: Sequence[int],
        hflip: float = 0.5,
        crop_scale: Sequence[float] = (1.0, 1.0),
        colour_jitter: float = 0.0,
        *,
        random_crop: bool = False,
        scale_range: Sequence[float] = (1.0, 1.0),
        shortest_edges: Sequence[int] = (),
        longest_edge: int = 0,
        max_class_share: float = 1.0,
        hole_share: Sequence[float] | None = None,
        hole_size: int = 7,
        to_rgb: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.size = (size[0], size[1])
        self.hflip = hflip
        self.crop_scale = tuple(crop_scale)
        self.colour_jitter = colour_jitter
        self.random_crop = random_crop
        self.scale_range = tuple(scale_range)
        self.shortest_edges = tuple(shortest_edges)
        self.longest_edge = longest_edge
        self.max_class_share = max_class_share
        self.hole_share = None if hole_share is None else (hole_share[0], hole_share[1])
        self.hole_size = hole_size
        self.to_rgb = to_rgb

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Change a sample.

        Args:
            sample: Image `(H, W, 3)`, with whatever else a sample has, or without.
            rng: The only source of randomness. Holes are drawn last, and everything before takes the same number of
                draws whatever the options are: no option moves what another one draws.

        Raises:
            ValueError: Parts of different size, an image that is smaller than the patch to cut, or one of more than
                8 bits that nothing scales; labels with ids that they did not have before.
        """
        return applied(self.deferred(sample, rng))

    def deferred(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Draw what calling this draws, and change all but the pixels of images, whose `change` the result holds."""
        _check_one_size(sample)
        sample = self._scaled(sample)
        geometry = self._draw_geometry(sample, rng)
        colours = self._draw_jitter(rng)
        mirror_x = -1 if geometry.mirrored else 1
        moved = replace(
            sample,
            labels=geometry.map(sample.labels, IGNORED),
            depth=geometry.map(sample.depth, 0),
            stereo_x=None if sample.stereo_x is None else mirror_x * sample.stereo_x,
            intrinsics=geometry.intrinsics(sample.intrinsics),
            flow=None,
            holes=self._draw_holes(rng),
            change=PixelChange(geometry, colours),
        )
        guard_labels(sample, moved)
        compared = colours is not None and (sample.frames or sample.stereo is not None)
        return replace(moved, clean=replace(moved, change=PixelChange(geometry))) if compared else moved

    @property
    def only_mirrors(self) -> bool:
        """Whether mirroring is all that is left to chance."""
        whole = not self.random_crop and self.crop_scale == (1, 1)
        return whole and not self.colour_jitter and self.hole_share is None

    def mirrors(self, rng: np.random.Generator) -> bool:
        """Whether a sample that is changed with this generator is mirrored."""
        return self._draw_place(rng)[2]

    def _scaled(self, sample: Sample) -> Sample:
        """The sample with RGB images on the scale of 8 bits."""

        def scaled(values: np.ndarray) -> np.ndarray:
            """One image as RGB, uint8 or float32 from 0 to 255."""
            if self.to_rgb is not None:
                return self.to_rgb(values)
            if values.dtype != np.uint8:
                raise ValueError(
                    f"Image {sample.name!r} has more than 8 bits ({values.dtype}), and the image processor has no "
                    "to_rgb that scales it; use a DepthSegImageProcessor."
                )
            return values

        frames = {offset: scaled(frame) for offset, frame in sample.frames.items()}
        stereo = None if sample.stereo is None else scaled(sample.stereo)
        return replace(sample, image=scaled(sample.image), frames=frames, stereo=stereo)

    def _draw_geometry(self, sample: Sample, rng: np.random.Generator) -> Geometry:
        drawn, place, mirrored = self._draw_place(rng)
        factor = self._factor(sample.image.shape[:2], drawn)
        cut = self._cut_patch if self.random_crop else self._cut_share
        geometry = cut(sample, factor, place, mirrored)
        if self.max_class_share < 1 and sample.labels is not None:
            again = rng.spawn(1)[0]  # so that the number of trials moves no other draw
            for _ in range(CROP_TRIALS):
                labels = geometry.map(sample.labels, IGNORED)
                if labels is None or largest_class_share(labels) <= self.max_class_share:
                    break
                geometry = cut(sample, factor, again.random(2), mirrored)
        return geometry

    def _draw_place(self, rng: np.random.Generator) -> tuple[float, np.ndarray, bool]:
        """What decides the size, the place `(2,)` down and right, both from 0 to 1, and whether it is mirrored."""
        return rng.random(), rng.random(2), bool(rng.random() < self.hflip)

    def _factor(self, size: tuple[int, int], drawn: float) -> float:
        """Factor of the size of an image, or share of its sides, from a number in [0, 1)."""
        if self.random_crop and self.shortest_edges:
            factor = self.shortest_edges[int(drawn * len(self.shortest_edges))] / min(size)
            return min(factor, self.longest_edge / max(size)) if self.longest_edge else factor
        low, high = self.scale_range if self.random_crop else self.crop_scale
        return low + (high - low) * drawn

    def _cut_patch(self, sample: Sample, factor: float, place: np.ndarray, mirrored: bool) -> Geometry:
        """A patch of `size` of the image resized by a factor, at a place from 0 to 1 down and right."""
        size = sample.image.shape[:2]
        resized = tuple(max(round(factor * side), 1) for side in size)
        inner = min(self.size[0], resized[0]), min(self.size[1], resized[1])
        compared = sample.frames or sample.stereo is not None
        if inner != self.size and (compared or (self.scale_range == (1, 1) and not self.shortest_edges)):
            raise ValueError(
                f"Image {sample.name!r} is {resized[0]} pixels high and {resized[1]} wide, too small to cut a patch "
                f"of {self.size[0]} x {self.size[1]} out of it; set a smaller size, or random_crop=false"
                + (", or a larger scale_range: what a loss compares is not padded." if compared else ".")
            )
        top, left = (int(p * (n - m + 1)) for p, n, m in zip(place, resized, inner, strict=True))
        sy, sx = (side / new for side, new in zip(size, resized, strict=True))
        right, bottom = min((left + inner[1]) * sx, size[1]), min((top + inner[0]) * sy, size[0])
        return Geometry((left * sx, top * sy, right, bottom), inner, self.size, mirrored)

    def _cut_share(self, sample: Sample, share: float, place: np.ndarray, mirrored: bool) -> Geometry:
        """A crop that has a share of the height and width, resized to `size`."""
        size = sample.image.shape[:2]
        top, left = (1 - share) * place * size
        # The sums may pass the border by a rounding error, which Pillow refuses.
        right, bottom = min(left + share * size[1], size[1]), min(top + share * size[0], size[0])
        return Geometry((left, top, right, bottom), self.size, self.size, mirrored)

    def _draw_jitter(self, rng: np.random.Generator) -> ColourChange | None:
        """One change of colours for all images of a sample; None for none."""
        order, factors = rng.permutation(3), 1 + self.colour_jitter * rng.uniform(-1, 1, 3)
        return ColourChange(tuple(order.tolist()), tuple(factors.tolist())) if self.colour_jitter else None

    def _draw_holes(self, rng: np.random.Generator) -> np.ndarray | None:
        """Squares around random pixels, bool `(H, W)`."""
        if self.hole_share is None:
            return None
        height, width = self.size
        count = int(rng.uniform(*self.hole_share) * height * width)
        holes: np.ndarray = np.zeros(height * width, bool)
        holes[rng.choice(height * width, count, replace=False)] = True
        holes = np.pad(holes.reshape(height, width), ((self.hole_size - 1) // 2, self.hole_size // 2))
        for axis in (0, 1):
            holes = np.logical_or.reduce(sliding_window_view(holes, self.hole_size, axis), axis=-1)
        return holes


def applied(sample: Sample) -> Sample:
    """A sample with its `change` done to its images, and to those of its `clean`; as it is where it has none."""
    if sample.change is None:
        return sample
    return replace(
        sample,
        image=sample.change.of(sample.image),
        frames={offset: sample.change.of(frame) for offset, frame in sample.frames.items()},
        stereo=None if sample.stereo is None else sample.change.of(sample.stereo),
        clean=None if sample.clean is None else applied(sample.clean),
        change=None,
    )


def largest_class_share(labels: np.ndarray) -> float:
    """Share of the most frequent class among the labelled pixels of `(H, W)`, 255 = ignored; 0 without any."""
    counts = np.bincount(labels.ravel(), minlength=IGNORED + 1)[:IGNORED]
    return float(counts.max() / max(counts.sum(), 1))


def guard_labels(before: Sample, after: Sample) -> None:
    """Refuse a transform that made up class ids, as a filter that mixes neighbours does.

    Args:
        before: A sample.
        after: The same after a transform.

    Raises:
        ValueError: The labels have an id that they did not have before, apart from 255 = ignored.
    """
    if before.labels is None or after.labels is None:
        return
    are_bytes = before.labels.dtype == after.labels.dtype == np.uint8
    # Looking for a few bytes is quicker than listing all.
    known = before.labels.tobytes() if are_bytes else distinct(before.labels)
    if made_up := [value for value in distinct(after.labels) if value != IGNORED and value not in known]:
        raise ValueError(
            f"The transform made up the class ids {', '.join(map(str, made_up[:8]))} in the labels of "
            f"{before.name!r}, which had none of them: resize label maps with the nearest pixel, never with a filter."
        )


def _check_one_size(sample: Sample) -> None:
    parts = {"labels": sample.labels, "depth": sample.depth, "stereo": sample.stereo}
    parts |= {f"frame {offset:+d}": frame for offset, frame in sample.frames.items()}
    for name, values in parts.items():
        if values is not None and values.shape[:2] != sample.image.shape[:2]:
            (height, width), (image_height, image_width) = values.shape[:2], sample.image.shape[:2]
            raise ValueError(
                f"The {name} of {sample.name!r} is {height} pixels high and {width} wide, its image {image_height} "
                f"and {image_width}; all parts of a sample must have one size."
            )
