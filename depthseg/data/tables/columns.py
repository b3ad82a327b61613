"""Which columns of a table hold images, label maps and depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...choices import did_you_mean
from ..float_maps import FLOAT_SUFFIXES
from ..image_folders import IMAGE_SUFFIXES

NOT_READ = "none"
"""Name in place of a column's: this kind is not read."""

Kind = Literal["file", "array", "other"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        kind: `file` = encoded images or maps, `array` = numbers by row and column, `other` = neither.
        shown: Its type in words, for messages.
        classes: Class names that its type states; empty = none.
    """

    kind: Kind
    shown: str
    classes: tuple[str, ...] = ()


# What a column is for -> its names in published data sets; the endings of images are columns of archives.
_NAMES = {
    "image": ("image", "images", "img", "rgb", "photo", "pixel_values", *(end[1:] for end in IMAGE_SUFFIXES)),
    "label": (
        *("label", "labels", "mask", "masks", "annotation", "annotations", "segmentation", "semantic_segmentation"),
        *("segmentation_mask", "semantic", "seg", "label_map", "gt", "ground_truth"),
    ),
    "depth": ("depth", "depth_map", "depths", "depth_image"),
}


def column_of_member(ending: str) -> Column:
    """The column that the members of an archive with an ending make up, such as `jpg` or `depth.npy`."""
    suffix = f".{ending.rpartition('.')[2]}"
    kind: Kind = "file" if suffix in (*IMAGE_SUFFIXES, *FLOAT_SUFFIXES, ".gif") else "other"
    return Column(kind, f"{suffix[1:]} files")


def choose_columns(columns: Mapping[str, Column], given: Mapping[str, str | None], where: str) -> dict[str, str]:
    """Find the columns that are read.

    Args:
        columns: All columns.
        given: What it is for (`image`, `label`, `depth`) -> its name; None = to be guessed, `none` = not read.
        where: The data set, for messages.

    Returns:
        What it is for -> its name, for those that are read.

    Raises:
        ValueError: A column that is not there or holds something else, no image column, several that may be meant, or
            neither labels nor depth where their absence was not asked for.
    """
    chosen = {
        what: name if name is None or name == NOT_READ else _named(columns, what, name, where)
        for what, name in given.items()
    }
    for what in ("label", "depth", "image"):  # an image may be what is left over
        if chosen.get(what) is None:
            taken = [name for name in chosen.values() if name]
            chosen[what] = _guessed({n: c for n, c in columns.items() if n not in taken}, what, where)
    read = {what: name for what, name in chosen.items() if name is not None and name != NOT_READ}
    if "image" not in read:
        raise ValueError(f"{where} has no column that looks like images. {_options(columns, 'image')}")
    if not {"label", "depth"} & read.keys() and given.get("label") != NOT_READ:
        raise ValueError(
            f"{where} has no column that looks like label maps or depth. {_options(columns, 'label')} For images "
            f"alone, give label_column={NOT_READ}."
        )
    return read


def _named(columns: Mapping[str, Column], what: str, name: str, where: str) -> str:
    if name not in columns:
        raise ValueError(
            f"{where} has no column {name!r}, which the option {what}_column names.{did_you_mean(name, columns)} "
            f"{_listed(columns)}"
        )
    if columns[name].kind == "other":
        raise ValueError(
            f"The column {name!r} of {where} holds {columns[name].shown}, but the option {what}_column names one of "
            f"images, encoded files or arrays. {_listed(columns)}"
        )
    return name


def _guessed(columns: Mapping[str, Column], what: str, where: str) -> str | None:
    readable = [name for name, column in columns.items() if column.kind != "other"]
    found = [name for name in readable if _stem(name) in _NAMES[what]]
    if what == "image" and not found and len(readable) == 1:
        return readable[0]
    if len(found) > 1:
        raise ValueError(
            f"{where} has several columns that may be the {what} column: {', '.join(found)}. {_options(columns, what)}"
        )
    return found[0] if found else None


def _stem(name: str) -> str:
    """A column's name without the ending of an archive's member: `seg` of `seg.png`, but `png` of `png`."""
    return name.rsplit(".", 1)[0].lower()


def _options(columns: Mapping[str, Column], what: str) -> str:
    return f"Give the option {what}_column. {_listed(columns)}"


def _listed(columns: Mapping[str, Column]) -> str:
    shown: Sequence[str] = [f"{name} ({column.shown})" for name, column in columns.items()]
    return f"Its columns: {', '.join(shown) or 'none'}."
