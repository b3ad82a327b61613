"""Disks that are full, read-only or not the user's."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import depthseg.engine.tensor_store as tensor_store
from depthseg.engine import atomic, records, run, state
from depthseg.engine.checkpoint import find_damage
from depthseg.engine.command import one_sentence_errors
from depthseg.engine.run_fault import RunFault, told_of_writing
from depthseg.engine.tensor_store import TensorStore


def _said(run):
    with pytest.raises(SystemExit) as ended, one_sentence_errors():
        run()
    return ended.value.code


def _error(number):
    return OSError(number, os.strerror(number))


def _fails_at(function, step, number, tmp_path):
    """The function, which fails as the system does where the checkpoint of a step is written."""

    def call(*arguments, **options):
        if f"step_{step}" in str(arguments):
            raise _error(number)
        return function(*arguments, **options)

    return call


def _steps(tmp_path):
    return sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())


def test_a_disk_that_is_full_costs_one_checkpoint(run_tiny, monkeypatch, row, tmp_path, ends_like):
    with monkeypatch.context() as patch:
        patch.setattr(state, "save_file", _fails_at(state.save_file, 3, errno.ENOSPC, tmp_path))
        said = _said(run_tiny)
    assert _steps(tmp_path) == ["step_1", "step_2"]  # nothing half-written
    assert all(find_damage(tmp_path / "run" / "checkpoints" / name) is None for name in _steps(tmp_path))
    row("The disk is full when a checkpoint is written", said, "The checkpoints before it; nothing half-written.")
    run_tiny("run.resume=true")
    assert ends_like()


@pytest.mark.heavy
def test_a_file_system_that_became_read_only_is_named(run_tiny, monkeypatch, row, tmp_path, ends_like):
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "rename", _fails_at(os.rename, 3, errno.EROFS, tmp_path))
        said = _said(run_tiny)
    assert _steps(tmp_path) == ["step_1", "step_2"]
    row("The file system becomes read-only while a checkpoint is written", said, "The checkpoints before it.")
    run_tiny("run.resume=true")
    assert ends_like()


@pytest.mark.heavy
def test_a_disk_that_is_full_leaves_the_selected_weights(run_tiny, monkeypatch, row, tmp_path, ends_like):
    calls = []
    save = run.save_weights

    def full(model, folder, options):
        calls.append(folder)
        if len(calls) == 2:
            raise _error(errno.ENOSPC)
        save(model, folder, options)

    with monkeypatch.context() as patch:
        patch.setattr(run, "save_weights", full)
        said = _said(lambda: run_tiny("run.select=last"))
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert _steps(tmp_path) == ["step_2", "step_3"]
    row("The disk is full when `model/` is written", said, "The selected weights before, and the checkpoints.")
    run_tiny("run.select=last", "run.resume=true")
    assert ends_like()


@pytest.mark.heavy
def test_a_disk_that_is_full_for_a_line_of_scores(run_tiny, monkeypatch, row, tmp_path, ends_like):
    with monkeypatch.context() as patch:
        patch.setattr(records, "sync", lambda path: (_ for _ in ()).throw(_error(errno.ENOSPC)))
        said = _said(run_tiny)
    row("The disk is full when scores are written", said, "The checkpoints.")
    run_tiny("run.resume=true")
    assert ends_like()


def test_a_folder_that_is_read_only_is_named_before_anything_is_trained(run_tiny, monkeypatch, row, tmp_path):
    def read_only(path, *arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", read_only)
        said = _said(run_tiny)
    assert not (tmp_path / "run").exists()
    row("`run.output_dir` is on a read-only file system", said, "Nothing is there yet, nothing is touched.")


def test_a_folder_of_another_user_is_named(run_tiny, monkeypatch, row, tmp_path):
    def forbidden(path, *arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", forbidden)
        said = _said(run_tiny)
    row("`run.output_dir` belongs to another user", said, "Nothing is there yet, nothing is touched.")


def test_the_librarys_own_words_for_a_full_disk_are_understood(tmp_path):
    """A file may not be longer than a limit of this process: the error is the system's, through the library."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            import signal

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            try:
                with told_of_writing("the weights", tmp_path, "Kept."):
                    save_file({"weight": torch.zeros(1_000_000)}, tmp_path / "weights.safetensors")
            except RunFault as error:
                code = 0 if f"The disk of {tmp_path} is full, so the weights could not be" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_an_error_of_something_else_stays_what_it_is(tmp_path):
    for error in (FileNotFoundError(2, "No such file", "images/1.png"), OSError("The cache is full of sentences.")):
        with pytest.raises(type(error)) as raised, told_of_writing("the weights", tmp_path, "Kept."):
            raise error
        assert raised.value is error


def test_the_disk_of_another_file_is_named(tmp_path):
    for number, what in (
        (errno.ENOSPC, "disk of /other/kernels is full"),
        (errno.EROFS, "system of /other/kernels is"),
    ):
        error = OSError(number, os.strerror(number), "/other/kernels")
        with pytest.raises(RunFault, match=what), told_of_writing("the weights", tmp_path, "Kept."):
            raise error


FEATURES = ("model.freeze_encoder=true", "data.cache_features=true")


def _full_after(count, monkeypatch):
    """Files of caches, of which all after so many find the disk full when half of them is written."""
    whole = tensor_store.atomic_path
    left = [count]

    @contextmanager
    def path_of(path):
        left[0] -= 1
        with whole(path) as temporary:
            yield temporary
            if left[0] < 0:
                temporary.write_bytes(b"half")
                raise _error(errno.ENOSPC)

    monkeypatch.setattr(tensor_store, "atomic_path", path_of)


def test_a_disk_that_is_full_keeps_the_features_that_were_written(run_tiny, monkeypatch, row, tmp_path):
    options = (*FEATURES, f"data.cache_dir={tmp_path / 'features'}", "schedule.steps=2")
    with monkeypatch.context() as patch:
        _full_after(3, patch)
        said = _said(lambda: run_tiny(*options))
    kept = [path for path in (tmp_path / "features").rglob("*") if path.is_file() and path.parent.name != "locks"]
    assert sorted(path.suffix for path in kept) == ["", *[".safetensors"] * 3]
    row("The disk is full while features are cached", said, "The features written before; nothing half-written.")
    run_tiny(*options, "run.resume=true")


def test_a_disk_that_is_full_for_decoded_images_ends_no_run(run_folder, monkeypatch, row, tmp_path, caplog):
    run_folder("data.cache=off", "run.output_dir=" + str(tmp_path / "plain"))
    with monkeypatch.context() as patch:
        _full_after(3, patch)
        run_folder(f"data.cache_dir={tmp_path / 'decoded'}")
    (said,) = [record.getMessage() for record in caplog.records if "decoded whenever" in record.getMessage()]
    row("The disk is full while decoded images are cached", said, "All; the run reads the files of the data.")
    runs = [tmp_path / run / "checkpoints" / "step_3" / "model.safetensors" for run in ("plain", "run")]
    assert runs[0].read_bytes() == runs[1].read_bytes()
    assert len(list((tmp_path / "decoded").rglob("*.safetensors"))) == 3


def test_a_cache_that_does_not_fit_is_refused(monkeypatch, row, tmp_path):
    store = TensorStore(tmp_path / "run", 2**40)
    monkeypatch.setattr(tensor_store.shutil, "disk_usage", lambda path: os.terminal_size((0, 0)) and _Usage())
    with pytest.raises(OSError, match="stay free") as raised:
        store.write("ab56", {"map": torch.ones(1000)}, {})
    row("The disk has no room for the features to cache", f"error: {raised.value}", "Nothing is written.")


class _Usage:
    free = 2**29
