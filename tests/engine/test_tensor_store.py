"""A folder of tensors that others read, fill and may not touch, at the same time."""

import os
import threading
from pathlib import Path

import pytest
import torch

from depthseg.engine import atomic, tensor_store
from depthseg.engine.tensor_store import TensorStore


def key_of(number: int) -> str:
    return f"{number:064x}"[::-1]


def test_a_folder_is_not_counted_again_and_again_while_it_grows(tmp_path, monkeypatch):
    looked, files = [], TensorStore._files

    def counted(self):
        for entry in files(self):
            looked.append(entry)
            yield entry

    monkeypatch.setattr(TensorStore, "_files", counted)
    monkeypatch.setattr(tensor_store, "WRITES_BETWEEN_COUNTS", 4)
    monkeypatch.setattr(atomic, "sync", lambda path: None)
    store = TensorStore(tmp_path, 10**9)
    for number in range(300):
        store.write(key_of(number), {"x": torch.zeros(1)}, {})
    assert len(looked) < 2 * 300
    assert int((tmp_path / tensor_store.COUNT_FILE).read_text()) == store.used()


def test_room_that_others_made_is_found_where_the_folder_is_counted_seldom(tmp_path):
    tensors = {"x": torch.zeros(1000)}
    store = TensorStore(tmp_path, 10**6)
    store.write(key_of(0), tensors, {})
    store.limit = 2 * store.used()
    store.write(key_of(1), tensors, {})
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
    store.write(key_of(2), tensors, {})
    assert [key_of(number) in TensorStore(tmp_path, 1) for number in range(3)] == [False, False, True]


def test_a_leftover_that_this_user_may_not_remove_is_left(tmp_path, monkeypatch):
    store = TensorStore(tmp_path, 10**6)
    store.write(key_of(0), {"x": torch.ones(2)}, {})
    leftover = next(tmp_path.rglob("*.safetensors")).with_name(".old.part.safetensors")
    leftover.write_bytes(b"x")
    os.utime(leftover, (1, 1))

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    assert TensorStore(tmp_path, 10**6).read(key_of(0))[0]["x"].tolist() == [1, 1]
    assert leftover.exists()


def test_a_folder_of_another_user_that_may_not_be_searched_holds_nothing(tmp_path, monkeypatch):
    store = TensorStore(tmp_path, 10**6)
    stat = os.stat

    def refuse(path, *args, **kwargs):
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(13, "Permission denied")
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", refuse)
    assert key_of(0) not in store


def test_writers_of_one_file_with_one_process_number_do_not_share_its_temporary_name(tmp_path, monkeypatch):
    """As threads have, and processes of two containers that share a folder."""
    both, sync, errors = threading.Barrier(2), atomic.sync, []

    def together(path: Path) -> None:
        if path.suffix:
            both.wait(10)
        sync(path)

    def write() -> None:
        try:
            TensorStore(tmp_path, 10**6).write(key_of(0), {"x": torch.arange(9)}, {})
        except OSError as error:
            errors.append(error)

    monkeypatch.setattr(atomic, "sync", together)
    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert TensorStore(tmp_path, 1).read(key_of(0))[0]["x"].tolist() == list(range(9))


def test_a_file_that_is_mapped_is_read_after_it_was_removed(tmp_path):
    store = TensorStore(tmp_path, 10**6)
    store.write(key_of(0), {"x": torch.arange(3)}, {"a": "b"})
    before = store.read(key_of(0))
    next(tmp_path.rglob("*.safetensors")).unlink()
    assert key_of(0) not in store and store.read(key_of(0)) is before and before[0]["x"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="it is computed again"):
        TensorStore(tmp_path, 1).read(key_of(0))
