"""What counts as the same prediction on the other side of a journey."""

from pathlib import Path

import numpy as np


def assert_same_prediction(found: Path, expected: Path) -> None:
    """Two saved predictions are equal up to the order of summation.

    A loaded weight lies elsewhere in memory than the one that was saved, and kernels choose their order of summation
    by alignment: the last bit of a float may differ, and does now and then. Anything else that goes wrong on the way
    (a weight, a buffer, a precision, a line of code) is orders of magnitude larger.
    """
    expected_values = np.load(expected)
    assert expected_values.std() > 0, f"{expected.name} says nothing: it is the same everywhere."
    np.testing.assert_allclose(np.load(found), expected_values, rtol=1e-5, atol=1e-6, err_msg=expected.name)
