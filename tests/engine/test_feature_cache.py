"""Features of a frozen encoder from files: the numbers of a run without them, no second encoding, safe files."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from engine import tiny_run
from rounding import SHARE
from safetensors.torch import load_file

from depthseg.data.transforms import TrainTransform
from depthseg.engine import atomic, feature_cache, tensor_store
from depthseg.engine.batches import BatchContent, Collate, StreamDataset
from depthseg.engine.build import build_model
from depthseg.engine.config import load_config
from depthseg.engine.feature_cache import FeatureCache, cached_stream
from depthseg.engine.run import train
from depthseg.engine.tensor_store import TensorStore, default_folder
from depthseg.models import DepthSegForSemanticSegmentation
from depthseg.models.encoders_base_depthseg import DepthSegEncoder

REPOSITORY = Path(__file__).parents[2]
RESNET = ("model.freeze_encoder=true", "optim.name=sgd", "optim.lr=0.05", "run.eval_every=3")
DINOV2 = (
    *RESNET,
    "model.encoder=null",
    "model.encoder={model_type: dinov2, hidden_size: 16, num_hidden_layers: 4, num_attention_heads: 2, mlp_ratio: 2, "
    "image_size: 28, patch_size: 14, out_indices: [1, 2, 3, 4]}",
)
LINEAR = (*DINOV2, "model.head_type=linear")
DPT = (
    *DINOV2,
    "model.head_type=dpt",
    "model.head_config={neck_hidden_sizes: [8, 8, 8, 8], fusion_hidden_size: 8, head_hidden_size: 8, "
    "readout_type: project}",
)
COPIES = ("data.crop_scale=[0.5,1]", "data.colour_jitter=0.2", "data.augmented_copies=3")


def cached(folder: Path, *options: str) -> tuple[str, ...]:
    return (*options, "data.cache_features=true", f"data.cache_dir={folder}")


def lines_of(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def files_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def assert_same_run(ours: Path, theirs: Path, step: int = 6) -> None:
    for one, other in zip(lines_of(ours), lines_of(theirs), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=SHARE)
        # A pixel may change sides where two classes are equally likely.
        assert one.get("pixel_accuracy", 0) == pytest.approx(other.get("pixel_accuracy", 0), abs=5e-4)
    weights = [load_file(run / "checkpoints" / f"step_{step}" / "model.safetensors") for run in (ours, theirs)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-4, atol=1e-6)


@pytest.fixture
def any_precision():
    """Accelerate keeps the precision of the first run of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def encoded(monkeypatch):
    """How many images each call of an encoder got."""
    counts: list[int] = []
    forward = DepthSegEncoder.forward

    def spy(encoder: DepthSegEncoder, pixel_values: torch.Tensor):
        counts.append(len(pixel_values))
        return forward(encoder, pixel_values)

    monkeypatch.setattr(DepthSegEncoder, "forward", spy)
    return counts


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((*RESNET, "data.hflip=0"), id="plain"),
        pytest.param((*RESNET, *COPIES), id="copies"),
        pytest.param(DPT, id="dpt"),
        pytest.param((*RESNET, "task=depth"), id="depth"),
        pytest.param(RESNET, id="mirrored", marks=pytest.mark.heavy),
        pytest.param(LINEAR, id="linear", marks=pytest.mark.heavy),
        pytest.param(
            (*LINEAR, "model.head_config={num_layers: 2}", "data.random_crop=true", "data.augmented_copies=2",
             "data.size=[30,40]", "data.max_class_share=0.6"), id="patches", marks=pytest.mark.heavy,
        ),
        pytest.param(
            (*DPT, "model.keep_depth=true", "model.depth_weight=0.5"), id="joint", marks=pytest.mark.heavy
        ),
        pytest.param(
            (*LINEAR, "data.label_stride=14", "optim.accumulation_steps=2"), id="stride", marks=pytest.mark.heavy
        ),
    ],
)  # fmt: skip
def test_a_run_has_the_numbers_of_one_without_the_cache(tiny, tmp_path, options):
    tiny.tiny_train(tmp_path / "plain", *options)
    tiny.tiny_train(tmp_path / "cached", *cached(tmp_path / "cache", *options))
    assert_same_run(tmp_path / "cached", tmp_path / "plain")


def test_a_run_in_bfloat16_has_its_numbers_and_files_of_its_own(tiny, tmp_path, any_precision, encoded):
    half = (*RESNET, "run.precision=bf16", "schedule.steps=3")
    tiny.tiny_train(tmp_path / "plain", *half)
    tiny.tiny_train(tmp_path / "cached", *cached(tmp_path / "cache", *half))
    assert_same_run(tmp_path / "cached", tmp_path / "plain", step=3)
    AcceleratorState._reset_state(reset_partial_state=True)
    encoded.clear()
    tiny.tiny_train(tmp_path / "float", *cached(tmp_path / "cache", *RESNET))
    assert sum(encoded) == 21  # evaluation is in float32 in both


def test_every_image_is_encoded_once_for_all_runs(tiny, tmp_path, encoded):
    options = cached(tmp_path / "cache", *RESNET, "run.report=false")
    tiny.tiny_train(tmp_path / "first", *options)
    # One image of each set beforehand, to know the size; then ten, each also mirrored, and three to evaluate.
    assert sum(encoded) == 2 + 20 + 3
    before = files_of(tmp_path / "cache")
    encoded.clear()
    tiny.tiny_train(tmp_path / "second", *options, "run.seed=1", "optim.lr=0.01", "model.head_type=linear")
    # Random weights of the encoder depend on the seed; the same ones are found again.
    seeds_differ = sum(encoded)
    encoded.clear()
    tiny.tiny_train(tmp_path / "third", *options, "optim.lr=0.01", "schedule.steps=8")
    tiny.tiny_train(tmp_path / "few", *options, "data.subset_size=4")
    assert seeds_differ == 25 and sum(encoded) == 0
    assert files_of(tmp_path / "cache").items() >= before.items()


def test_copies_are_the_same_in_every_run_and_take_turns(tiny):
    transform = TrainTransform(tiny.SIZE, crop_scale=(0.3, 1), colour_jitter=0.3)
    blocks = tiny.Blocks(4)
    first, second = (StreamDataset(blocks, transform, seed, copies=2) for seed in (1, 2))

    def images(stream: StreamDataset, epoch: int) -> dict[str, bytes]:
        samples = [stream[position] for position in range(4 * epoch, 4 * epoch + 4)]
        return {sample.name: sample.image.tobytes() for sample in samples}

    assert images(first, 0) == images(first, 2) == images(second, 4) != images(first, 1)
    assert images(first, 1) == images(second, 3) and len(set(images(first, 0).values())) == 4


def test_a_few_shot_run_resumes_from_files_bit_by_bit(tiny, tmp_path):
    options = cached(tmp_path / "cache", *RESNET, "data.subset_size=5", "run.checkpoint_every=3")
    tiny.tiny_train(tmp_path / "whole", *options)
    tiny.tiny_train(tmp_path / "run", *options)
    for name in ("step_6", "step_4"):
        folder = tmp_path / "run" / "checkpoints" / name
        if folder.exists():
            (folder / "manifest.json").write_text("")
    tiny.tiny_train(tmp_path / "run", *options, "run.resume=true", "data.cache_limit=1")
    ours, theirs = (tmp_path / run / "checkpoints" / "step_6" / "model.safetensors" for run in ("run", "whole"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["launches"][-1]["first_step"] == 3


@pytest.mark.parametrize(
    "change",
    ["model.encoder.width_factor=0.25", "data.size=[32,32]", "run.seed=5"],
)
def test_what_features_depend_on_makes_other_files(tiny, tmp_path, encoded, change):
    options = cached(tmp_path / "cache", *RESNET, "run.report=false")
    tiny.tiny_train(tmp_path / "first", *options)
    encoded.clear()
    tiny.tiny_train(tmp_path / "second", *options, change)
    assert sum(encoded) >= 21


def test_other_pixels_or_labels_under_the_same_names_are_not_taken_for_the_old_ones(tiny, tmp_path, encoded):
    config = tiny.tiny_config(tmp_path / "a", *cached(tmp_path / "cache", *RESNET))
    train(config, tiny.Blocks(10), tiny.Blocks(3, seed=1))
    encoded.clear()
    config.run.output_dir = str(tmp_path / "b")
    train(config, tiny.Blocks(10, seed=7), tiny.Blocks(3, seed=1))
    assert sum(encoded) == 21
    config.data.cache_features, config.run.output_dir = False, str(tmp_path / "c")
    train(config, tiny.Blocks(10, seed=7), tiny.Blocks(3, seed=1))
    assert_same_run(tmp_path / "b", tmp_path / "c")


def test_a_limit_and_a_full_disk_are_sentences_before_anything_is_written(tiny, tmp_path, monkeypatch):
    options = cached(tmp_path / "cache", *RESNET)
    with pytest.raises(
        OSError, match=r"training set and of the evaluated images need about .* MiB, and data\.cache_limit is .* Raise"
    ):
        tiny.tiny_train(tmp_path / "run", *options, "data.cache_limit=0.0001")
    usage = namedtuple("usage", "total used free")(10**12, 10**12, tensor_store.DISK_RESERVE + 1000)
    monkeypatch.setattr(tensor_store.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"has 0\.00 MiB left .* Free some space"):
        tiny.tiny_train(tmp_path / "other", *options)
    assert not files_of(tmp_path / "cache")


def test_the_limit_counts_the_images_that_are_evaluated(tiny, tmp_path):
    """There is room for all training features and one of three others."""
    tiny.tiny_train(tmp_path / "first", *cached(tmp_path / "first_cache", *RESNET))
    sizes = {path: path.stat().st_size for path in (tmp_path / "first_cache").rglob("*.safetensors")}
    feature = max(sizes.values())
    limit = (sum(sizes.values()) - 2 * feature) / tensor_store.GIB
    with pytest.raises(OSError, match="and of the evaluated images need about"):
        tiny.tiny_train(tmp_path / "run", *cached(tmp_path / "cache", *RESNET), f"data.cache_limit={limit:.12f}")
    assert not files_of(tmp_path / "cache")
    shutil.copytree(tmp_path / "first_cache", tmp_path / "cache", dirs_exist_ok=True)
    tiny.tiny_train(tmp_path / "second", *cached(tmp_path / "cache", *RESNET), f"data.cache_limit={limit:.12f}")


def test_the_estimate_is_what_is_written(tiny, tmp_path, caplog):
    with caplog.at_level("INFO", "depthseg"):
        tiny.tiny_train(tmp_path / "run", *cached(tmp_path / "cache", *RESNET))
    (said,) = [record.args for record in caplog.records if "computed once" in record.msg]
    assert said[:2] == (20, 20)
    tensors = [load_file(path) for path in (tmp_path / "cache").rglob("*.safetensors")]
    # Three more are those of the evaluated images, which have the same size.
    features, truths = ([t for t in tensors if ("labels" in t) == is_truth] for is_truth in (False, True))
    assert (len(features), len(truths)) == (23, 20)
    written = sum(map(tensor_store.size_of, features)) * 20 / 23 + sum(map(tensor_store.size_of, truths))
    assert said[2] == tensor_store.gib(written)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "set model.freeze_encoder=true, which fixes its weights and norm statistics"),
        (("model.freeze_encoder=true", "model.gradient_checkpointing=true"), "with model.freeze_encoder there are"),
        (("model.freeze_encoder=true", "data.crop_scale=[0.5,1]"), "such as data.augmented_copies=8"),
        (("model.freeze_encoder=true", "data.colour_jitter=0.1"), "features of a crop are not a crop of features"),
        (("model.freeze_encoder=true", "data.random_crop=true"), "such as data.augmented_copies=8"),
        (("model.freeze_encoder=true", "task=depth", "pretext.supervision=mono"), "self-supervised depth, flow and"),
        (("model.freeze_encoder=true", "task=inpainting"), "self-supervised depth, flow and inpainting"),
        (("model.freeze_encoder=true", "data.cache_limit=0"), "data.cache_limit must be a finite number above 0"),
        (("task=flow", "data.cache_features=false", "data.label_stride=2"), "does not train on here: leave it at 1"),
    ],
)
def test_what_cannot_be_cached_is_refused_in_a_sentence(options, words):
    with pytest.raises(ValueError, match=words):
        load_config(None, ["model.encoder={model_type: depthseg_resnet}", "data.cache_features=true", *options])


def test_an_encoder_from_python_that_is_not_frozen_and_streamed_data_are_refused(tiny, tmp_path):
    config = tiny.tiny_config(tmp_path / "run", *cached(tmp_path / "cache", *RESNET))
    model, processor = build_model(config, tiny.Blocks(2))
    streamed = tiny.Blocks(4)
    streamed.shard_lengths, streamed.shuffle_buffer = [2, 2], 2
    with pytest.raises(ValueError, match="streamed shard by shard"):
        train(config, streamed, tiny.Blocks(2), model, processor)
    free = DepthSegForSemanticSegmentation(model.config)
    free.encoder.requires_grad_(False)  # its norm statistics would still move
    with pytest.raises(ValueError, match="is not frozen: call model.freeze_encoder"):
        train(config, tiny.Blocks(4), tiny.Blocks(2), free, processor)
    assert not (tmp_path / "run").exists()


def test_labels_at_a_stride_are_those_in_the_middle_of_each_cell(tiny):
    sample = tiny.Blocks(1)[0]
    labels = np.arange(32 * 64).reshape(32, 64)
    collate = Collate(None, BatchContent({"labels": "depth"}), label_stride=8)
    object.__setattr__(sample, "depth", labels.astype(np.float32))
    (truth,) = collate.truths_of(sample).values()
    np.testing.assert_array_equal(truth, labels[4::8, 4::8])
    odd = Collate(None, BatchContent({"labels": "depth"}), label_stride=14)
    assert next(iter(odd.truths_of(sample).values())).shape == (3, 5)


def test_a_store_waits_for_who_owns_a_key_and_keeps_files_whole(tmp_path):
    store, order = TensorStore(tmp_path, 10**6), []

    def wait() -> None:
        with TensorStore(tmp_path, 10**6).owned("key"):
            order.append("second")

    with store.owned("key"):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    store.write("ab" * 32, {"x": torch.arange(4.0)}, {"text": "1"})
    tensors, texts = TensorStore(tmp_path, 1).read("ab" * 32)
    assert tensors["x"].tolist() == [0, 1, 2, 3] and texts == {"text": "1"}
    (path,) = tmp_path.rglob("*.safetensors")
    os.truncate(path, 20)
    with pytest.raises(ValueError, match="cannot be read .* Delete it and set run.resume=true"):
        TensorStore(tmp_path, 1).read("ab" * 32)


def test_who_comes_after_a_release_waits_for_who_waited_before(tmp_path):
    """A lock file that were removed under a waiting thread would let a third one in beside it."""
    inside, free, entered = (threading.Event() for _ in range(3))

    def second() -> None:
        with TensorStore(tmp_path, 10**6).owned("ab" * 32):
            inside.set()
            free.wait(10)

    def third() -> None:
        with TensorStore(tmp_path, 10**6).owned("ab" * 32):
            entered.set()

    threads = [threading.Thread(target=each) for each in (second, third)]
    with TensorStore(tmp_path, 10**6).owned("ab" * 32):
        threads[0].start()
        time.sleep(0.2)
    assert inside.wait(10)
    threads[1].start()
    assert not entered.wait(0.3)
    free.set()
    for thread in threads:
        thread.join(10)
    assert entered.is_set()


def test_two_writers_do_not_pass_the_limit_together(tmp_path):
    """Each has looked at an empty folder before the other one wrote."""
    tensors = {"x": torch.zeros(1000)}
    first, second = (TensorStore(tmp_path, 10**6) for _ in range(2))
    first.write("aa" * 32, tensors, {})
    size = TensorStore(tmp_path, 1).used()
    assert size == 4000 + 8 + int.from_bytes(next(tmp_path.rglob("aa*.safetensors")).read_bytes()[:8], "little")
    first.limit = second.limit = 4 * size
    second.write("bb" * 32, tensors, {})
    first.write("cc" * 32, tensors, {})
    second.write("dd" * 32, tensors, {})
    with pytest.raises(OSError, match="the next file needs"):
        first.write("ee" * 32, tensors, {})
    assert TensorStore(tmp_path, 1).used() == 4 * size and len(files_of(tmp_path)) == 4
    next(tmp_path.rglob("dd*.safetensors")).unlink()  # space freed by another process is counted
    first.write("ee" * 32, tensors, {})
    (tmp_path / tensor_store.COUNT_FILE).write_text("")  # as of a writer that was killed
    with pytest.raises(OSError, match="the next file needs"):
        second.write("ff" * 32, tensors, {})


def test_a_file_that_is_being_written_counts_at_its_full_size(tmp_path, monkeypatch):
    used = []

    def spy(path: Path) -> None:
        used.append(TensorStore(tmp_path, 1).used())

    monkeypatch.setattr(atomic, "sync", spy)
    TensorStore(tmp_path, 10**6).write("aa" * 32, {"x": torch.zeros(1000)}, {})
    assert used[0] == used[-1] > 4000


def test_evaluated_images_that_another_run_is_encoding_are_waited_for(tiny, tmp_path):
    model, processor = build_model(tiny.tiny_config("unused", *RESNET), tiny.Blocks(2))
    image = tiny.Blocks(1)[0].image
    caches = [FeatureCache(TensorStore(tmp_path, 10**8), model, processor, Accelerator(cpu=True)) for _ in range(2)]
    encoding, count = threading.Event(), []
    plain = FeatureCache.encode_whole

    def slow(self, *arguments, **options):
        count.append(self)
        encoding.set()
        time.sleep(0.2)
        return plain(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureCache, "encode_whole", slow)
        thread = threading.Thread(target=caches[0].whole_image, args=([image],))
        thread.start()
        assert encoding.wait(10)
        found = caches[1].whole_image([image])
        thread.join(10)
    assert count == [caches[0]]
    expected = model.encode(processor(images=[image], return_tensors="pt")["pixel_values"])
    torch.testing.assert_close(found.maps[-1], expected.maps[-1])


@pytest.mark.parametrize("name", ["FORMAT", pytest.param("__version__", marks=pytest.mark.heavy)])
def test_files_of_other_code_are_not_read(tiny, tmp_path, encoded, monkeypatch, name):
    options = cached(tmp_path / "cache", *RESNET, "run.report=false", "schedule.steps=1")
    tiny.tiny_train(tmp_path / "first", *options)
    encoded.clear()
    monkeypatch.setattr(feature_cache, name, "other")
    tiny.tiny_train(tmp_path / "second", *options)
    assert sum(encoded) == 25


def test_what_reads_batches_is_pickled_without_the_network(tmp_path):
    config = tiny_run.tiny_config("unused", *RESNET)
    blocks = tiny_run.Blocks(4)
    model, processor = build_model(config, blocks)
    model.freeze_encoder()
    features = FeatureCache(TensorStore(tmp_path, 10**8), model, processor, Accelerator(cpu=True))
    stream = StreamDataset(blocks, TrainTransform(tiny_run.SIZE), seed=0)
    stream, collate = cached_stream(features, stream, Collate(processor, BatchContent({"labels": "labels"})))
    content = pickle.dumps((stream, collate))
    assert len(content) < 2 * sum(parameter.numel() for parameter in model.encoder.parameters())
    other_stream, other_collate = pickle.loads(content)
    ours, theirs = collate([stream[3], stream[4]]), other_collate([other_stream[3], other_stream[4]])
    assert torch.equal(ours["labels"], theirs["labels"])
    for one, other in zip(ours["pixel_values"].maps, theirs["pixel_values"].maps, strict=True):
        assert one is other is None or torch.equal(one, other)


@pytest.mark.heavy
def test_workers_that_are_spawned_read_the_cache(tmp_path):
    options = ("schedule.steps=2", "run.eval_every=0", "run.report=false")
    tiny_run.tiny_train(tmp_path / "plain", *RESNET, *options)
    before = torch.multiprocessing.get_start_method()
    torch.multiprocessing.set_start_method("spawn", force=True)
    try:
        tiny_run.tiny_train(tmp_path / "run", *cached(tmp_path / "cache", *RESNET), *options, "data.num_workers=1")
    finally:
        torch.multiprocessing.set_start_method(before, force=True)
    assert_same_run(tmp_path / "run", tmp_path / "plain", step=2)


def test_what_a_killed_process_left_is_removed_and_what_one_is_writing_stays(tmp_path):
    (tmp_path / "ab").mkdir()
    old, new = (tmp_path / "ab" / f".{name}.1.part.safetensors" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    store = TensorStore(tmp_path, 10)
    assert (old.exists(), new.exists(), store.used()) == (False, True, 1)


def test_the_folder_is_that_of_the_system(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder("features") == tmp_path / "depthseg" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder("features") == Path.home() / ".cache" / "depthseg" / "features"


def command(tiny, *options: str, processes: int = 1) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(launcher if processes > 1 else []), str(Path(tiny.__file__)), "3", *options]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE")}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


@pytest.mark.heavy
def test_two_runs_at_once_share_the_work_and_two_processes_have_the_numbers_of_one(tiny, tmp_path):
    options = cached(tmp_path / "cache", *RESNET, *COPIES, "optim.batch_size=8")
    runs = {name: [str(tmp_path / name), *options] for name in ("one", "other")}
    started = [subprocess.Popen(command(tiny, *arguments), env=environment()) for arguments in runs.values()]
    assert [process.wait(300) for process in started] == [0, 0]
    features = files_of(tmp_path / "cache")
    done = subprocess.run(
        command(tiny, str(tmp_path / "two"), *options, processes=2), env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "cache") == features and len(features) == 63
    new = cached(tmp_path / "new", *options)
    done = subprocess.run(
        command(tiny, str(tmp_path / "two_new"), *new, processes=2), env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    tiny.tiny_train(tmp_path / "plain", *RESNET, *COPIES, "optim.batch_size=8")
    for name in ("one", "other", "two", "two_new"):
        assert_same_run(tmp_path / name, tmp_path / "plain")
    assert files_of(tmp_path / "new").keys() == features.keys()
