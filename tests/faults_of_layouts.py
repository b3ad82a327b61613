"""Planted faults: what a check and the loader must say of them."""

import re

import numpy as np
import pytest
from PIL import Image

from depthseg.data import DATASETS, load_dataset
from depthseg.data.check import check_dataset


def reported(name, root, **options):
    """All problems of a check as one text."""
    return "\n".join(check_dataset(name, root, **options).problems)


def assert_reported(name, root, parts, split="train", **options):
    """A check names the fault and what to do, and opening and reading the split stops with the same words."""
    text = reported(name, root, **options)
    for part in parts:
        assert part in text, f"{part!r} is not in: {text}"
    options = DATASETS[name].load.options_for(root) | options
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(parts[0])):
        for sample in iter_samples(load_dataset(name, root, split, **options)):
            assert sample.image is not None


def iter_samples(dataset):
    """All samples of a data set."""
    return (dataset[index] for index in range(len(dataset)))


def truncate(path):
    """Leave half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def rewrite(path, change):
    """Replace an image by what `change` makes of its values."""
    values = np.asarray(Image.open(path))
    Image.fromarray(change(values)).save(path)
