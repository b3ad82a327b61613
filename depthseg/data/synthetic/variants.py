"""The worlds that data sets are made of: their ranges, their seeds and their classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..label_spaces import LABEL_SPACES, LabelSpace, default_palette
from .world import WORLD, WorldParameters, parameter_hash


@dataclass(frozen=True)
class Variant:
    """One world.

    Attributes:
        parameters: Ranges that its scenes are drawn from.
        seeds: Seed of each split; no two variants share one.
        label_space: Its classes.
        class_of: For each class of "camvid11", which the renderer speaks, the class of `label_space`.
        prefix: What its folders and names begin with.
    """

    parameters: WorldParameters
    seeds: Mapping[str, int]
    label_space: LabelSpace
    class_of: Mapping[str, str]
    prefix: str = ""

    @property
    def version(self) -> str:
        """The hash of the ranges."""
        return parameter_hash(self.parameters)

    @property
    def ids(self) -> np.ndarray:
        """uint8 `(11,)`: id in `label_space` of each id of "camvid11"."""
        names = LABEL_SPACES["camvid11"].classes
        return np.array([self.label_space.label2id[self.class_of[name]] for name in names], np.uint8)


SECOND_WORLD = replace(
    WORLD,
    # a wider street seen from a higher seat, through longer lenses
    straight_share=0.3,
    curve_radius=(40.0, 110.0),
    road_half_width=(4.5, 8.5),
    pavement_width=(2.5, 7.0),
    crossing_share=0.6,
    open_side_share=0.4,
    setback=(2.0, 12.0),
    camera_height=(2.2, 3.6),
    camera_off_road_share=0.2,
    focal=(1.0, 1.4),
    pitch=(-7.0, 0.0),
    turned_share=0.35,
    # other buildings, more green, more traffic, fewer people
    building_width=(5.0, 12.0),
    building_height=(3.0, 8.0),
    building_gap_share=0.6,
    gable_share=0.8,
    trees=(12, 18),
    tree_height=(5.0, 11.0),
    poles=(3, 5),
    signs=(3, 5),
    fences=(5, 8),
    parked_cars=(4, 9),
    moving_cars=(2, 5),
    van_share=0.4,
    pedestrians=(5, 9),
    bicyclists=(2, 4),
    # evening: warmer walls and skies, less light
    muted_saturation=(0.1, 0.4),
    sky_brightness=(0.35, 0.8),
    sky_saturation=(0.2, 0.8),
    road_brightness=(0.15, 0.5),
    pavement_brightness=(0.2, 0.6),
    wall_brightness=(0.1, 0.6),
    leaf_hue=(0.05, 0.35),
    ambient=(0.3, 0.55),
    exposure=(0.7, 1.05),
)
"""Parameters of the second world: other streets, in the evening."""

_GROUPS = {
    "flat": ("Road", "Pavement"),
    "construction": ("Building", "Fence"),
    "object": ("Pole", "SignSymbol"),
    "nature": ("Tree",),
    "sky": ("Sky",),
    "human": ("Pedestrian", "Bicyclist"),
    "vehicle": ("Car",),
}

_CAMVID11 = LABEL_SPACES["camvid11"]

VARIANTS: dict[str, Variant] = {
    "first": Variant(
        WORLD, {"train": 0, "val": 1, "test": 2}, _CAMVID11, class_of={name: name for name in _CAMVID11.classes}
    ),
    "second": Variant(
        SECOND_WORLD,
        {"train": 3, "val": 4, "test": 5},
        LabelSpace("second_world", tuple(_GROUPS), default_palette(len(_GROUPS))),
        class_of={name: group for group, names in _GROUPS.items() for name in names},
        prefix="second_",
    ),
}
"""Worlds by name: the one that results are measured on, and another one with seven coarse classes of its own."""

CROP_SEEDS = {"train": 6, "val": 7, "test": 8}
"""Seeds of the scenes of the first world that object-centred crops are taken from; no split of a world has them."""
