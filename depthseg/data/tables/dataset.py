"""Data sets of the Hugging Face Hub and the formats that they come in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..faults import Fault, grouped
from ..image_folders import name_some
from ..images import KITTI_DEPTH_SCALE, check_same_size, read_depth, read_image, read_labels, without_unknown
from ..label_encoding import own_encoding
from ..label_spaces import LabelSpace, default_palette
from ..memory_file import MemoryFile
from ..official.layout import Missing
from ..sample import Sample
from .columns import choose_columns

if TYPE_CHECKING:
    from .rows import Rows
    from .source import Source


class HubDataset:
    """A data set of the Hugging Face Hub, or on disk in a format of it.

    ```
    USER/NAME                 id on the Hub
    FOLDER                    of `save_to_disk`, a Dataset or a DatasetDict
    FOLDER, "DIR/*.parquet"   Parquet files
    FOLDER, "DIR/*.tar"       archives of WebDataset: 0001.jpg, 0001.seg.png, 0001.depth.npy, 0002.jpg, ...
    ```

    Splits have the names that the data set gives them; `val` and `validation` stand for each other, and
    `train[:80%]`, `train[100:]` and the like are parts, in the order of the rows. Images and maps are encoded files or
    arrays: images uint8 or floats from 0 to 1, `(H, W)`, `(H, W, 3)` or `(3, H, W)`; labels whole numbers; depth
    metres if they are floating-point numbers, else units of `depth_scale`.

    Without `streaming`, files of the Hub are downloaded, Parquet is copied to the cache of `datasets` once, and images
    are read in any order. With it, nothing is copied: each epoch takes the shards in a new order, and mixes each
    `shuffle_buffer` samples that follow one another. Which sample is where in the order depends on the seed alone, as
    without streaming, so that batches do not depend on the number of processes, each sample is read once an epoch, and
    a resumed run reads what an uninterrupted one does.

    Args:
        root: Hub id, folder or pattern of files.
        split: Such as `train`, or a part such as `train[:80%]`.
        image_column: Column of the images, for archives the ending of the members; None = the one that is named so.
        label_column: Column of the label maps, likewise; `none` = not read.
        depth_column: Column of the depth maps, likewise; `none` = not read.
        name_column: Column of the names of the samples; None = `SPLIT-000012` by row, or the names in an archive.
        classes: Class names in id order; empty = those that the column states, or of id2label.json or classes.txt
            beside the data.
        label_map: Value in the label maps -> class id, class name or `ignore`, such as `{0: ignore, 255: 1}`; ranges
            are possible, such as `{0: ignore, 1-150: 0-149}`.
        depth_scale: Units of whole-number depth per metre.
        config: Configuration of the data set, where it has several.
        revision: Commit, tag or branch on the Hub.
        streaming: Read the files where they are, in their order.
        shuffle_buffer: Streaming: number of samples that are mixed. Each reading process holds about as many of
            Parquet in memory, encoded as they are in the file.
        missing: What to do with samples of an archive that lack a member: `refuse`, or `skip` to leave them out.

    Raises:
        ValueError: An unknown split, column or configuration, columns or classes that have to be named, a name twice,
            an empty split, samples that lack a member, or a damaged file.
        FileNotFoundError: There is no such folder, file or data set.
        PermissionError: A gated data set.
        ConnectionError: The Hub does not answer.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        image_column: str | None = None,
        label_column: str | None = None,
        depth_column: str | None = None,
        name_column: str | None = None,
        classes: Sequence[str] = (),
        label_map: dict[str, Any] | None = None,
        depth_scale: float = KITTI_DEPTH_SCALE,
        config: str | None = None,
        revision: str | None = None,
        streaming: bool = False,
        shuffle_buffer: int = 1000,
        missing: Missing = "refuse",
    ) -> None:
        from .source import find_source  # here, because the library `datasets` takes a second to import

        if not depth_scale > 0:
            raise ValueError(f"depth_scale={depth_scale} is out of range; it is the file units per metre, above 0.")
        if shuffle_buffer < 1:
            raise ValueError(f"shuffle_buffer={shuffle_buffer} is out of range; it is 1 or more samples.")
        self._root = str(root)
        self.shuffle_buffer = shuffle_buffer
        source = find_source(root, config, revision)
        name, first, last = source.split_named(split)
        self._rows: Rows = source.rows(name, streaming, shuffle_buffer)
        where = f"{root}, split {name!r},"
        given = {"image": image_column, "label": label_column, "depth": depth_column}
        self._columns = choose_columns(self._rows.columns, given, where)
        self.missing = self._refuse_incomplete(missing)
        self.label_space = self._label_space(source, classes) if "label" in self._columns else None
        self._encoding = own_encoding(self.label_space.classes, label_map) if self.label_space else None
        self._depth_scale = depth_scale
        self._part = range(len(self._rows))[_bound(first, len(self._rows)) : _bound(last, len(self._rows))]
        if not self._part:
            raise ValueError(f"The split {split!r} of {root} is empty: it has no row that can be used.")
        names = self._names(name_column)
        self.names = names[self._part.start : self._part.stop]
        self.shard_lengths = self._lengths_of_part() if streaming else None

    def _refuse_incomplete(self, missing: Missing) -> list[Fault]:
        faults = self._rows.keep_complete(list(self._columns.values()))
        if faults and missing == "refuse":
            skip = f" With the option missing=skip, the {len(self._rows)} complete samples are used."
            raise ValueError(" ".join(grouped(faults)) + skip * bool(len(self._rows)))
        return faults

    def _label_space(self, source: Source, given: Sequence[str]) -> LabelSpace:
        column = self._columns["label"]
        classes = tuple(given) or self._rows.columns[column].classes or source.class_names()
        if not classes:
            raise ValueError(
                f"The classes of the label column {column!r} of {self._root} are not known. Give their names in id "
                "order, such as data.options.classes=[road,sky], or put an id2label.json beside the data; for images "
                "without labels, label_column=none."
            )
        one_class = len(classes) == 1  # its id is 1, beside a background that `LabelSpace` adds
        colours = default_palette(len(classes) + one_class)[one_class:]
        return LabelSpace(self._root.rstrip("/").rpartition("/")[2], classes, colours)

    def _names(self, column: str | None) -> Sequence[str]:
        if column is not None and column not in self._rows.columns:
            raise ValueError(
                f"{self._root} has no column {column!r}, which the option name_column names; it has "
                f"{', '.join(self._rows.columns)}."
            )
        names = self._rows.names(column)
        if column is None:
            return names
        if None in names:
            raise ValueError(
                f"The column {column!r} of {self._root} is null in row {names.index(None)}, so it cannot name the "
                "samples. Leave name_column out, or name another column."
            )
        names = list(map(str, names))
        if twice := [name for name, number in Counter(names).items() if number > 1]:
            raise ValueError(
                f"The column {column!r} of {self._root} names {len(twice)} samples more than once: "
                f"{name_some(twice)}. Leave name_column out, or name a column whose values differ."
            )
        return names

    def _lengths_of_part(self) -> list[int] | None:
        """Rows of each shard that are in the part of the split that is read."""
        if self._rows.shard_lengths is None:
            return None
        ends = np.cumsum(self._rows.shard_lengths)
        starts = ends - self._rows.shard_lengths
        inside = np.minimum(ends, self._part.stop) - np.maximum(starts, self._part.start)
        return [int(length) for length in inside if length > 0]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._part)

    def __getitem__(self, index: int) -> Sample:
        """Image, labels and depth of a row.

        Raises:
            ValueError: A value that cannot be read, maps of another size than their image, or ids outside the classes.
        """
        row = self._part[index]
        values = self._rows.read(row, list(self._columns.values()))
        place = {what: self._rows.place(row, column) for what, column in self._columns.items()}
        found = {what: values[column] for what, column in self._columns.items()}
        if found["image"] is None:
            raise ValueError(f"{place['image']} is null: a sample has an image.")
        image = _read_image(found["image"], place["image"])
        labels = depth = None
        if found.get("label") is not None:
            assert self._encoding is not None, "label maps are read where there are classes"
            labels = self._encoding.decode(place["label"], _read_labels(found["label"], place["label"]))
            check_same_size(place["image"], image, place["label"], labels)
        if found.get("depth") is not None:
            depth = _read_depth(found["depth"], place["depth"], self._depth_scale)
            check_same_size(place["image"], image, place["depth"], depth)
        return Sample(name=self.names[index], image=image, labels=labels, depth=depth)

    def places_of(self, index: int) -> list[str]:
        """What messages call the image of a sample, its labels and its depth, as far as they are read."""
        columns = (self._columns[what] for what in ("image", "label", "depth") if what in self._columns)
        return [self._rows.place(self._part[index], column) for column in columns]


def splits_of(root: str | Path, config: str | None = None, revision: str | None = None) -> list[str]:
    """Names of the splits of a data set; errors as of `HubDataset`."""
    from .source import find_source

    return list(find_source(root, config, revision).splits)


def _bound(written: str | None, count: int) -> int | None:
    """A bound of a part such as `80%` or `-100` as a number of rows."""
    if written is None or not written.endswith("%"):
        return None if written is None else int(written)
    return round(int(written[:-1]) * count / 100)


def _read_image(value: bytes | np.ndarray, place: str) -> np.ndarray:
    """uint8 `(H, W, 3)`, or as `read_image`."""
    if isinstance(value, bytes):
        return read_image(MemoryFile(value, place))
    image = np.moveaxis(value, 0, -1) if value.ndim == 3 and value.shape[0] in (1, 3) else value
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"{place} is an array of shape {value.shape}; an image is (H, W), (H, W, 3) or (3, H, W).")
    highest = 1 if image.dtype.kind == "f" else 255
    if not (image.min() >= 0 and image.max() <= highest):
        raise ValueError(
            f"{place} is an array of {image.dtype} from {image.min():g} to {image.max():g}; an image has whole "
            "numbers from 0 to 255 or floating-point numbers from 0 to 1."
        )
    pixels = np.rint(image * 255.0) if highest == 1 else image
    return np.repeat(pixels.astype(np.uint8), 3 // image.shape[2], axis=2)


def _read_labels(value: bytes | np.ndarray, place: str) -> np.ndarray:
    """Whole numbers `(H, W)` as stored."""
    if isinstance(value, bytes):
        return read_labels(MemoryFile(value, place))
    labels = _plane(value, place, "a label map")
    whole = labels.astype(np.int64) if np.isfinite(labels).all() else None
    if whole is None or (whole != labels).any():
        raise ValueError(f"{place} holds numbers that are not whole, but a label map holds one class id a pixel.")
    return whole


def _read_depth(value: bytes | np.ndarray, place: str, scale: float) -> np.ndarray:
    """float32 `(H, W)`, metres, 0 = unknown."""
    if isinstance(value, bytes):
        return read_depth(MemoryFile(value, place), scale)
    depth = _plane(value, place, "a depth map")
    metres = depth if depth.dtype.kind == "f" else depth / scale
    return without_unknown(place, metres).astype(np.float32)


def _plane(value: np.ndarray, place: str, what: str) -> np.ndarray:
    """`(H, W)` of an array with or without a channel."""
    if value.ndim == 3 and 1 in (value.shape[0], value.shape[2]):
        value = value[0] if value.shape[0] == 1 else value[..., 0]
    if value.ndim != 2 or not value.size:
        raise ValueError(f"{place} is an array of shape {value.shape}; {what} is (H, W).")
    return value
