import numpy as np
import pytest

from depthseg.data.label_encoding import own_encoding


def test_values_keep_their_meaning_unless_the_map_says_another():
    values = np.array([[0, 1, 2], [11, 255, -1]])
    encoding = own_encoding(3, {11: "ignore", 255: 1, "-1": 255})
    assert encoding.decode("labels.png", values).tolist() == [[0, 1, 2], [255, 1, 255]]
    assert own_encoding(2).decode("labels.png", np.array([[0, 1, 255]])).tolist() == [[0, 1, 255]]


def test_a_value_that_nothing_explains_is_named():
    with pytest.raises(ValueError, match=r"labels.png holds .*: 3, 7. Allowed are 0 to 2, 11 and 255\."):
        own_encoding(3, {11: "ignore"}).decode("labels.png", np.array([[3, 11, 7]]))


@pytest.mark.parametrize("entry", [{11: "ignored"}, {"x": 0}, {1: 3}, {1.5: 0}, {1: -1}, {1: True}])
def test_an_entry_that_is_none_is_refused(entry):
    key, value = next(iter(entry.items()))
    with pytest.raises(ValueError, match=rf"label_map has the entry {key}: {value}\..* 0 to 2, or `ignore`"):
        own_encoding(3, entry)
