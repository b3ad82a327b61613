"""The procedural world: street scenes ray-cast from `(seed, index)`, with everything about them exactly known."""

from .dataset import SyntheticWorld
from .rendering import OUTPUTS, render
from .world import WORLD, WORLD_VERSION, WorldParameters

__all__ = ["OUTPUTS", "WORLD", "WORLD_VERSION", "SyntheticWorld", "WorldParameters", "render"]
