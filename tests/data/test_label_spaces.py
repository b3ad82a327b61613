import pytest

from depthseg.data import LABEL_SPACES, LabelSpace, default_palette

# The colours of Pascal VOC's 21 classes as its development kit prints them.
VOC21 = [
    (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
    (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128),
    (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
]  # fmt: skip


def test_default_palette_is_that_of_voc():
    assert list(default_palette(21)) == VOC21


def test_default_palette_has_256_different_colours():
    assert len(set(default_palette(256))) == 256


def test_camvid_ids_and_colours():
    space = LABEL_SPACES["camvid11"]
    assert space.num_labels == 11
    assert [space.id2label[index] for index in (0, 3, 4, 10)] == ["Sky", "Road", "Pavement", "Bicyclist"]
    assert {space.label2id[name]: name for name in space.classes} == space.id2label
    assert space.palette[4] == (60, 40, 222), "SegNet's Pavement, not the (0, 0, 192) of the original Sidewalk"


@pytest.mark.parametrize(
    ("classes", "palette", "message"),
    [
        ((), (), "0 classes"),
        (("a", "a"), ((0, 0, 0), (1, 1, 1)), "more than once: a"),
        (("a", "b"), ((0, 0, 0),), "2 classes but 1 colours"),
        (tuple(map(str, range(256))), default_palette(256), "256 classes"),
    ],
)
def test_impossible_label_spaces_are_refused(classes, palette, message):
    with pytest.raises(ValueError, match=message):
        LabelSpace("mine", classes, palette)
