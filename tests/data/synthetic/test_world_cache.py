"""The data set of the world: cache, splits, resuming, and sentences for wrong options."""

import json
import multiprocessing
import pickle
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from depthseg.data.synthetic import VARIANTS, SyntheticWorld, dataset, render
from depthseg.data.synthetic.cache import SHARD_FRAMES, ShardCache

SIZE = (8, 24)


def test_frames_are_those_of_the_renderer(tmp_path):
    world = SyntheticWorld(tmp_path, "val", count=3, size=SIZE)
    assert len(world) == 3
    assert world.names == ["val_00000", "val_00001", "val_00002"]
    assert world.label_space.num_labels == 11
    for index, sample in enumerate(world):
        expected = render(VARIANTS["first"].seeds["val"], index, SIZE)
        assert sample.name == world.names[index]
        assert (sample.image.dtype, sample.depth.dtype, sample.labels.dtype) == (np.uint8, np.float32, np.uint8)
        for name in ("image", "depth", "labels"):
            np.testing.assert_array_equal(getattr(sample, name), expected[name])
    assert world.has_depth(2)
    assert not SyntheticWorld(tmp_path / "b", "val", count=1, size=SIZE, outputs=["labels"]).has_depth(0)
    with pytest.raises(IndexError):
        world[3]


def test_splits_share_no_frame(tmp_path):
    splits = SyntheticWorld.splits
    images = [SyntheticWorld(tmp_path, split, count=8, size=SIZE)[k].image for split in splits for k in range(8)]
    assert len({image.tobytes() for image in images}) == 24


def test_cache_is_rendered_once_and_a_longer_one_serves_a_shorter_count(tmp_path, monkeypatch):
    longer = SyntheticWorld(tmp_path, "train", count=SHARD_FRAMES + 1, size=SIZE, workers=2)
    monkeypatch.setattr(dataset, "render", lambda *args, **kwargs: pytest.fail("rendered again"))
    shorter = SyntheticWorld(tmp_path, "train", count=2, size=SIZE)
    np.testing.assert_array_equal(shorter[1].image, longer[1].image)
    assert longer[SHARD_FRAMES].name == "train_00016"


def test_cut_off_rendering_goes_on_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    calls = []

    def fails_late(seed, index, size, **options):
        calls.append(index)
        if index == SHARD_FRAMES + 3:
            raise KeyboardInterrupt
        return render(seed, index, size, **options)

    monkeypatch.setattr(dataset, "render", fails_late)
    with pytest.raises(KeyboardInterrupt):
        SyntheticWorld(tmp_path, "train", count=SHARD_FRAMES + 8, size=SIZE, workers=1)
    folder = tmp_path / "train_8x24"
    finished = ["depth_00000.npy", "image_00000.npy", "labels_00000.npy"]
    assert sorted(path.name for path in folder.glob("*.npy")) == finished
    calls.clear()
    monkeypatch.setattr(dataset, "render", lambda seed, k, size, **o: calls.append(k) or render(seed, k, size, **o))
    SyntheticWorld(tmp_path, "train", count=SHARD_FRAMES + 8, size=SIZE, workers=1)
    assert min(calls) == SHARD_FRAMES
    assert not [path for path in folder.iterdir() if path.name.startswith(".") and path.name != ".lock"]


def open_and_report(root, start, answers):
    """What each of two processes does that start at the same moment."""
    start.wait()
    world = SyntheticWorld(root, "test", count=2 * SHARD_FRAMES, size=SIZE, workers=1)
    answers.put(zlib.crc32(b"".join(sample.image.tobytes() for sample in world)))


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and file locks")
def test_two_processes_that_start_together_agree_and_share_the_work(tmp_path, monkeypatch):
    context = multiprocessing.get_context("fork")
    rendered, answers, start = context.Queue(), context.Queue(), context.Barrier(2)

    def counted(seed, index, size, **options):
        rendered.put(index)
        return render(seed, index, size, **options)

    monkeypatch.setattr(dataset, "render", counted)
    pair = [context.Process(target=open_and_report, args=(tmp_path, start, answers)) for _ in range(2)]
    for process in pair:
        process.start()
    found = [answers.get(timeout=60) for _ in pair]
    indices = sorted(rendered.get(timeout=60) for _ in range(2 * SHARD_FRAMES))
    for process in pair:
        process.join(60)
    assert [process.exitcode for process in pair] == [0, 0]
    assert found[0] == found[1]
    assert indices == list(range(2 * SHARD_FRAMES)) and rendered.empty()


def test_other_outputs_join_the_same_cache(tmp_path):
    world = SyntheticWorld(tmp_path, "val", count=2, size=SIZE, outputs=("depth", "flow_next", "pose"))
    assert world.outputs == ("image", "depth", "flow_next", "pose")
    assert world[0].labels is None and world[0].depth is not None
    np.testing.assert_array_equal(world.read("pose", 1), render(1, 1, SIZE, outputs=("pose",))["pose"])
    assert world.read("flow_next", 1).shape == (*SIZE, 2)
    with pytest.raises(ValueError, match="labels.*any of: image, depth, flow_next, pose"):
        world.read("labels", 0)


def test_a_copy_for_a_worker_carries_no_frames(tmp_path):
    world = SyntheticWorld(tmp_path, "val", count=2, size=SIZE)
    image = world[1].image
    data = pickle.dumps(world)
    assert len(data) < 2000
    np.testing.assert_array_equal(pickle.loads(data)[1].image, image)


def test_a_sample_may_be_written_to_without_changing_the_cache(tmp_path):
    world = SyntheticWorld(tmp_path, "val", count=1, size=SIZE)
    before = world[0].image.copy()
    world[0].image[:] = 0
    np.testing.assert_array_equal(world[0].image, before)


def test_frames_of_another_world_version_are_refused(tmp_path):
    SyntheticWorld(tmp_path, "val", count=1, size=SIZE)
    (tmp_path / "val_8x24" / "world.json").write_text(json.dumps({"world_version": "of old"}))
    with pytest.raises(ValueError, match=r"val_8x24 holds frames of world version of old.*another cache folder"):
        SyntheticWorld(tmp_path, "val", count=1, size=SIZE)


def test_files_with_another_number_of_frames_are_refused(tmp_path):
    world = SyntheticWorld(tmp_path, "val", count=1, size=SIZE)
    path = tmp_path / "val_8x24" / "depth_00000.npy"
    np.save(path, np.load(path)[:5])
    with pytest.raises(ValueError, match=r"depth_00000.npy holds 5 frames where files of 16.*delete"):
        world[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"split": "dev"}, "split is 'dev'.*train, val, test"),
        ({"count": 0}, "count is 0.*1 or more"),
        ({"size": (64, 4)}, r"size is \(64, 4\).*height, width"),
        ({"size": 64}, "size is 64.*height, width"),
        ({"outputs": ("image", "normals")}, "normals.*any of: image"),
    ],
)
def test_wrong_options_get_a_sentence(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        SyntheticWorld(tmp_path, **{"split": "val", "count": 1, "size": SIZE, **options})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((-1, 0, SIZE), {}, "seed is -1"),
        ((0, 1.5, SIZE), {}, "index is 1.5"),
        ((0, 0, (8, 8, 3)), {}, "size is"),
        ((0, 0, SIZE), {"view": "up"}, "view is 'up'.*left, right"),
        ((0, 0, SIZE), {"outputs": "image"}, "outputs is 'image'.*a list"),
        ((0, 0, SIZE), {"outputs": ("colour",)}, "colour.*any of"),
        ((0, 0, SIZE), {"time": float("nan")}, "time is nan"),
    ],
)
def test_wrong_arguments_of_render_get_a_sentence(arguments, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        render(*arguments, **options)


KILLED = """
import os, sys, time
from pathlib import Path
import numpy as np
from depthseg.data.synthetic.cache import ShardCache

def make(index, outputs):
    Path(sys.argv[1], f"worker_{os.getpid()}").touch()
    time.sleep(60)

ShardCache(Path(sys.argv[1]) / "cache", "1", make, count=64, outputs=["image"], workers=2)
"""


def alive(worker):
    """Whether a process still runs; one that ended may wait for somebody to ask how."""
    try:
        return Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_a_renderer_that_is_killed_leaves_neither_workers_nor_a_lock(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path])
    workers = []
    while len(workers) < 2:
        assert process.poll() is None
        time.sleep(0.05)
        workers = [int(path.name.removeprefix("worker_")) for path in tmp_path.glob("worker_*")]
    process.kill()
    process.wait()

    def make(index, outputs):
        return {"image": np.full((2, 2), index, np.uint8)}

    # Would wait for ever if a worker held the lock.
    cache = ShardCache(tmp_path / "cache", "1", make, count=64, outputs=["image"], workers=1)
    assert cache.read("image", 63)[0, 0] == 63
    deadline = time.monotonic() + 10
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "A worker is still there."
        time.sleep(0.1)
