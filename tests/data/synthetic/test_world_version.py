"""The world is frozen: numbers measured on it stay comparable."""

import dataclasses

import numpy as np

from depthseg.data.synthetic import WORLD, WORLD_VERSION, WorldParameters
from depthseg.data.synthetic.world import Draw, parameter_hash


def test_every_parameter_counts_in_the_version():
    assert parameter_hash(WORLD) == WORLD_VERSION
    for field in dataclasses.fields(WorldParameters):
        value = getattr(WORLD, field.name)
        other = (value[0], value[1] + 0.25) if isinstance(value, tuple) else value + 1
        assert parameter_hash(dataclasses.replace(WORLD, **{field.name: other})) != WORLD_VERSION, field.name


def test_draws_are_those_of_the_bit_generator():
    expected = np.random.Generator(np.random.PCG64([3, 7])).random(2048)[::-1]
    draw = Draw(3, 7)
    np.testing.assert_array_equal([draw.unit() for _ in range(2048)], expected)
    assert draw.unit() != expected[0]
