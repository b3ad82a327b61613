"""Streaming from shards: every sample once an epoch, whoever reads it, and the same batches for all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from data.hub_files import write_all
from torch.utils.data import get_worker_info

from depthseg.cli import main
from depthseg.data import HubDataset
from depthseg.engine.batches import StreamDataset, micro_batches
from depthseg.engine.sampling import MicroBatches, SampleStream, ShardStream, stream_of

REPOSITORY = Path(__file__).parents[2]
COUNT = 11
FORMS = [("parquet", 4), ("tar", 4), ("tar", 1000)]


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Eleven samples in shards of 5, 2 and 4, in two formats."""
    return write_all(tmp_path_factory.mktemp("formats"))


@pytest.mark.parametrize("lengths", [[5, 2, 4], [3], [1] * 7, [0, 4, 0, 3], [2, 100]])
@pytest.mark.parametrize("window", [1, 3, 1000])
def test_every_epoch_holds_every_sample_once(lengths, window):
    stream, count = ShardStream(lengths, window, seed=5), sum(lengths)
    for epoch in range(4):
        assert sorted(stream.index(epoch * count + offset) for offset in range(count)) == list(range(count))


def test_shards_are_read_one_after_the_other_and_mixed_within_a_window():
    """The definition, by lists: shards in an order that is drawn, cut into windows, each mixed."""
    lengths, window = [50, 20, 40, 30], 16
    owner = np.repeat(range(4), lengths)
    epochs = []
    for epoch in range(3):
        stream = ShardStream(lengths, window, seed=1)
        found = [stream.index(140 * epoch + offset) for offset in range(140)]
        order = np.random.default_rng([1, epoch, 1]).permutation(4)
        in_order = [index for shard in order for index in np.flatnonzero(owner == shard)]
        for first in range(0, 140, window):
            part = found[first : first + window]
            assert sorted(part) == sorted(in_order[first : first + window])
            assert part != sorted(part) or len(part) == 1
        epochs.append(found)
    assert len(set(map(tuple, epochs))) == 3


def test_a_position_means_the_same_whatever_was_read_before():
    stream = ShardStream([5, 2, 4], 4, seed=1)
    expected = [stream.index(position) for position in range(50)]
    jumping = ShardStream([5, 2, 4], 4, seed=1)
    for position in (49, 0, 17, 3, 22, 4, 48):
        assert jumping.index(position) == expected[position]
    other = ShardStream([5, 2, 4], 4, seed=2)
    assert [other.index(position) for position in range(50)] != expected


def test_data_that_is_not_streamed_keeps_its_order(roots):
    stream = stream_of(HubDataset(roots["saved"], "train"), seed=3)
    assert type(stream) is SampleStream
    assert type(stream_of(HubDataset(roots["tar"], "train", streaming=True), 3)) is ShardStream


class Recorder:
    """A transform that notes who read what; the batch is these notes."""

    def __init__(self, rank):
        self._rank = rank

    def __call__(self, sample, rng):
        worker = get_worker_info()
        return sample.name, self._rank, -1 if worker is None else worker.id, int(rng.integers(2**31))


def names_and_readers(samples):
    """A collate function: what `Recorder` notes, as a tensor."""
    return {"read": torch.tensor([[int(name.split("-")[-1]), *rest] for name, *rest in samples])}


def read(root, ranks, workers, first_step=0, last_step=11, batch_size=12, window=4):
    """By step: what each rank read, as rows (sample, rank, worker, drawn number), in the order of the ranks."""
    steps = []
    for rank in range(ranks):
        data = HubDataset(root, "train", streaming=True, shuffle_buffer=window)
        stream = StreamDataset(data, Recorder(rank), seed=7)
        plan = MicroBatches(first_step, last_step, batch_size, 1, rank, ranks)
        batches = micro_batches(stream, names_and_readers, plan, workers, torch.device("cpu"))
        steps.append([batch["read"].tolist() for batch in batches])
    return [sum(step, []) for step in zip(*steps, strict=True)]


@pytest.mark.parametrize(("form", "window"), FORMS)
def test_nothing_is_read_twice_and_nothing_is_lost_over_processes_and_workers(roots, form, window):
    """Three shards, which neither 1, 2 nor 4 processes nor 2 workers divide; 11 steps of 12 are 12 epochs of 11."""
    alone = read(roots[form], 1, 0, window=window)
    for ranks, workers in ((1, 2), (2, 0), (2, 2), (4, 2)):
        found = read(roots[form], ranks, workers, window=window)
        flat = [row for step in found for row in step]
        for epoch in range(12):
            numbers = [number for number, *_ in flat[epoch * COUNT : (epoch + 1) * COUNT]]
            assert sorted(numbers) == list(range(COUNT)), (ranks, workers, epoch)
        by_reader = Counter((rank, worker) for _, rank, worker, _ in flat)
        assert len(by_reader) == ranks * max(workers, 1) and sum(by_reader.values()) == 12 * COUNT
        assert {sum(by_reader[rank, worker] for worker in range(-1, 3)) for rank in range(ranks)} == {132 // ranks}
        # The same batches in the same order, and the same draws for their augmentation.
        plain = [[(number, drawn) for number, _, _, drawn in step] for step in found]
        assert plain == [[(number, drawn) for number, _, _, drawn in step] for step in alone]


@pytest.mark.parametrize(("form", "window"), FORMS)
def test_a_run_that_begins_at_a_later_step_reads_what_an_unbroken_one_does(roots, form, window):
    whole = read(roots[form], 1, 0, window=window)
    assert read(roots[form], 1, 0, first_step=7, window=window) == whole[7:]
    resumed = read(roots[form], 2, 2, first_step=7, window=window)
    assert [[row[0] for row in step] for step in resumed] == [[row[0] for row in step] for step in whole[7:]]


def command(tiny, root, run_dir, *overrides, **options):
    """`depthseg finetune` with a network of few weights; six steps, each evaluated."""
    words = {"label_map": "{255: ignore}", **options}
    tiny.tiny_config(run_dir).save(run_dir.with_suffix(".yaml"))
    return [
        "finetune",
        f"--config={run_dir.with_suffix('.yaml')}",
        "data.name=hub",
        f"data.root={root}",
        f"data.options={{{', '.join(f'{name}: {value}' for name, value in words.items())}}}",
        *("run.eval_every=1", "run.checkpoint_every=2", "data.crop_scale=[0.5,1]", "data.num_workers=1"),
        *overrides,
    ]


def finetune(words):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code is None


def metrics(run_dir):
    """The lines of a run, without the time that they took."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.mark.parametrize(("form", "streaming"), [("saved", False), ("parquet", False), ("tar", True)])
def test_a_run_of_the_command_line_trains_on_every_form(roots, tiny, tmp_path, form, streaming):
    finetune(
        command(tiny, roots[form], tmp_path / "run", "schedule.steps=2", streaming=streaming, depth_column="none")
    )
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2]
    assert all(np.isfinite(line["train_loss"]) for line in lines)
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["id2label"] == {"0": "road", "1": "sky", "2": "tree"}


def start(words):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, "-m", "depthseg.cli", *words], env=environment, stderr=subprocess.DEVNULL)


@pytest.mark.heavy
def test_a_run_that_is_killed_ends_with_the_numbers_of_an_unbroken_one(roots, tiny, tmp_path):
    options = {"streaming": True, "shuffle_buffer": 4}
    for name in ("whole", "run"):
        words = command(tiny, roots["tar"], tmp_path / name, "schedule.steps=30", **options)
        if name == "whole":
            finetune(words)
            continue
        killed = start(words)
        while not list((tmp_path / "run" / "checkpoints").glob("step_*")):
            assert killed.poll() is None
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(metrics(tmp_path / "run")) < 30
        finetune([*words, "run.resume=true"])
    ours, theirs = metrics(tmp_path / "run"), metrics(tmp_path / "whole")
    assert ours[-1]["step"] == 30 and ours == theirs
    launches = json.loads((tmp_path / "run" / "run.json").read_text())["launches"]
    assert len(launches) == 2 and launches[1]["first_step"] > 0


@pytest.mark.heavy
def test_two_processes_read_the_batches_of_one(roots, tmp_path):
    """Two processes with two workers each, through Accelerate, as a launcher starts them."""
    script = tmp_path / "record.py"
    script.write_text(
        """
import json, sys
from accelerate import Accelerator
from depthseg.data import HubDataset
from depthseg.engine.batches import StreamDataset, micro_batches
from depthseg.engine.sampling import MicroBatches

def name_of(sample, rng):
    return sample.name

def names(samples):
    import torch
    return {"read": torch.tensor([int(name) for name in samples])}

if __name__ == "__main__":
    accelerator = Accelerator(cpu=True)
    data = HubDataset(sys.argv[1], "train", streaming=True, shuffle_buffer=4)
    plan = MicroBatches(0, 11, 12, 2, accelerator.process_index, accelerator.num_processes)
    batches = micro_batches(StreamDataset(data, name_of, 7), names, plan, 2, accelerator.device)
    found = [accelerator.gather(batch["read"]).tolist() for batch in batches]
    if accelerator.is_main_process:
        open(sys.argv[2], "w").write(json.dumps([accelerator.num_processes, found]))
    accelerator.end_training()
"""
    )
    command_line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    answer = tmp_path / "answer.json"
    subprocess.run([*command_line, script, roots["tar"], answer], env=environment, check=True, timeout=300)
    processes, found = json.loads(answer.read_text())
    flat = [number for batch in found for number in batch]
    assert processes == 2 and len(found) == 22
    for epoch in range(12):
        assert sorted(flat[epoch * COUNT : (epoch + 1) * COUNT]) == list(range(COUNT))
    assert flat == [row[0] for step in read(roots["tar"], 1, 0) for row in step]
