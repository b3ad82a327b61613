"""Images of any size through a network: whole, or in overlapping tiles whose outputs are blended.

The network sees an image at the size that its image processor resizes to, or at the image's own size. Where that is
more than a network can take at once, it sees tiles. Each pixel of the result is the mean of the tiles over it,
weighted by its distance from their borders, where a network knows least. Outputs of tiles are kept as small as the
network makes them, and are brought to the size of the image a few rows at a time.

Shape letters: H and W image size, h and w size of what the network sees, R rows of a strip, K channels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models.image_inputs_depthseg import resize_values
from ..models.image_processing_depthseg import ids_of
from ..models.lean_loss_depthseg import Taps, crossed, row_tiles, rows_per_tile, weighted_sums
from ..models.modeling_depthseg import DepthSegSegmenterOutput
from .inference import OUTPUTS, check_finite, maps_of, outputs_of_each

if TYPE_CHECKING:
    from ..models import DepthSegImageProcessor

Size = tuple[int, int]

LARGEST_WHOLE = 2**21
"""Images of more pixels are seen in tiles, unless the tile is chosen."""
TILE: Size = (1024, 1024)
"""Height and width of tiles where neither the user nor the image processor says any."""
OVERLAP = 1 / 4
"""Share of a tile, at least, that the next one sees as well; up to 3/8 where that is less than `FAR` pixels."""
FAR = 192
"""Pixels from its border where a tile is as good as the whole image, nearly; measured with a ResNet-18."""
STEEPNESS = 4
"""Exponent of the weights: of two tiles the one whose border is farther counts more than in proportion."""
LARGEST_SCORES = 2**20
"""Most pixels of the class scores of a whole image in tiles."""


@dataclass(frozen=True)
class Tiling:
    """How the network sees images.

    Attributes:
        native: Whether at their own size, whatever the image processor resizes to, in tiles of that size.
        tile: Height and width of tiles in pixels of what the network sees; None = as `tile_size` chooses.
    """

    native: bool = False
    tile: Size | None = None

    def seen_size(self, processor: DepthSegImageProcessor, size: Size) -> Size:
        """Height and width of what the network sees of an image of a size."""
        return size if self.native else trained_size(processor) or size

    def tile_size(self, processor: DepthSegImageProcessor, size: Size) -> Size | None:
        """Height and width of the tiles of an image of a size; None = the network sees it whole."""
        seen = self.seen_size(processor, size)
        tile = self.tile
        if tile is None and self.native:
            tile = trained_size(processor) or TILE
        elif tile is None:
            tile = TILE if math.prod(seen) > LARGEST_WHOLE else seen
        tile = (min(tile[0], seen[0]), min(tile[1], seen[1]))
        return None if tile == seen else tile


def trained_size(processor: DepthSegImageProcessor) -> Size | None:
    """Height and width that an image processor resizes to; None = it does not."""
    size = processor.size if processor.do_resize else None
    return None if size is None else (size["height"], size["width"])


def least_step(model: nn.Module) -> int:
    """Pixels that tiles begin at a multiple of: the coarsest map of a tile is then a part of that of the image."""
    encoder = model.encoder
    return 1 if encoder.fixed_size else math.lcm(encoder.multiple, math.ceil(max(encoder.strides)))


def spans(length: int, tile: int, step: int) -> list[slice]:
    """Places of the tiles along one axis, from 0 to `length`; the last one may be shorter by less than `step`.

    Args:
        length: Pixels of the axis.
        tile: Of the tiles.
        step: What the beginnings are multiples of.

    Raises:
        ValueError: Tiles of so few pixels cannot overlap.
    """
    if tile >= length:
        return [slice(0, length)]
    if tile < 2 * step:
        raise ValueError(
            f"A tile has {tile} pixels on a side; this network needs {2 * step} or more. Give --tile HEIGHTxWIDTH."
        )
    overlap = max(tile * OVERLAP, min(FAR, tile * 3 / 8))
    advance = max(int(tile - overlap) // step, 1) * step
    last = math.ceil((length - tile) / step) * step
    return [slice(start, min(start + tile, length)) for start in (*range(0, last, advance), last)]


@dataclass(frozen=True)
class Tile:
    """What a network makes of a part of an image.

    Attributes:
        rows, columns: The part, in pixels of what the network sees.
        maps: Output -> float32 `(h', w', K)`, covering the part, at whatever size the network has it; upper rows may
            have been dropped.
        heights: Output -> its rows before any was dropped.
    """

    rows: slice
    columns: slice
    maps: dict[str, Tensor]
    heights: dict[str, int]

    @classmethod
    def of(cls, rows: slice, columns: slice, maps: dict[str, Tensor]) -> Tile:
        """A whole tile."""
        return cls(rows, columns, maps, {name: len(values) for name, values in maps.items()})

    def below(self, row: int) -> Tile:
        """The same without what is not read by pixels below a row of what the network sees."""
        share = (row - self.rows.start) / (self.rows.stop - self.rows.start)
        kept = {
            name: values[max(0, int(share * self.heights[name]) - 1 - self.heights[name] + len(values)) :].clone()
            for name, values in self.maps.items()
        }
        return replace(self, maps=kept)


def axis_taps(span: slice, count: int, places: Tensor) -> Taps:
    """Where a map of `count` entries along a span is read bilinearly at places, as `F.interpolate` reads it."""
    centre = ((places - span.start) * (count / (span.stop - span.start)) - 0.5).clamp(0, count - 1)
    first = centre.long()
    share = (centre - first).float()
    return Taps(torch.stack([first, (first + 1).clamp(max=count - 1)], 1), torch.stack([1 - share, share], 1))


def ramp(span: slice, overlap: int, places: Tensor) -> Tensor:
    """Weights of a tile along one axis: from 0 at its ends up to 1 where the overlap ends."""
    distance = torch.minimum(places - span.start, span.stop - places)
    return (distance / overlap).clamp(max=1).pow(STEEPNESS).float()


def blend(tiles: Sequence[Tile], name: str, places: tuple[Tensor, Tensor], overlap: Size) -> Tensor:
    """Mean of the outputs of tiles at the pixels of some rows.

    Args:
        tiles: All that cover any of the rows.
        name: Of the output.
        places: Row of each row of pixels, and column of each column, where the network sees them: float64 `(R,)` and
            `(W,)`; 0 is the upper or left border of the first pixel.
        overlap: Rows and columns over which the weight of a tile rises from its border.

    Returns:
        float32 `(R, W, K)`.
    """
    shape = [len(axis) for axis in places]
    first = tiles[0].maps[name]
    total, weight = first.new_zeros(*shape, first.shape[2]), first.new_zeros(*shape, 1)
    for tile in tiles:
        inside = [_between(axis, span) for axis, span in zip(places, (tile.rows, tile.columns), strict=True)]
        rows, columns = (axis[part] for axis, part in zip(places, inside, strict=True))
        if not len(rows) or not len(columns):
            continue
        values = tile.maps[name]
        height, width, channels = values.shape
        lines = axis_taps(tile.rows, tile.heights[name], rows)
        lines = Taps(lines.index - (tile.heights[name] - height), lines.weights)
        taps = crossed(lines, axis_taps(tile.columns, width, columns), width)
        values = weighted_sums(values.view(-1, channels), taps.to(values.device)).view(len(rows), len(columns), -1)
        share = ramp(tile.rows, overlap[0], rows)[:, None] * ramp(tile.columns, overlap[1], columns)
        share = share[..., None].to(values.device)
        total[inside[0], inside[1]] += share * values
        weight[inside[0], inside[1]] += share
    return total / weight


def _between(places: Tensor, span: slice) -> slice:
    """Which of rising places are inside a span."""
    ends = torch.tensor([span.start, span.stop], dtype=places.dtype)
    return slice(
        int(torch.searchsorted(places, ends[0], right=True)), max(0, int(torch.searchsorted(places, ends[1])))
    )


@dataclass(frozen=True)
class MapPredictor:
    """Labels and depth of images.

    Attributes:
        model: Segmenter or depth model in evaluation mode.
        processor: Its image processor.
        tiling: How the network sees images.
        batch_size: How many images, or tiles of an image, the network sees at once.
    """

    model: nn.Module
    processor: DepthSegImageProcessor
    tiling: Tiling = Tiling()
    batch_size: int = 1

    def maps(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray | None, np.ndarray | None]]:
        """Class ids uint8 `(H, W)` and depth float32 `(H, W)` of images of one size; None what the model has not.

        Args:
            images: RGB uint8 `(H, W, 3)`, or as `read_image` returns grey images of more than 8 bits.

        Raises:
            ValueError: The model's output is not finite.
        """
        size = images[0].shape[:2]
        if self.tiling.tile_size(self.processor, size) is not None:
            return [self._tiled_maps(image) for image in images]
        return [maps_of(outputs, self.processor, size) for outputs in self.outputs(images)]

    def outputs(self, images: Sequence[np.ndarray]) -> list[Any]:
        """Output of the network for each of several images of one size; see `maps`.

        Returns:
            Outputs of one image each: `logits` `(1, K, h', w')`, `predicted_depth` `(1, h', w')`. Blended from tiles
            they have at most 2^20 pixels.
        """
        size = images[0].shape[:2]
        if self.tiling.tile_size(self.processor, size) is not None:
            return [self._blended_outputs(image) for image in images]
        option = {"do_resize": False} if self.tiling.native else {}
        starts = range(0, len(images), self.batch_size)
        batches = (images[start : start + self.batch_size] for start in starts)
        return [each for batch in batches for each in outputs_of_each(self.model, self.processor, batch, **option)]

    def _tiled_maps(self, image: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        size = image.shape[:2]
        labels = depth = None
        for rows, outputs in self._strips(image, size):
            if "logits" in outputs:
                labels = np.empty(size, np.uint8) if labels is None else labels
                labels[rows] = ids_of(outputs["logits"].permute(2, 0, 1)[None])[0].cpu().numpy()
            if "predicted_depth" in outputs:
                depth = np.empty(size, np.float32) if depth is None else depth
                depth[rows] = outputs["predicted_depth"][..., 0].cpu().numpy()
        return labels, depth

    def _blended_outputs(self, image: np.ndarray) -> Any:
        seen = self.tiling.seen_size(self.processor, image.shape[:2])
        scale = min(1.0, math.sqrt(LARGEST_SCORES / math.prod(seen)))
        strips = [outputs for _, outputs in self._strips(image, tuple(max(1, int(side * scale)) for side in seen))]
        whole = {name: torch.cat([strip[name] for strip in strips]).permute(2, 0, 1) for name in strips[0]}
        logits, depth = whole.get("logits"), whole.get("predicted_depth")
        return DepthSegSegmenterOutput(logits=None if logits is None else logits[None], predicted_depth=depth)

    @torch.no_grad()
    def _strips(self, image: np.ndarray, size: Size) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        """Blended outputs at a size, from top to bottom: rows, and output -> float32 `(R, W, K)`."""
        seen = self.tiling.seen_size(self.processor, image.shape[:2])
        tile = self.tiling.tile_size(self.processor, image.shape[:2])
        step = least_step(self.model)
        row_spans, column_spans = (spans(*axis, step) for axis in zip(seen, tile, strict=True))
        overlap = tuple(
            places[0].stop - places[1].start if len(places) > 1 else 1 for places in (row_spans, column_spans)
        )
        rows, columns = (
            (torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) for old, new in zip(seen, size, strict=True)
        )
        levels = resize_values(self.processor.to_rgb(image), seen[::-1], self.processor.resample)
        tiles: list[Tile] = []
        done = 0
        for span, after in itertools.zip_longest(row_spans, row_spans[1:]):
            tiles += self._tile_row(levels, span, column_spans)
            # Below, the next tiles have a say as well.
            until = size[0] if after is None else int(torch.searchsorted(rows, float(after.start), right=True))
            channels = sum(values.shape[2] for values in tiles[0].maps.values())
            for strip in row_tiles(until - done, rows_per_tile(channels * size[1], self.model.device)):
                strip = slice(done + strip.start, done + strip.stop)
                places = rows[strip], columns
                yield strip, {name: blend(tiles, name, places, overlap) for name in tiles[0].maps}
            done = until
            if after is not None:
                tiles = [each.below(after.start) for each in tiles if each.rows.stop > after.start]

    def _tile_row(self, levels: np.ndarray, rows: slice, columns: Sequence[slice]) -> list[Tile]:
        """The tiles of some rows of an image of levels, 0 to 255."""
        tiles = []
        for _, group in itertools.groupby(columns, lambda span: span.stop - span.start):
            same = list(group)
            for start in range(0, len(same), self.batch_size):
                batch = same[start : start + self.batch_size]
                crops = [levels[rows, span] for span in batch]
                options = {"do_resize": False, "value_range": (0, 255)}
                pixels = self.processor(images=crops, return_tensors="pt", **options).to(self.model.device)
                outputs = self.model(**pixels)
                check_finite(outputs)
                found = {name: outputs[name].float() for name in OUTPUTS if outputs.get(name) is not None}
                found = {name: values if values.dim() == 4 else values[:, None] for name, values in found.items()}
                found = {name: values.permute(0, 2, 3, 1).contiguous() for name, values in found.items()}
                tiles += [
                    Tile.of(rows, span, {name: values[index] for name, values in found.items()})
                    for index, span in enumerate(batch)
                ]
        return tiles
