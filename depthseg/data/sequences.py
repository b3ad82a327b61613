"""The frames of a sequence, and how they differ from single photographs."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .images import read_thumbnail
from .subsets import evenly_spaced

_LEAST_IMAGES = 10
"""Of fewer images, too few differences can be measured to tell anything."""
_PAIRS = 20
_THUMBNAIL = (32, 24)
_NEAR = 0.6
"""Neighbours are frames of one sequence if they differ by less than this fraction of what other pairs differ by.

Measured with `_PAIRS` pairs: KITTI at 10 frames a second 0.1, CamVid at 1 frame a second 0.4; single photographs are
near 1, and the median of so few pairs strays by 0.1.
"""


@functools.lru_cache(maxsize=16)
def looks_like_sequence(paths: tuple[Path, ...]) -> bool:
    """Whether neighbouring images look like frames of one or several sequences.

    Their names must end in a number and be equal before it, and in the median, neighbours must be far more alike than
    images from different places in the list. At most 40 images are decoded, evenly spread; those that cannot be read
    do not count.

    Args:
        paths: Image files in natural order.
    """
    neighbours = [pair for pair in itertools.pairwise(paths) if _sequence_of(pair[0]) == _sequence_of(pair[1])]
    # Neighbours are to be the rule: the last frame of a sequence has none.
    if len(paths) < _LEAST_IMAGES or len(neighbours) < len(paths) / 2:
        return False
    places = evenly_spaced(len(neighbours), _PAIRS)
    pairs = [pair for place in places if (pair := _thumbnails(*neighbours[place])) is not None]
    if len(pairs) < _LEAST_IMAGES / 2:
        return False
    near = np.median([_difference(*pair) for pair in pairs])
    # Pairs beside one another in the list may still show the same place.
    apart = len(pairs) // 3
    far = [_difference(one[0], other[0]) for n, one in enumerate(pairs) for other in pairs[n + apart :]]
    return bool(near < _NEAR * np.median(far))


def divide_by_sequence(
    images: Mapping[str, Path], order: Sequence[str], count: int
) -> tuple[list[str], list[str]] | None:
    """Divide images so that no frame of `train` is a neighbour of one of `val`.

    Where most images are of sequences, by their names without the last number, and there are several, whole sequences
    are `val`: the smallest ones, as many as bring their images nearest to `count`. Of a single sequence its end is
    `val`, and a twentieth of its images before that, at least one, is in neither.

    Args:
        images: Files by name.
        order: The names in natural order.
        count: Images of `val` asked for, at least 1 and fewer than all.

    Returns:
        Names of `train` and of `val` in natural order; None for single photographs: names that tell no sequences, or a
        single one whose images do not look like frames.
    """
    sequences: dict[str | None, list[str]] = {}
    for name in order:
        sequences.setdefault(_sequence_of(images[name]), []).append(name)
    if sum(len(names) for names in sequences.values() if len(names) > 1) < len(order) / 2:
        return None
    if len(sequences) > 1:
        smallest = sorted(sequences.values(), key=len)
        sizes = list(itertools.accumulate(map(len, smallest)))[:-1]
        taken = min(range(len(sizes)), key=lambda place: abs(sizes[place] - count)) + 1
        val = {name for names in smallest[:taken] for name in names}
        return [name for name in order if name not in val], [name for name in order if name in val]
    gap = max(1, len(order) // 20)
    if not looks_like_sequence(tuple(images[name] for name in order)) or len(order) <= count + gap:
        return None
    return list(order[: len(order) - count - gap]), list(order[len(order) - count :])


def _sequence_of(path: Path) -> str | None:
    """The name before its last number; a name without a number shares its sequence with no other."""
    found = re.fullmatch(r"(.*?)\d+\D*", path.stem)
    return found[1] if found else str(path)


def _thumbnails(*paths: Path) -> list[np.ndarray] | None:
    try:
        return [read_thumbnail(path, _THUMBNAIL) for path in paths]
    except (ValueError, OSError):
        return None


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())
