import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from depthseg.data.images import check_ids
from depthseg.data.label_encoding import LabelEncoding, distinct, own_encoding

RANGES = {"uint8": (0, 255), "uint16": (0, 65535), "int16": (-300, 300), "int64": (-300, 70000), "bool": (0, 1)}
MAPS = st.sampled_from(sorted(RANGES)).flatmap(
    lambda kind: arrays(
        kind,
        array_shapes(min_dims=2, max_dims=2),
        elements=st.booleans() if kind == "bool" else st.integers(*RANGES[kind]),
    )
)


@given(MAPS)
def test_the_values_of_a_map_are_those_of_its_pixels(values):
    assert distinct(values) == sorted({int(value) for row in values for value in row})


@given(MAPS, st.dictionaries(st.integers(-300, 70000), st.integers(0, 255)))
def test_each_pixel_is_translated_by_itself(values, class_ids):
    pixels = [[int(value) for value in row] for row in values]
    wrong = sorted({value for row in pixels for value in row} - class_ids.keys())
    class_ids |= dict.fromkeys(wrong[1:], 7)
    if wrong:
        with pytest.raises(ValueError, match=rf"a.png holds .*: {wrong[0]}\. Allowed are"):
            LabelEncoding(class_ids).decode("a.png", values)
        class_ids[wrong[0]] = 9
    assert LabelEncoding(class_ids).decode("a.png", values).tolist() == [
        [class_ids[value] for value in row] for row in pixels
    ]


@given(MAPS, st.integers(1, 255), st.sampled_from([255, None]))
def test_ids_are_checked_pixel_by_pixel(values, count, ignored):
    wrong = sorted({int(value) for value in values.ravel() if not 0 <= value < count and value != ignored})
    if not wrong:
        check_ids("a.png", values, count, ignored)
        return
    shown = ", ".join(map(str, wrong[:8])) + ", ..." * (len(wrong) > 8)
    with pytest.raises(ValueError, match=rf"outside the label space: {shown}\. Allowed are 0 to {count - 1}"):
        check_ids("a.png", values, count, ignored)


def test_values_keep_their_meaning_unless_the_map_says_another():
    values = np.array([[0, 1, 2], [11, 255, -1]])
    encoding = own_encoding(("a", "b", "c"), {11: "ignore", 255: 1, "-1": 255})
    assert encoding.decode("labels.png", values).tolist() == [[0, 1, 2], [255, 1, 255]]
    assert own_encoding(("a", "b")).decode("labels.png", np.array([[0, 1, 255]])).tolist() == [[0, 1, 255]]


def test_names_and_ranges_are_understood_beside_ids():
    encoding = own_encoding(("road", "sky"), {0: "ignore", "1-2": "0-1", -1: "sky"})
    assert encoding.decode("a.png", np.array([[0, 1, 2, -1, 255]])).tolist() == [[255, 0, 1, 1, 255]]


def test_a_value_that_nothing_explains_is_named():
    with pytest.raises(ValueError, match=r"labels.png holds .*: 3, 7. Allowed are 0 to 2, 11 and 255\."):
        own_encoding(("a", "b", "c"), {11: "ignore"}).decode("labels.png", np.array([[3, 11, 7]]))


@pytest.mark.parametrize("entry", [{11: "ignored"}, {"x": 0}, {1: 3}, {1.5: 0}, {1: -1}, {1: True}])
def test_an_entry_that_is_none_is_refused(entry):
    key, value = next(iter(entry.items()))
    said = "'x' is no value of a label map" if key == "x" else f"{key} -> {value} is no class"
    if key == 1.5:
        said = "'1.5' is no value"
    with pytest.raises(ValueError, match=rf"label_map: {said}.*label_map={{11: ignore"):
        own_encoding(("a", "b", "c"), entry)
