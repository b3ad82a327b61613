"""The procedural world: street scenes ray-cast from `(seed, index)`, with everything about them exactly known."""

from .crops import SyntheticCrops
from .dataset import SyntheticWorld
from .rendering import OUTPUTS, render
from .variants import SECOND_WORLD, VARIANTS
from .world import WORLD, WORLD_VERSION, WorldParameters

__all__ = [
    "OUTPUTS",
    "SECOND_WORLD",
    "VARIANTS",
    "WORLD",
    "WORLD_VERSION",
    "SyntheticCrops",
    "SyntheticWorld",
    "WorldParameters",
    "render",
]
