"""No test passes or fails by chance: each begins with the same random states."""

import random

import numpy as np
import pytest
import torch


@pytest.mark.parametrize("repetition", range(2))
def test_numbers_drawn_in_a_test_are_those_of_seed_0(repetition):
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))
    assert np.random.rand() == np.random.RandomState(0).rand()
    assert random.random() == random.Random(0).random()
