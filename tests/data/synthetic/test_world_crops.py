"""Object-centred crops: the object is in the middle, the classes take turns, nothing but (split, index) decides."""

import numpy as np
import pytest

from depthseg.data import LABEL_SPACES, load_dataset
from depthseg.data.synthetic import SyntheticCrops, SyntheticWorld, render
from depthseg.data.synthetic import crops as crops_module
from depthseg.data.synthetic.crops import CATEGORIES, crop_view, find_object
from depthseg.data.synthetic.rendering import View, quantise
from depthseg.data.synthetic.scene import build_scene
from depthseg.data.synthetic.variants import CROP_SEEDS

CLASSES = LABEL_SPACES["camvid11"].label2id


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    return SyntheticCrops(tmp_path_factory.mktemp("crops"), "val", count=24, size=(32, 32))


def labels_of(index, size=33):
    """Class ids and bodies under the pixels of a crop, by rays of our own through its square."""
    scene, (x, y, half) = find_object(CROP_SEEDS["val"], index)
    view, pixels = crop_view(scene, (x, y, half), size)
    assert np.allclose(pixels.reshape(2, size, size)[:, size // 2, size // 2], (x, y))
    surface = view.cast(pixels)[1].surface
    labels = np.where(surface >= 0, scene.parts.label[surface], 255).reshape(size, size)
    bodies = np.where(surface >= 0, scene.parts.body[surface], -1).reshape(size, size)
    return labels, bodies


def test_the_middle_shows_the_class(crops):
    shares = []
    for index, sample in enumerate(crops):
        labels, bodies = labels_of(index)
        name = crops.categories[sample.category]
        assert labels[16, 16] == CLASSES[name], (index, name)
        same = (bodies == bodies[16, 16]) & (labels == CLASSES[name])
        shares.append(same.mean())
        rows, columns = np.nonzero(same)
        # The square is drawn around the object, which goes near one edge at least.
        assert max(np.abs(rows - 16).max(), np.abs(columns - 16).max()) >= 11, (index, name)
    assert min(shares) > 0.04 and np.mean(shares) > 0.2


def test_a_crop_is_a_window_of_the_image(crops):
    seed = CROP_SEEDS["val"]
    view, pixels = crop_view(build_scene(seed, 5), (100, 30, 4.5), 9)
    cut = quantise(view.radiance(*view.cast(pixels))).reshape(9, 9, 3)
    np.testing.assert_array_equal(cut, render(seed, 5, (64, 192))["image"][26:35, 96:105])
    scene, square = find_object(seed, 5)
    view, pixels = crop_view(scene, square, 32)
    x, y, half = square
    np.testing.assert_allclose(pixels[:, 0], [x - half + half / 32, y - half + half / 32])
    np.testing.assert_allclose(pixels[:, -1], [x + half - half / 32, y + half - half / 32])
    expected = quantise(view.radiance(*view.cast(pixels)))
    np.testing.assert_array_equal(crops[5].image.reshape(-1, 3), expected)
    assert crops[5].image.shape == (32, 32, 3) and crops[5].image.dtype == np.uint8


def test_posts_of_signs_are_no_poles(monkeypatch):
    monkeypatch.setattr(crops_module, "_LEAST_SIDE", 0)
    monkeypatch.setattr(crops_module, "_LEAST_SHARE", 0)
    signs = poles = 0
    for index in range(12):
        scene = build_scene(CROP_SEEDS["val"], index)
        surface = View(scene, (64, 192), 0, "left").cast()[1].surface.reshape(64, 192)
        for x, y, _ in crops_module._squares(scene, CLASSES["Pole"]):
            body = scene.parts.body == scene.parts.body[surface[int(y), int(x)]]
            assert set(scene.parts.label[body]) == {CLASSES["Pole"]}
            poles += 1
        for x, y, _ in crops_module._squares(scene, CLASSES["SignSymbol"]):
            assert scene.parts.label[surface[int(y), int(x)]] == CLASSES["SignSymbol"]
            signs += 1
    assert min(signs, poles) > 10


def test_classes_take_turns(crops):
    assert crops.label_space is None
    assert crops.categories == CATEGORIES
    assert [sample.category for sample in crops] == list(range(8)) * 3
    assert crops.names[3] == "crop_val_00003" == crops[3].name
    sample = crops[0]
    assert (sample.labels, sample.depth) == (None, None)
    with pytest.raises(IndexError):
        crops[24]


def test_split_and_index_decide_and_nothing_else(crops, tmp_path):
    shorter = SyntheticCrops(tmp_path, "val", count=3, size=(32, 32), workers=1)
    for index in (2, 0, 1):
        np.testing.assert_array_equal(shorter[index].image, crops[index].image)
    train = SyntheticCrops(tmp_path, "train", count=8, size=(32, 32))
    images = {sample.image.tobytes() for sample in [*crops, *train]}
    assert len(images) == 32


# PINNED: change what is chosen or drawn, and raise the number in `_VERSION`.
@pytest.mark.parametrize(
    ("index", "square", "brightness"), [(0, (51, 30, 10.925), 96.278), (13, (20, 35, 16.675), 120.602)]
)
def test_the_crops_are_pinned(index, square, brightness):
    scene, found = find_object(6, index)
    np.testing.assert_allclose(found, square)
    view, pixels = crop_view(scene, found, 24)
    assert quantise(view.radiance(*view.cast(pixels))).mean() == pytest.approx(brightness, abs=0.02)


def test_crops_of_another_release_are_refused(tmp_path):
    SyntheticCrops(tmp_path, "val", count=1, size=(8, 8))
    (tmp_path / "crops_val_8x8" / "world.json").write_text('{"world_version": "of old"}')
    with pytest.raises(ValueError, match="crops_val_8x8 holds frames of world version of old"):
        SyntheticCrops(tmp_path, "val", count=1, size=(8, 8))


def test_they_are_in_the_table(tmp_path):
    found = load_dataset("synthetic_crops", tmp_path, "test", count=1, size=(8, 8))
    assert found.names == ["crop_test_00000"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"split": "dev"}, "split is 'dev'.*train, val, test"),
        ({"count": 0}, "count is 0.*1 or more"),
        ({"size": (4, 4)}, "8 or more"),
        ({"size": (64, 32)}, "crops are square"),
    ],
)
def test_wrong_options_get_a_sentence(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        SyntheticCrops(tmp_path, **{"split": "val", "count": 1, "size": (16, 16), **options})
    assert not list(tmp_path.iterdir())


def test_crops_and_the_world_share_a_root(tmp_path):
    SyntheticCrops(tmp_path, "val", count=1, size=(8, 8))
    SyntheticWorld(tmp_path, "val", count=1, size=(8, 8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops_val_8x8", "val_8x8"]
