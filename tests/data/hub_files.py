"""The same small samples in every format of the Hub."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

CLASSES = ("road", "sky", "tree")
SIZE = (32, 64)
FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.Image(), "depth": datasets.Image()})


def truth(index, size=SIZE):
    """Image, labels and depth in metres of a sample."""
    rng = np.random.default_rng(index)
    labels = rng.choice([0, 1, 2, 255], size, p=[0.4, 0.3, 0.2, 0.1]).astype(np.uint8)
    depth = rng.integers(0, 80 * 256, size).astype(np.uint16)
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8), labels, depth / np.float32(256)


def encoded(values, ending="png"):
    """Bytes of an image or of an array."""
    stream = io.BytesIO()
    if ending == "npy":
        np.save(stream, values)
    else:
        Image.fromarray(values).save(stream, ending)
    return stream.getvalue()


def row(index):
    """The files of a sample: image and labels as PNG, depth as 16-bit PNG of metres x 256."""
    image, labels, depth = truth(index)
    return {
        "image": encoded(image),
        "label": encoded(labels),
        "depth": encoded((depth * 256).astype(np.uint16)),
    }


def cells(index):
    return {name: {"bytes": content, "path": None} for name, content in row(index).items()}


def table(first, last, features=FEATURES, change=lambda number, cell: cell):
    """A `datasets.Dataset` of some samples; `change` alters the cells of a row."""
    rows = [change(index, cells(index)) for index in range(first, last)]
    columns = {name: [cell.get(name) for cell in rows] for name in features}
    return datasets.Dataset.from_dict(columns, features=features)


def write_tar(path, samples, members=None):
    """An archive of samples: `KEY.png`, `KEY.seg.png` and `KEY.depth.npy`, or other members by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if members is None:
        members = {}
        for index in samples:
            image, labels, depth = truth(index)
            parts = {"png": encoded(image), "seg.png": encoded(labels), "depth.npy": encoded(depth, "npy")}
            members |= {f"{index:04d}.{ending}": content for ending, content in parts.items()}
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))


def write_classes(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "id2label.json").write_text(json.dumps(dict(enumerate(CLASSES))))


def write_all(folder: Path, counts=(5, 2, 4), val=3) -> dict[str, Path]:
    """Samples 0, 1, ... in shards of some lengths, and further ones of a split `validation`, in every format."""
    ends = np.cumsum(counts).tolist()
    parts = [(end - count, end) for count, end in zip(counts, ends, strict=True)]
    last = ends[-1]
    saved = datasets.DatasetDict(train=table(0, last), validation=table(last, last + val))
    saved.save_to_disk(folder / "saved")
    for number, (first, end) in enumerate(parts):
        name = f"train-{number:05d}-of-{len(parts):05d}"
        write_tar(folder / "tar" / f"{name}.tar", range(first, end))
        (folder / "parquet" / "data").mkdir(parents=True, exist_ok=True)
        table(first, end).to_parquet(folder / "parquet" / "data" / f"{name}.parquet", batch_size=2)
    write_tar(folder / "tar" / "validation-00000-of-00001.tar", range(last, last + val))
    table(last, last + val).to_parquet(folder / "parquet" / "data" / "validation-00000-of-00001.parquet")
    for name in ("saved", "tar", "parquet"):
        write_classes(folder / name)
    return {name: folder / name for name in ("saved", "parquet", "tar")}
