"""Files that are decoded once: the same samples with and without the cache, and never out of date."""

import logging
import multiprocessing
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from data.video_files import noisy_frames, write_video
from PIL import Image

from depthseg.data import DATASETS, load_dataset
from depthseg.data import images as readers
from depthseg.data.decoded import keeping
from depthseg.data.decoding import VideoFrames
from depthseg.data.images import read_colours, read_depth, read_disparity, read_image, read_labels
from depthseg.data.miniatures import MINIATURES, write_miniature
from depthseg.data.video import VideoSequences
from depthseg.engine.config import load_config
from depthseg.engine.decoded_cache import DecodedCache, decoded_cache
from depthseg.engine.options import DataOptions
from depthseg.engine.run import train
from depthseg.engine.tensor_store import GIB, TensorStore

OPTIONS = (
    *("data.size=[32,32]", "optim.batch_size=2", "schedule.steps=3", "schedule.warmup_steps=0", "run.cpu=true"),
    *("model.encoder={model_type: depthseg_resnet, depth: 18, width_factor: 0.125}", "run.tensorboard=false"),
    *("run.report=false", "data.name=folder", "data.options={val_fraction: 0.25, split_by: random}"),
)


@pytest.fixture
def cache(tmp_path):
    return DecodedCache(TensorStore(tmp_path / "cache", GIB))


@pytest.fixture
def folder(tmp_path):
    """Eight images with labels and depth."""
    root, rng = tmp_path / "folder", np.random.default_rng(0)
    for name in ("images", "labels", "depth"):
        (root / name).mkdir(parents=True)
    (root / "classes.txt").write_text("road\nsky\n")
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray(rng.integers(0, 2, (40, 48), np.uint8)).save(root / "labels" / f"{number}.png")
        Image.fromarray(rng.integers(0, 9999, (40, 48)).astype(np.uint16)).save(root / "depth" / f"{number}.png")
    return root


@pytest.fixture
def decoded(monkeypatch):
    """The files that Pillow opened, one entry each time."""
    opened, load = [], readers._load

    def counted(path, *args, **kwargs):
        opened.append(str(path))
        return load(path, *args, **kwargs)

    monkeypatch.setattr(readers, "_load", counted)
    return opened


def arrays_of(sample):
    values = vars(sample) | {f"frame {offset}": frame for offset, frame in sample.frames.items()}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def run_config(tmp_path, folder, name, *options):
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    return load_config(None, [*OPTIONS, f"data.root={folder}", f"run.output_dir={tmp_path / name}", cache, *options])


def test_samples_are_those_of_the_files_and_each_file_is_decoded_once(cache, folder, decoded):
    samples = load_dataset("folder", folder, "all")
    expected = [arrays_of(sample) for sample in samples]
    decoded.clear()
    with keeping(cache):
        for _ in range(3):
            for sample, arrays in zip(samples, expected, strict=True):
                found = arrays_of(sample)
                assert found.keys() == arrays.keys() == {"image", "labels", "depth"}
                for name, values in arrays.items():
                    assert found[name].dtype == values.dtype and np.array_equal(found[name], values)
    assert len(decoded) == len(set(decoded)) == 3 * len(samples)


def test_frames_of_a_video_file_are_decoded_once(cache, tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mkv", noisy_frames(6))
    expected = [arrays_of(sample) for sample in VideoSequences(path)]
    with keeping(cache):
        for sample in VideoSequences(path):
            assert sample.frames.keys() == {-1, 1}
        wanted, up_to = [], VideoFrames.up_to
        monkeypatch.setattr(VideoFrames, "up_to", lambda self, number: wanted.append(number) or up_to(self, number))
        found = [arrays_of(sample) for sample in VideoSequences(path)]
    assert set(wanted) <= {0}  # the size of the clip
    for arrays, kept in zip(expected, found, strict=True):
        for part, values in arrays.items():
            np.testing.assert_array_equal(kept[part], values)


@pytest.mark.parametrize("name", MINIATURES)
def test_every_data_set_reads_the_same_through_it(cache, tmp_path, name):
    root = write_miniature(name, tmp_path / "data", count=1)
    samples = load_dataset(name, root, DATASETS[name].splits[0])
    expected = arrays_of(samples[0])
    with keeping(cache):
        for _ in range(2):
            found = arrays_of(samples[0])
            assert found.keys() == expected.keys()
            for part, values in expected.items():
                assert found[part].dtype == values.dtype
                np.testing.assert_array_equal(found[part], values)


@pytest.mark.parametrize(
    ("read", "values", "name"),
    [
        (read_image, np.arange(64 * 3, dtype=np.uint8).reshape(8, 8, 3), "a.png"),
        (read_image, np.arange(0, 64000, 1000, dtype=np.uint16).reshape(8, 8), "a.png"),
        (read_image, np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8), "a.tif"),
        (read_labels, np.arange(64, dtype=np.uint8).reshape(8, 8), "a.png"),
        (read_labels, np.arange(300, 364, dtype=np.uint16).reshape(8, 8), "a.png"),
        (read_labels, np.eye(8, dtype=bool), "a.png"),
        (read_colours, np.arange(64 * 3, dtype=np.uint8).reshape(8, 8, 3), "a.png"),
        (read_depth, np.arange(64, dtype=np.uint16).reshape(8, 8), "a.png"),
        (read_disparity, np.linspace(0, 9, 64, dtype=np.float32).reshape(8, 8), "a.tif"),
    ],
)
def test_what_is_kept_is_what_was_read_bit_for_bit(cache, tmp_path, read, values, name):
    Image.fromarray(values).save(tmp_path / name)
    expected = read(tmp_path / name)
    with keeping(cache):
        for _ in range(2):
            found = read(tmp_path / name)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert found.tobytes() == expected.tobytes()


def test_options_of_readers_are_told_apart(cache, tmp_path):
    path = tmp_path / "depth.png"
    Image.fromarray(np.full((4, 4), 512, np.uint16)).save(path)
    with keeping(cache):
        found = [read_depth(path).max(), read_depth(path, 512.0).max(), read_depth(path, scale=256.0).max()]
    assert found == [2, 1, 2]


def test_the_orientation_is_kept(cache, tmp_path):
    path, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(path, exif=exif)
    with keeping(cache):
        for _ in range(2):
            assert [readers.read_oriented_image(path, upright)[0].shape for upright in (True, False)] == [
                (8, 4, 3),
                (4, 8, 3),
            ]
            assert readers.read_oriented_image(path)[1] == 6


def test_a_file_that_changed_is_decoded_again(cache, tmp_path):
    path = tmp_path / "a.png"
    with keeping(cache):
        Image.new("RGB", (4, 4), (1, 1, 1)).save(path, compress_level=0)
        assert read_image(path).max() == 1
        size, before = path.stat().st_size, path.stat().st_mtime_ns
        Image.new("RGB", (4, 4), (2, 2, 2)).save(path, compress_level=0)
        assert path.stat().st_size == size
        os.utime(path, ns=(before, before + 1))
        assert read_image(path).max() == 2
        path.unlink()
        with pytest.raises(FileNotFoundError, match=r"There is no file .*a\.png"):
            read_image(path)


def test_a_file_with_the_size_and_time_of_the_old_one_is_decoded_again(cache, tmp_path):
    """As `cp -p`, `rsync -t` and archives leave it."""
    path = tmp_path / "a.png"
    with keeping(cache):
        for level in (1, 2):
            Image.new("RGB", (4, 4), (level,) * 3).save(path, compress_level=0)
            os.utime(path, ns=(10**18, 10**18))
            assert read_image(path).max() == level
            time.sleep(0.02)  # more than what a clock of a file system ticks


def test_a_link_is_the_file_that_it_leads_to(cache, tmp_path, monkeypatch, decoded):
    same, stat = os.stat(tmp_path), os.stat
    for level in (1, 2):
        Image.new("RGB", (4, 4), (level,) * 3).save(tmp_path / f"{level}.png", compress_level=0)
    link = tmp_path / "link.png"
    with keeping(cache), monkeypatch.context() as patched:
        # As if both were written at one moment.
        patched.setattr(os, "stat", lambda path, **options: same if Path(path).suffix == ".png" else stat(path))
        for level in (1, 2, 1):
            link.unlink(missing_ok=True)
            link.symlink_to(tmp_path / f"{level}.png")
            assert read_image(link).max() == level
            assert read_image(tmp_path / f"{level}.png").max() == level
    assert len(decoded) == 2


def test_what_is_read_while_a_file_is_replaced_is_not_kept_for_the_old_one(cache, tmp_path, monkeypatch):
    path, aside = tmp_path / "a.png", tmp_path / "b.png"
    for place, level in ((path, 1), (aside, 2)):
        Image.new("RGB", (4, 4), (level,) * 3).save(place, compress_level=0)
    link, decode = tmp_path / "link.png", readers._decode_image
    link.symlink_to(path)

    def late(*args):
        link.unlink()
        link.symlink_to(aside)
        return decode(*args)

    with keeping(cache):
        with monkeypatch.context() as patched:
            patched.setattr(readers, "_decode_image", late)
            assert read_image(link).max() == 2
        link.unlink()
        link.symlink_to(path)
        assert read_image(link).max() == read_image(path).max() == 1


@pytest.mark.parametrize(
    ("read", "name", "values"),
    [
        (read_depth, "a.npy", np.linspace(0, 9, 12, dtype=">f4").reshape(3, 4)),
        (read_labels, "a.tif", np.arange(300, 312, dtype=">u2").reshape(3, 4)),
        (read_image, "a.tif", np.arange(300, 312, dtype=">u2").reshape(3, 4)),
        (read_depth, "a.tif", np.arange(300, 312, dtype=">u2").reshape(3, 4)),
    ],
)
def test_files_of_the_other_byte_order_are_kept(cache, tmp_path, read, name, values):
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, values)
    else:
        Image.frombytes("I;16B", values.shape[::-1], values.tobytes()).save(path)
    expected = read(path)
    with keeping(cache):
        for _ in range(2):
            np.testing.assert_array_equal(read(path), expected)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1


def test_a_damaged_file_in_a_folder_of_another_user_ends_no_run(cache, tmp_path, monkeypatch, caplog):
    Image.new("RGB", (4, 4), (7, 7, 7)).save(tmp_path / "a.png")
    with keeping(cache):
        read_image(tmp_path / "a.png")
    (kept,) = (tmp_path / "cache").rglob("*.safetensors")
    kept.write_bytes(b"")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path / "cache"))

    for name in ("unlink", "replace", "open"):
        monkeypatch.setattr(os, name, refuse)
    with keeping(DecodedCache(TensorStore(tmp_path / "cache", GIB))):
        assert read_image(tmp_path / "a.png").max() == 7
    assert "may not write to" in caplog.text


def test_an_array_of_the_cache_cannot_be_written_to(cache, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with keeping(cache):
        read_image(tmp_path / "a.png")
        with pytest.raises(ValueError, match="read-only"):
            read_image(tmp_path / "a.png")[0] = 1


@pytest.mark.parametrize("content", [b"", b"\0" * 400], ids=["empty", "zeros"])
def test_a_damaged_file_of_the_cache_is_made_again(cache, tmp_path, content):
    Image.new("RGB", (4, 4), (7, 7, 7)).save(tmp_path / "a.png")
    with keeping(cache):
        read_image(tmp_path / "a.png")
    (kept,) = (tmp_path / "cache").rglob("*.safetensors")
    whole = kept.read_bytes()
    kept.write_bytes(content)
    with keeping(DecodedCache(TensorStore(tmp_path / "cache", GIB))):
        assert read_image(tmp_path / "a.png").max() == 7
    assert kept.read_bytes() == whole


def read_all(folder, root, barrier):
    with keeping(DecodedCache(TensorStore(folder, GIB))):
        barrier.wait()
        return [int(sample.image.sum()) for sample in load_dataset("folder", root, "all")]


def _put(results, *args):
    results.put(read_all(*args))


def test_two_processes_build_it_at_once(tmp_path, folder):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    both = [context.Process(target=_put, args=(results, tmp_path / "cache", folder, barrier)) for _ in range(2)]
    for process in both:
        process.start()
    found = [results.get(timeout=120) for _ in both]
    for process in both:
        process.join()
    assert found[0] == found[1] == [int(sample.image.sum()) for sample in load_dataset("folder", folder, "all")]
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    kept = [path for path in files if path.suffix == ".safetensors"]
    assert len(kept) == 3 * 8 and not any(path.name.startswith(".") for path in kept)
    others = {path.relative_to(tmp_path / "cache").as_posix() for path in set(files) - set(kept)}
    assert others == {"used", "locks/count"}  # what two processes know of each other


def test_a_run_with_the_cache_is_that_without_it(tmp_path, folder, decoded, caplog):
    caplog.set_level(logging.INFO)
    weights = {}
    for name, option in (("off", "off"), ("first", "auto"), ("second", "auto")):
        decoded.clear()
        train(run_config(tmp_path, folder, name, f"data.cache={option}"))
        weights[name] = (tmp_path / name / "model" / "model.safetensors").read_bytes()
        if name == "off":
            assert not (tmp_path / "cache").exists()
    assert weights["off"] == weights["first"] == weights["second"]
    assert not [path for path in decoded if "images" in path]
    assert caplog.text.count("are kept in") == 1 and "for 8 samples; data.cache=off does without" in caplog.text


def test_workers_keep_as_their_parent_does(tmp_path, folder):
    train(run_config(tmp_path, folder, "run", "data.num_workers=1", "data.cache=auto"))
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) > 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["data.cache_limit=0.00005"], r"need about .* and data\.cache_limit is .* or set data\.cache=off"),
        (["data.cache_dir=/proc/nowhere"], "decoded whenever they are read"),
    ],
    ids=["no room", "no folder"],
)
def test_where_nothing_can_be_kept_the_run_reads_the_files_and_says_so_once(
    tmp_path, folder, caplog, options, sentence
):
    result = train(run_config(tmp_path, folder, "run", *options))
    assert result.model_dir.is_dir()
    (warning,) = [record.getMessage() for record in caplog.records if "decoded whenever" in record.getMessage()]
    assert re.search(sentence, warning)


def test_a_disk_that_fills_up_ends_no_run(cache, folder, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorStore, "write", full)
    with keeping(cache):
        assert len([sample.image for sample in load_dataset("folder", folder, "all")]) == 8
    assert caplog.text.count("is full, so a decoded file could not be written") == 1


def test_a_folder_with_what_a_run_needs_is_read_even_when_it_is_full(tmp_path, folder, decoded):
    train(run_config(tmp_path, folder, "first"))
    decoded.clear()
    train(run_config(tmp_path, folder, "second", "data.cache_limit=0.00005"))
    assert not [path for path in decoded if "images" in path]


def test_the_options_of_a_run_decide(tmp_path):
    for options, is_kept in ((DataOptions(cache_dir=str(tmp_path)), True), (DataOptions(cache="off"), False)):
        with decoded_cache(options) as cache:
            assert (cache is not None) == is_kept
    with pytest.raises(ValueError, match="data.cache must be one of auto, off"):
        load_config(None, ["data.cache=on"])
