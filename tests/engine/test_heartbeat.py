"""Who the processes of a launch wait for, told from what each of them publishes."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace

import pytest
import torch
from torch.distributed import DistNetworkError, HashStore

from depthseg.engine import heartbeat
from depthseg.engine.heartbeat import Heartbeat
from depthseg.engine.run_fault import RunFault

SECONDS = 1.0


class _Lost:
    """The store of a process that has ended."""

    def set(self, *arguments):
        raise DistNetworkError("failed to send")

    check = get = set


@pytest.fixture
def beating(monkeypatch):
    """`beating(store, rank)`: the heartbeat of one of two processes that tell each other what they do in a store."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")

    def of(store, rank=0):
        monkeypatch.setattr(heartbeat, "TCPStore", lambda *arguments, **options: store)
        device = torch.device("cpu")
        return Heartbeat(SimpleNamespace(device=device, process_index=rank, num_processes=2), SECONDS)

    return of


@pytest.mark.parametrize("other_step", [1, 2], ids=["behind", "with"])
def test_only_who_is_missing_is_warned_of(beating, caplog, other_step):
    """An evaluation may take longer than an exchange may: nobody waits for anybody then."""
    store = HashStore()
    with caplog.at_level(logging.ERROR), beating(store, 1) as other, beating(store) as ours:
        other.at(other_step)
        ours.at(2)
        end = time.monotonic() + 1.5 * SECONDS
        while time.monotonic() < end and not caplog.records:
            time.sleep(0.05)
    said = [record.getMessage() for record in caplog.records if "Process 0" in record.getMessage()]
    assert len(said) == (other_step == 1)
    assert not said or "is still at step 1" in said[0]


@pytest.mark.parametrize("said", ["Timed out waiting 1000ms for recv", "Connection closed by peer"])
def test_where_the_store_is_gone_the_sentence_stays(beating, said):
    with pytest.raises(RunFault, match="Another process of the launch ended.*The exchange ended with") as ended:
        with beating(_Lost()):
            raise RuntimeError(f"[gloo/transport/tcp/pair.cc:1] {said}")
    assert said in str(ended.value)
