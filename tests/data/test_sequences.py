"""Frames of a sequence are divided in blocks, single photographs at random."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthseg.data import FolderDataset
from depthseg.data.check import check_dataset
from depthseg.data.sequences import divide_by_sequence, looks_like_sequence
from depthseg.data.subsets import shuffled_names

REAL = Path(os.environ.get("DEPTHSEG_DATA", "no data"))
COUNT = 30


def save_images(folder, images, name="frame_{:04}"):
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{name.format(index)}.png")
    return tuple(sorted(folder.iterdir()))


def landscape(width):
    """Grey values that change over about 20 pixels, so that a shift by 2 is small and one by 40 is not."""
    noise = np.random.default_rng(0).integers(0, 256, (3, width // 20 + 2)).astype(np.float32)
    smooth = Image.fromarray(noise).resize((width, 48), Image.Resampling.BILINEAR)
    return np.asarray(smooth).astype(np.uint8)


def sequence(count=COUNT, step=3):
    strip = landscape(64 + step * count)
    return [strip[:, step * index : step * index + 64] for index in range(count)]


def photographs(count=COUNT):
    return [np.random.default_rng(seed).integers(0, 256, (48, 64), dtype=np.uint8) for seed in range(count)]


@pytest.fixture
def root(tmp_path):
    """A sequence of 30 frames with labels."""
    (tmp_path / "labels").mkdir()
    for path in save_images(tmp_path / "images", sequence()):
        Image.new("L", (64, 48)).save(tmp_path / "labels" / path.name)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    return tmp_path


def test_sequences_and_photographs_are_told_apart(tmp_path):
    assert looks_like_sequence(save_images(tmp_path / "sequence", sequence()))
    assert not looks_like_sequence(
        save_images(tmp_path / "shuffled", [sequence()[7 * n % COUNT] for n in range(COUNT)])
    )
    assert not looks_like_sequence(save_images(tmp_path / "photographs", photographs()))
    assert not looks_like_sequence(save_images(tmp_path / "equal", [sequence()[0]] * COUNT))


def test_names_without_numbers_and_few_images_are_no_sequence(tmp_path):
    letters = [chr(ord("a") + index) for index in range(26)]
    for letter, image in zip(letters, sequence(), strict=False):
        (tmp_path / "names").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "names" / f"{letter}.png")
    assert not looks_like_sequence(tuple(sorted((tmp_path / "names").iterdir())))
    assert not looks_like_sequence(save_images(tmp_path / "few", sequence(9)))
    assert looks_like_sequence(save_images(tmp_path / "enough", sequence(12)))


def test_at_most_forty_images_are_decoded(tmp_path, monkeypatch):
    import depthseg.data.sequences as module

    paths = save_images(tmp_path / "long", sequence(200))
    read, asked = module.read_thumbnail, []
    monkeypatch.setattr(module, "read_thumbnail", lambda path, size: asked.append(path) or read(path, size))
    assert looks_like_sequence(paths)
    assert len(asked) <= 40


def test_damaged_images_do_not_count(tmp_path):
    paths = save_images(tmp_path / "sequence", sequence())
    paths[0].write_bytes(b"")
    paths[10].write_bytes(b"")
    assert looks_like_sequence(paths)
    for path in paths:
        path.write_bytes(b"")
    assert not looks_like_sequence((*paths, paths[0]))


def test_the_end_of_a_sequence_is_val_and_that_is_logged_once(root, caplog):
    train, val = (FolderDataset(root, split).names for split in ("train", "val"))
    assert train == [f"frame_{index:04}" for index in range(24)]
    assert val == [f"frame_{index:04}" for index in range(24, 30)]
    assert [FolderDataset(root, "val", seed=seed).names for seed in (1, 2)] == [val, val]
    said = [message for message in caplog.messages if "frames of one sequence" in message]
    assert len(said) == 1
    assert "val is its end: the last 6 of 30 images in the order of their names, from frame_0024 on" in said[0]


def test_the_option_decides(root, caplog):
    names = [f"frame_{index:04}" for index in range(COUNT)]
    for seed in (0, 5):
        val = FolderDataset(root, "val", split_by="random", seed=seed).names
        assert val == sorted(shuffled_names(names, seed)[:6])
    assert not caplog.messages
    with pytest.raises(ValueError, match="split_by='sequence' is not known; choose one of auto, random, blocks"):
        FolderDataset(root, "val", split_by="sequence")


def test_blocks_follow_the_natural_order_of_names(tmp_path):
    (tmp_path / "labels").mkdir()
    for path in save_images(tmp_path / "images", photographs(12), "{}"):
        Image.new("L", (64, 48)).save(tmp_path / "labels" / path.name)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert FolderDataset(tmp_path, "val", split_by="blocks").names == ["10", "11"]
    assert FolderDataset(tmp_path, "val").names == sorted(shuffled_names(map(str, range(12)), 0)[:2])
    assert len(FolderDataset(tmp_path, "train", split_by="blocks", val_fraction=0)) == 12


def test_the_check_divides_in_the_same_way_and_says_so(root):
    report = check_dataset("folder", root)
    assert (report.splits["train"].images, report.splits["val"].images) == (24, 6)
    assert sum("look like frames of one sequence, so val is its end" in note for note in report.notes) == 1
    assert not any("one sequence" in note for note in check_dataset("folder", root, split_by="random").notes)


def test_lists_that_tear_neighbours_apart_are_noted(root):
    names = [f"frame_{index:04}" for index in range(COUNT)]
    (root / "val.txt").write_text("\n".join(names[::5]))
    (root / "train.txt").write_text("\n".join(name for name in names if name not in names[::5]))
    notes = check_dataset("folder", root).notes
    assert sum("6 of 6 images of val are beside one of train: scores on val are too" in note for note in notes) == 1
    (root / "train.txt").write_text("\n".join(names[:24]))
    (root / "val.txt").write_text("\n".join(names[24:]))
    assert not any("beside one of train" in note for note in check_dataset("folder", root).notes)


@pytest.mark.skipif(not (REAL / "kitti_drive").is_dir(), reason="DEPTHSEG_DATA has no kitti_drive/")
def test_a_real_drive_is_a_sequence():
    train, val = (FolderDataset(REAL / "kitti_drive", split, truth="depth").names for split in ("train", "val"))
    assert (len(train), len(val), val[0]) == (62, 16, "0000000062")


@pytest.mark.skipif(not (REAL / "camvid").is_dir(), reason="DEPTHSEG_DATA has no camvid/")
def test_real_street_sequences_are_found_and_their_shuffled_frames_are_not(tmp_path):
    frames = sorted((REAL / "camvid" / "val").iterdir())
    assert looks_like_sequence(tuple(frames))
    for place, index in enumerate(np.random.default_rng(0).permutation(len(frames))):
        (tmp_path / f"{place:04}.png").symlink_to(frames[index])
    assert not looks_like_sequence(tuple(sorted(tmp_path.iterdir())))


def test_whole_sequences_are_held_out_where_names_tell_several(tmp_path):
    order = [f"{name}_{number:02}" for name, count in (("a", 20), ("b", 6), ("c", 4)) for number in range(count)]
    images = {name: tmp_path / f"{name}.png" for name in order}
    # c alone is 4 images, b and c 10: 10 is nearer to 9, 4 to 6.
    for count, held_out in ((9, "bc"), (6, "c"), (1, "c"), (29, "bc")):
        train, val = divide_by_sequence(images, order, count)
        assert val == [name for name in order if name[0] in held_out] and train == [n for n in order if n not in val]
    singles = {name: tmp_path / f"{name}.png" for name in ("cat", "dog", "house", "tree")}
    assert divide_by_sequence(singles, list(singles), 1) is None


def test_a_single_sequence_is_divided_with_a_gap(root):
    train, val = (FolderDataset(root, split, split_by="sequences").names for split in ("train", "val"))
    assert val == [f"frame_{number:04}" for number in range(24, 30)]
    assert train == [f"frame_{number:04}" for number in range(23)]


def test_photographs_of_one_name_are_divided_at_random(tmp_path):
    (tmp_path / "labels").mkdir()
    for path in save_images(tmp_path / "images", photographs(12)):
        Image.new("L", (64, 48)).save(tmp_path / "labels" / path.name)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    found = [FolderDataset(tmp_path, "val", split_by=division).names for division in ("sequences", "random")]
    assert found[0] == found[1]
