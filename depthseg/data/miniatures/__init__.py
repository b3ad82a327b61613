"""Small data sets in the official layouts, made of the procedural world: to try a loader without the real data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..synthetic.rendering import check_size
from .ade20k import write_ade20k
from .camvid import write_camvid
from .cityscapes import write_cityscapes
from .kitti_depth import write_kitti_depth
from .kitti_raw import write_kitti_raw
from .kitti_semantics import write_kitti_semantics
from .nyu_raw import write_nyu_raw
from .nyuv2 import write_nyuv2
from .voc import write_voc

__all__ = ["MINIATURES", "write_miniature"]

MINIATURES: dict[str, tuple[Callable[[Path, int, tuple[int, int]], None], tuple[int, int]]] = {
    "ade20k": (write_ade20k, (64, 84)),
    "camvid": (write_camvid, (90, 120)),
    "cityscapes": (write_cityscapes, (64, 128)),
    "kitti_depth": (write_kitti_depth, (48, 156)),
    "kitti_raw": (write_kitti_raw, (48, 156)),
    "kitti_semantics": (write_kitti_semantics, (48, 156)),
    "nyuv2": (write_nyuv2, (60, 80)),
    "nyuv2_raw": (write_nyu_raw, (60, 80)),
    "voc": (write_voc, (72, 96)),
}
"""Name of the data set -> what writes it, `write(folder, number of scenes, (height, width))`, and its default size."""


def write_miniature(name: str, out: str | Path, count: int = 2, size: tuple[int, int] | None = None) -> Path:
    """Write procedural scenes in the official layout of a data set, with its encodings.

    Args:
        name: A key of `MINIATURES`.
        out: A new or empty folder.
        count: Scenes, or frames of a drive, of each split; 1 or more.
        size: Height and width; None = small, in the proportions of the originals.

    Returns:
        The folder, as the `root` of the data set.

    Raises:
        ValueError: An unknown name, or a number or size out of range.
        FileExistsError: The folder has files in it.
    """
    if name not in MINIATURES:
        raise ValueError(f"There is no miniature of {name!r}; there are {', '.join(MINIATURES)}.")
    if count < 1:
        raise ValueError(f"count is {count}; give the number of scenes, 1 or more.")
    write, default = MINIATURES[name]
    check_size(size or default)
    out = Path(out)
    if out.is_dir() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; give a new folder.")
    out.mkdir(parents=True, exist_ok=True)
    write(out, count, size or default)
    return out
