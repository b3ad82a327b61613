"""Object-centred images with one class each, such as image classification is taught with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..label_spaces import LABEL_SPACES, LabelSpace
from ..sample import Sample
from .cache import ShardCache
from .dataset import SyntheticWorld, check_split_and_count
from .rendering import View, check_size, quantise
from .scene import Scene, build_scene
from .variants import CROP_SEEDS
from .world import WORLD_VERSION

CATEGORIES = ("Building", "Pole", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist")
"""The classes of "camvid11" that are things; sky, road and pavement have no edges that a crop could be put around."""

_VERSION = f"{WORLD_VERSION}-crops-1"
_SEARCH_SIZE = (64, 192)
_LEAST_SIDE = 14  # pixels of the search image
_LEAST_SHARE = 0.07  # of the square: of others too much is hidden
_CONTEXT = 1.15
_SCENE_STRIDE = 10**6


class SyntheticCrops:
    """Square images of single objects of the procedural world: its stand-in for ImageNet.

    Each image is rendered anew, at its own resolution, through a square around what is visible of one object, with
    some of its surroundings. The middle pixel shows the object. The scenes belong to no split of `SyntheticWorld`.

    The classes take turns, so of `count` images each class has `count` / 8, up or down to the next whole number:
    scenes are searched until one shows an object of the class well enough. How much of an image its object takes is
    not balanced: 9 % on average for poles, about 20 % for people, 28 % for buildings, 38 % for signs.

    Attributes:
        names: One name for each image, `crop_train_00000` and so on.
        label_space: None; classes belong to whole images.
        categories: Names of the eight classes, in the order of `Sample.category`.
        folder: Where the cache lies.
    """

    splits = SyntheticWorld.splits
    categories = CATEGORIES
    label_space: LabelSpace | None = None

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        count: int,
        size: Sequence[int],
        workers: int | None = None,
    ) -> None:
        """Open the cache, rendering first what it lacks.

        Args:
            root: Cache folder, made when missing; images go into `root/crops_SPLIT_SIZExSIZE/`.
            split: "train", "val" or "test"; they share no scene.
            count: Number of images.
            size: Height and width in pixels, which are equal.
            workers: Rendering processes; None for one per core, at most 8.

        Raises:
            ValueError: An unknown split, a count or size that is none, or a folder of another world.
        """
        check_split_and_count(split, count)
        check_size(size)
        side, width = size
        if side != width:
            raise ValueError(f"size is {list(size)}; crops are square, so give the same number of pixels twice.")
        self.split, self.size = split, (side, side)
        self.names = [f"crop_{split}_{index:05d}" for index in range(count)]
        self.folder = Path(root) / f"crops_{split}_{side}x{side}"
        self._cache = ShardCache(
            self.folder,
            _VERSION,
            partial(_render_crop, CROP_SEEDS[split], side),
            count=count,
            outputs=("image",),
            workers=workers,
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Image number `index` and its class."""
        number = range(len(self))[index]
        return Sample(self.names[number], self._cache.read("image", number), category=number % len(CATEGORIES))


def _render_crop(seed: int, size: int, index: int, outputs: Sequence[str]) -> dict[str, np.ndarray]:
    """The image `(size, size, 3)` of crop number `index`, under the name `image`."""
    scene, square = find_object(seed, index)
    view, pixels = crop_view(scene, square, size)
    return {"image": quantise(view.radiance(*view.cast(pixels))).reshape(size, size, 3)}


def crop_view(scene: Scene, square: tuple[float, float, float], size: int) -> tuple[View, np.ndarray]:
    """A view of the scene, and its pixels `(2, size * size)` under the pixel centres of a crop."""
    x, y, half = square
    steps = (np.arange(size) + 0.5) / size * 2 * half - half
    rows, columns = np.meshgrid(y + steps, x + steps, indexing="ij")
    return View(scene, _SEARCH_SIZE, 0, "left"), np.stack([columns.ravel(), rows.ravel()])


def find_object(seed: int, index: int) -> tuple[Scene, tuple[float, float, float]]:
    """The object that crop number `index` shows, a pure function of the arguments.

    Returns:
        The scene, and the square: x and y of its middle and half its side, in pixels of an image of 64 x 192.
    """
    category = LABEL_SPACES["camvid11"].label2id[CATEGORIES[index % len(CATEGORIES)]]
    number = index
    while not (squares := _squares(scene := build_scene(seed, number), category)):
        number += _SCENE_STRIDE
    choice = np.random.Generator(np.random.PCG64([seed, number, 1])).random()
    return scene, squares[int(choice * len(squares))]


def _squares(scene: Scene, category: int) -> list[tuple[float, float, float]]:
    """Squares around the objects of one class that are large enough, not too hidden, and seen in their own middle."""
    _, hits = View(scene, _SEARCH_SIZE, 0, "left").cast()
    surface = hits.surface.reshape(_SEARCH_SIZE)
    # No body carries sky and ground, whose surfaces are below 0.
    fits = (surface >= 0) & (scene.parts.label[surface] == category)
    body = np.where(fits, scene.parts.body[surface], -1)
    found = []
    for number in np.unique(body[body >= 0]):
        if _category_of(scene, number) != category:
            continue
        rows, columns = np.nonzero(body == number)
        y, x = int(np.median(rows)), int(np.median(columns))
        half = max(x - columns.min(), columns.max() - x, y - rows.min(), rows.max() - y) + 0.5
        share = len(rows) / (2 * half) ** 2
        if 2 * half >= _LEAST_SIDE and share >= _LEAST_SHARE and body[y, x] == number:
            found.append((float(x), float(y), float(_CONTEXT * half)))
    return found


def _category_of(scene: Scene, body: int) -> int:
    """Class of an object: that of its last part, because the post of a sign is a pole."""
    return scene.parts.label[np.flatnonzero(scene.parts.body == body)[-1]]
