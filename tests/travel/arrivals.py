"""What counts as the same prediction on the other side of a journey."""

from pathlib import Path

import numpy as np
from rounding import assert_same_up_to_rounding


def assert_same_prediction(found: Path, expected: Path) -> None:
    """Two saved predictions are equal up to the order of summation: a loaded weight is elsewhere in memory."""
    expected_values = np.load(expected)
    assert expected_values.std() > 0, f"{expected.name} says nothing: it is the same everywhere."
    assert_same_up_to_rounding(np.load(found), expected_values, expected.name)
