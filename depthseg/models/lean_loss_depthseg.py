"""Losses and class ids at the resolution of the labels, without ever holding the upsampled class scores.

With 150 classes the scores at the size of an image are many times what a network itself needs. Here they are made,
used and dropped tile by tile: rows of the image, as many as fit into a cache. A pixel of a tile is the weighted sum of
four low-resolution scores, whose classes are next to each other in memory; the gradient goes the same way back. Loss
and gradient are computed together, in float32 or float64 whatever autocast and the precision of matrix products say,
and equal `F.interpolate(..., mode="bilinear", align_corners=False)` followed by the plain loss to rounding.

Shape letters: B batch, K classes, h and w size of the scores, H and W of the labels, T taps: terms of a weighted sum.

Annotations are not postponed in this file: the schema of the operator is read from them.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Scores of one tile: on a CPU they stay in its second-level cache, an accelerator wants enough to be busy with.
CPU_TILE = 1 << 19
DEVICE_TILE = 1 << 24


@dataclass(frozen=True)
class Taps:
    """For each place of a new axis the places of the old one that it is the weighted sum of.

    Attributes:
        index: int64 `(new, T)`.
        weights: `(new, T)`; 0 where a place has fewer than T.
    """

    index: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> "Taps":
        """The same on a device."""
        return Taps(self.index.to(device), self.weights.to(device))

    def transposed(self, old_size: int) -> "Taps":
        """For each place of the old axis the places of the new one that it is part of."""
        target, source = self.weights.nonzero(as_tuple=True)
        places, weights = self.index[target, source], self.weights[target, source]
        order = places.argsort(stable=True)
        places, counts = places[order], places.bincount(minlength=old_size)
        rank = torch.arange(len(places)) - (counts.cumsum(0) - counts)[places]
        shape = (old_size, int(counts.max()))
        index, spread = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=weights.dtype)
        index[places, rank], spread[places, rank] = target[order], weights[order]
        return Taps(index, spread)


def bilinear_taps(old_size: int, new_size: int, dtype: torch.dtype) -> Taps:
    """The taps of one axis of a bilinear resize with `align_corners=False`, in the arithmetic of `F.interpolate`."""
    centre = ((torch.arange(new_size, dtype=dtype) + 0.5) * (old_size / new_size) - 0.5).clamp(min=0)
    first = centre.long().clamp(max=old_size - 1)
    share = (centre - first).clamp(0, 1)
    if old_size % new_size == 0 and old_size // new_size % 2 == 1:
        # Every new place is the middle of an old one. A second tap of weight 0 would turn infinite scores into NaN.
        return Taps(first[:, None], torch.ones_like(share)[:, None])
    index = torch.stack([first, (first + 1).clamp(max=old_size - 1)], dim=1)
    return Taps(index, torch.stack([1 - share, share], dim=1))


def crossed(rows: Taps, columns: Taps, width: int) -> Taps:
    """Combine the taps of both axes for pixels and scores counted row by row, `width` scores a row."""
    index = rows.index[:, None, :, None] * width + columns.index[None, :, None, :]
    weights = rows.weights[:, None, :, None] * columns.weights[None, :, None, :]
    taps = rows.index.shape[1] * columns.index.shape[1]
    return Taps(index.reshape(-1, taps), weights.reshape(-1, taps))


def weighted_sums(table: Tensor, taps: Taps) -> Tensor:
    """Sum rows of a table `(old, K)` into rows of a new one `(new, K)`."""
    return F.embedding_bag(taps.index, table, mode="sum", per_sample_weights=taps.weights)


def rows_per_tile(scores_per_row: int, device: torch.device) -> int:
    """How many rows of an image a tile has."""
    return max(1, (CPU_TILE if device.type == "cpu" else DEVICE_TILE) // scores_per_row)


def row_tiles(height: int, step: int) -> Iterator[slice]:
    """The rows of each tile of an image."""
    return (slice(start, min(start + step, height)) for start in range(0, height, step))


@dataclass(frozen=True)
class Tile:
    """Some rows of the image.

    Attributes:
        place: Which ones.
        rows: Taps of the vertical axis, `(rows, 2)`.
        source: The rows of the scores that they are made of.
        rows_back: Taps of those, transposed.
    """

    place: slice
    rows: Taps
    source: slice
    rows_back: Taps

    @classmethod
    def of(cls, rows: Taps, place: slice, device: torch.device) -> "Tile":
        """The tile of all taps of the vertical axis, which are on the CPU."""
        rows = Taps(rows.index[place], rows.weights[place])
        source = slice(int(rows.index.min()), int(rows.index.max()) + 1)
        back = Taps(rows.index - source.start, rows.weights).transposed(source.stop - source.start)
        return cls(place, rows.to(device), source, back.to(device))


@dataclass(frozen=True)
class Resize:
    """A bilinear resize of scores, tile by tile.

    Attributes:
        size: h and w.
        columns: Taps of the horizontal axis, `(W, 2)`.
        columns_back: The same, transposed.
        tiles: The rows of the image, in parts.
    """

    size: tuple[int, int]
    columns: Taps
    columns_back: Taps
    tiles: tuple[Tile, ...]

    @classmethod
    def of(cls, scores: Tensor, size: tuple[int, int]) -> "Resize":
        """From scores `(..., K, h, w)` to another height and width."""
        classes, height, width = scores.shape[-3:]
        dtype = torch.promote_types(scores.dtype, torch.float32)
        step = rows_per_tile(classes * size[1], scores.device)
        return resize_between((height, width), tuple(size), step, dtype, scores.device)

    def table(self, scores: Tensor) -> Tensor:
        """Scores `(K, h, w)` of one image as a table `(h * w, K)`, float32 or float64."""
        scores = scores.to(self.columns.weights.dtype)
        return scores.permute(1, 2, 0).contiguous().view(-1, len(scores))

    def up(self, table: Tensor, tile: Tile) -> Tensor:
        """The scores of a tile, `(rows * W, K)`."""
        return weighted_sums(table, crossed(tile.rows, self.columns, self.size[1]))

    def add_back(self, table: Tensor, gradient: Tensor, tile: Tile) -> None:
        """Add the gradient `(rows * W, K)` of a tile's scores to that of the table."""
        width = self.size[1]
        every_row, every_column = (self._each(count) for count in (len(tile.rows.index), width))
        narrow = weighted_sums(gradient, crossed(every_row, self.columns_back, len(self.columns.index)))
        part = table[tile.source.start * width : tile.source.stop * width]
        part += weighted_sums(narrow, crossed(tile.rows_back, every_column, width))

    def _each(self, count: int) -> Taps:
        """The taps of an axis that stays as it is."""
        weights = self.columns.weights
        return Taps(torch.arange(count, device=weights.device)[:, None], weights.new_ones(count, 1))


@lru_cache(maxsize=16)
def resize_between(
    old_size: tuple[int, int], size: tuple[int, int], step: int, dtype: torch.dtype, device: torch.device
) -> Resize:
    """Make a resize; each is kept, because the host waits when its taps are copied to the device.

    Args:
        old_size: h and w.
        size: H and W.
        step: Rows of a tile.
        dtype: Of the weights.
        device: Where the taps go.
    """
    height, width = old_size
    # Tensors of inference mode could not be used by a later training step.
    with torch.inference_mode(False):
        rows, columns = bilinear_taps(height, size[0], dtype), bilinear_taps(width, size[1], dtype)
        tiles = tuple(Tile.of(rows, place, device) for place in row_tiles(size[0], step))
        return Resize((height, width), columns.to(device), columns.transposed(width).to(device), tiles)


@dataclass(frozen=True)
class PixelLoss:
    """The loss of one pixel as a function of its class scores.

    Attributes:
        class_weights: `(K,)`; each pixel counts as much as its class.
        label_smoothing: Share of the target, 0 to 1, that is spread evenly over the classes.
        focusing: Exponent of the focal loss, which multiplies by `(1 - p)**focusing`; 0 = cross-entropy.
        ignore_index: Pixels of this id do not count.
    """

    class_weights: Tensor
    label_smoothing: float
    focusing: float
    ignore_index: int

    def __call__(self, scores: Tensor, ids: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        """The sum over pixels, and its gradient.

        Args:
            scores: `(pixels, K)`.
            ids: int64 `(pixels,)`.
            with_gradient: Whether the gradient is wanted.
        """
        valid = ids != self.ignore_index
        ids = torch.where(valid, ids, 0)[:, None]
        log_shares = torch.log_softmax(scores, dim=1)
        found = log_shares.gather(1, ids)
        weight = self.class_weights[ids] * valid[:, None] * (1 - self.label_smoothing)
        loss, slope = self._of_label(found)
        # Scores of a pixel that does not count may be infinite, and 0 times infinity is no number.
        counts = weight != 0
        total = torch.where(counts, weight * loss, 0).sum()
        slope = torch.where(counts, slope * weight, 0)
        spread = self.class_weights * (self.label_smoothing / len(self.class_weights))
        if self.label_smoothing:
            total = total - torch.where(valid, (log_shares * spread).sum(1), 0).sum()
        if not with_gradient:
            return total, None
        # d log p_label / d score_k = [k = label] - p_k
        gradient = log_shares.exp_().mul_(slope + valid[:, None] * spread.sum())
        gradient.scatter_add_(1, ids, -slope)
        return total, gradient.addcmul_(valid[:, None], spread, value=-1) if self.label_smoothing else gradient

    def _of_label(self, found: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and minus its derivative, of the log-probability of the label."""
        if not self.focusing:
            return -found, torch.ones_like(found)
        share, rest = found.exp(), -torch.expm1(found)
        steepness = self.focusing * rest.pow(self.focusing - 1) * share * found
        return -rest.pow(self.focusing) * found, rest.pow(self.focusing) - steepness


def _free_operator_name() -> str:
    """The name of an operator that does not exist yet.

    Copies of this file from different model folders each have an operator of their own, and so has a file that is
    loaded again under its old name: registering over an operator frees what networks loaded before still call.
    """
    # The hash tells apart names that differ in other signs alone.
    name_hash = hashlib.sha256(__name__.encode()).hexdigest()[:12]
    stem = f"depthseg_{re.sub('[^0-9a-zA-Z_]', '_', __name__)}_{name_hash}"
    namespaces = (f"{stem}_{number}" for number in itertools.count())
    free = next(each for each in namespaces if not hasattr(getattr(torch.ops, each), "pixel_loss"))
    return f"{free}::pixel_loss"


OPERATOR = _free_operator_name()


@torch.library.custom_op(OPERATOR, mutates_args=())
def pixel_loss_and_gradient(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor,
    label_smoothing: float,
    focusing: float,
    ignore_index: int,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Return the sum `()` over pixels and its gradient `(B, K, h, w)`, empty unless wanted; see `pixel_loss_sum`.

    Neither is in half precision: a sum over pixels can exceed float16.
    """
    resize = Resize.of(logits, (labels.shape[-2], labels.shape[-1]))
    loss = PixelLoss(class_weights.to(resize.columns.weights), label_smoothing, focusing, ignore_index)
    total, gradient = _outputs(logits, with_gradient)
    totals = [total.zero_()]
    for index, (scores, ids) in enumerate(zip(logits, labels, strict=True)):
        table = resize.table(scores)
        table_gradient = torch.zeros_like(table) if with_gradient else None
        for tile in resize.tiles:
            total, tile_gradient = loss(resize.up(table, tile), ids[tile.place].flatten(), with_gradient)
            totals.append(total)
            if table_gradient is not None and tile_gradient is not None:
                resize.add_back(table_gradient, tile_gradient, tile)
        if table_gradient is not None:
            gradient[index] = table_gradient.view(*resize.size, -1).permute(2, 0, 1)
    return torch.stack(totals).sum(), gradient


@pixel_loss_and_gradient.register_fake
def _shapes(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor,
    label_smoothing: float,
    focusing: float,
    ignore_index: int,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    return _outputs(logits, with_gradient)


def _outputs(logits: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    gradient = torch.empty_like(logits, dtype=dtype) if with_gradient else logits.new_empty(0, dtype=dtype)
    return logits.new_empty((), dtype=dtype), gradient


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.dtype = inputs[0].dtype
    ctx.save_for_backward(output[1])
    ctx.set_materialize_grads(False)


def _scale_gradient(ctx: Any, of_total: Tensor | None, of_gradient: Tensor | None) -> tuple[Tensor | None, ...]:
    if of_gradient is not None:
        raise NotImplementedError("The segmentation loss has no second derivative; compute it with F.cross_entropy.")
    (gradient,) = ctx.saved_tensors
    return None if of_total is None else (gradient * of_total).to(ctx.dtype), *[None] * 6


pixel_loss_and_gradient.register_autograd(_scale_gradient, setup_context=_keep_gradient)


def pixel_loss_sum(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    focusing: float = 0.0,
    ignore_index: int = 255,
) -> Tensor:
    """Sum of cross-entropy or focal loss over the pixels of the labels, to which the scores are resized bilinearly.

    Equals `F.cross_entropy(F.interpolate(logits, ...), labels, reduction="sum")` with the same weights, smoothing and
    ignored id. It has a first derivative with regard to `logits`, and no second one.

    Args:
        logits (`torch.Tensor` of shape `(B, K, h, w)`): Class scores, two classes or more.
        labels (`torch.LongTensor` of shape `(B, H, W)`): Class ids from 0 to K - 1, or `ignore_index`.
        class_weights (`torch.Tensor` of shape `(K,)`, *optional*): Defaults to 1 for each class.
        label_smoothing (`float`, *optional*, defaults to `0.0`): As in `F.cross_entropy`.
        focusing (`float`, *optional*, defaults to `0.0`): Exponent of the focal loss; 0 or at least 1.
        ignore_index (`int`, *optional*, defaults to `255`): Pixels of this id do not count.

    Returns:
        `torch.Tensor` of shape `()`: float32, or float64 for such scores.
    """
    if class_weights is None:
        class_weights = logits.new_ones(logits.shape[1], dtype=torch.float32)
    with_gradient = logits.requires_grad and torch.is_grad_enabled()
    options = (label_smoothing, focusing, ignore_index, with_gradient)
    return pixel_loss_and_gradient(logits, labels, class_weights, *options)[0]


@torch.no_grad()
def ids_of_resized(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the most probable class of each pixel, int64 `(H, W)`, of scores `(K, h, w)` resized bilinearly."""
    resize = Resize.of(scores, size)
    table, width = resize.table(scores), size[1]
    tiles = [resize.up(table, tile).max(1).indices.view(-1, width) for tile in resize.tiles]
    return torch.cat(tiles)
