import json

import numpy as np
import pytest
from PIL import Image

from depthseg.data import FolderDataset, default_palette

NAMES = [f"frame{index}" for index in range(10)]


@pytest.fixture
def root(tmp_path):
    """Ten images, the first eight with labels of two classes, the first four with depth."""
    for folder in ("images", "labels", "depth"):
        (tmp_path / folder).mkdir()
    for index, name in enumerate(NAMES):
        Image.new("RGB", (6, 4), (index, 0, 0)).save(
            tmp_path / "images" / f"{name}.{('png', 'jpg', 'JPEG')[index % 3]}"
        )
        if index < 8:
            Image.fromarray(np.array([[0, 1, 255] * 2] * 4, np.uint8)).save(tmp_path / "labels" / f"{name}.png")
        if index < 4:
            depth = np.full((4, 6), 256 * (index + 1), np.uint16)
            Image.fromarray(depth).save(tmp_path / "depth" / f"{name}.png")
    (tmp_path / "classes.txt").write_text("road\nnot road\n")
    return tmp_path


def test_all_has_every_image_with_what_there_is(root):
    data = FolderDataset(root, "all")
    assert data.names == NAMES
    assert data.label_space.classes == ("road", "not road")
    assert data.label_space.palette == default_palette(2)
    assert data[0].labels.tolist() == [[0, 1, 255] * 2] * 4
    assert data[2].depth.dtype == np.float32
    assert np.unique(data[2].depth).tolist() == [3.0]
    assert data[9].labels is None
    assert data[9].depth is None


def test_train_and_val_divide_the_labelled_images(root):
    train, val = (FolderDataset(root, split, val_fraction=0.25, seed=3).names for split in ("train", "val"))
    assert len(val) == 2
    assert sorted(train + val) == NAMES[:8]
    assert train == sorted(train)
    divisions = {tuple(FolderDataset(root, "val", val_fraction=0.25, seed=seed).names) for seed in range(10)}
    assert len(divisions) > 1


def test_depth_can_be_the_truth_asked_for(root):
    both = [FolderDataset(root, split, truth="depth", val_fraction=0.5) for split in ("train", "val")]
    assert sorted(both[0].names + both[1].names) == NAMES[:4]
    assert all(sample.depth is not None for data in both for sample in data)


def test_small_fractions_still_give_one_image_and_zero_none(root):
    assert len(FolderDataset(root, "val", val_fraction=0.001)) == 1
    assert len(FolderDataset(root, "train", val_fraction=0.999)) == 1
    assert len(FolderDataset(root, "train", val_fraction=0)) == 8
    with pytest.raises(ValueError, match="split 'val' .* is empty"):
        FolderDataset(root, "val", val_fraction=0)


def test_lists_decide_the_splits(root):
    (root / "train.txt").write_text("frame5\nframe1\n\n")
    (root / "val.txt").write_text("frame2\n")
    assert FolderDataset(root, "train").names == ["frame5", "frame1"]
    assert FolderDataset(root, "val").names == ["frame2"]
    (root / "val.txt").write_text("frame9\n")
    with pytest.raises(FileNotFoundError, match=r"frame9.png is listed in val.txt but .*labels/frame9.png is missing"):
        FolderDataset(root, "val")
    (root / "val.txt").write_text("frame2.png\n")
    with pytest.raises(FileNotFoundError, match=r"val.txt lists 'frame2.png', but images/ has no such image"):
        FolderDataset(root, "val")
    (root / "val.txt").write_text("frame2\nframe2\n")
    with pytest.raises(ValueError, match="val.txt lists frame2 more than once"):
        FolderDataset(root, "val")
    (root / "val.txt").unlink()
    with pytest.raises(FileNotFoundError, match="val.txt is missing; write both"):
        FolderDataset(root, "val")


def test_id2label_json_names_the_classes(root):
    (root / "classes.txt").unlink()
    (root / "id2label.json").write_text(json.dumps({"1": "b", "0": "a"}))
    assert FolderDataset(root, "all").label_space.id2label == {0: "a", 1: "b"}


@pytest.mark.parametrize(
    "text", ['{"0": "a", "2": "b"}', '{"1": "a"}', '{"0": 5}', '["a", "b"]', '{"zero": "a"}', "{", "{}"]
)
def test_class_names_with_gaps_or_of_another_form_are_refused(root, text):
    (root / "classes.txt").unlink()
    (root / "id2label.json").write_text(text)
    with pytest.raises(ValueError, match="id2label.json|has 0 classes"):
        FolderDataset(root, "all")


def test_an_empty_line_between_class_names_is_refused(root):
    (root / "classes.txt").write_text("road\n\nsky\n")
    with pytest.raises(ValueError, match="Line 2 of .*classes.txt is empty"):
        FolderDataset(root, "all")


def test_labels_without_class_names_are_refused(root):
    (root / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match="neither classes.txt"):
        FolderDataset(root, "all")


def test_two_sources_of_class_names_are_refused(root):
    (root / "id2label.json").write_text('{"0": "a"}')
    with pytest.raises(ValueError, match="both classes.txt and id2label.json"):
        FolderDataset(root, "all")


def test_images_alone_are_enough_for_prediction(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "images" / "a.png")
    data = FolderDataset(tmp_path, "all")
    assert data.label_space is None
    assert data[0].labels is None
    with pytest.raises(ValueError, match="split 'train' .* is empty: none of its 1 images"):
        FolderDataset(tmp_path, "train")


def test_the_palette_of_the_label_files_is_kept(root):
    image = Image.fromarray(np.array([[0, 1, 255] * 2] * 4, np.uint8), mode="P")
    image.putpalette([9, 8, 7, 6, 5, 4] + [0] * 762)
    image.save(root / "labels" / "frame0.png")
    data = FolderDataset(root, "all")
    assert data.label_space.palette == ((9, 8, 7), (6, 5, 4))
    assert data[0].labels.tolist() == [[0, 1, 255] * 2] * 4


def test_ids_outside_the_label_space_are_named(root):
    Image.fromarray(np.array([[0, 1, 2, 7, 255, 0]] * 4, np.uint8)).save(root / "labels" / "frame0.png")
    with pytest.raises(ValueError, match=r"labels/frame0.png holds .*: 2, 7. Allowed are 0 to 1, and 255"):
        FolderDataset(root, "all")[0]


@pytest.mark.parametrize("kind", ["labels", "depth"])
def test_maps_of_another_size_are_named(root, kind):
    mode = "L" if kind == "labels" else "I;16"
    Image.new(mode, (5, 4)).save(root / kind / "frame1.png")
    with pytest.raises(ValueError, match=rf"{kind}/frame1.png is 5x4 pixels, .*images/frame1.jpg is\s+6x4"):
        FolderDataset(root, "all")[1]


@pytest.mark.parametrize(
    "options", [{"val_fraction": 1.0}, {"val_fraction": -0.1}, {"truth": "label"}, {"depth_scale": 0}]
)
def test_options_out_of_range_are_named(root, options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}="):
        FolderDataset(root, "train", **options)
