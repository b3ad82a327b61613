"""Writing images, label maps and depth maps for tests of data sets."""

import numpy as np
from PIL import Image


def save_labels(path, ids):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.array(ids, np.uint8)).save(path)


def save_depth(path, values):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.array(values, np.uint16)).save(path)


def save_image(path, size=(3, 2)):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, (9, 9, 9)).save(path)


def ramp(low, high, size=(20, 25)):
    return np.linspace(low, high, size[0] * size[1]).round().astype(np.uint16).reshape(size)
