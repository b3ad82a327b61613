"""Who the processes of a launch wait for, told from what each of them publishes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.distributed import DistNetworkError, HashStore

from depthseg.engine.heartbeat import Heartbeat
from depthseg.engine.run_fault import RunFault

SECONDS = 1000.0


class _Lost:
    """The store of a process that has ended."""

    def check(self, keys):
        raise DistNetworkError("failed to send")


@pytest.fixture
def beating():
    """`beating(store, rank)`: the heartbeat of one of two processes that tell each other what they do in a store."""

    def of(store, rank=0):
        device = torch.device("cpu")
        found = Heartbeat(SimpleNamespace(device=device, process_index=rank, num_processes=2), SECONDS)
        found._store = store
        return found

    return of


@pytest.mark.parametrize("other_step", [1, 2], ids=["behind", "with"])
def test_only_who_is_missing_is_warned_of(beating, caplog, other_step):
    """An evaluation may take longer than an exchange may: nobody waits for anybody then."""
    store = HashStore()
    ours, other = beating(store), beating(store, rank=1)
    other.at(other_step)
    other._beat()
    ours.at(2)
    ours._since -= 0.95 * SECONDS
    is_over = iter([False, True])
    ours._over = SimpleNamespace(wait=lambda seconds: next(is_over))
    ours._run()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (other_step == 1)
    assert not said or "Process 0 has waited for others in step 2" in said[0] and "is still at step 1" in said[0]


@pytest.mark.parametrize("said", ["Timed out waiting 1000ms for recv", "Connection closed by peer"])
def test_where_the_store_is_gone_the_sentence_stays(beating, said):
    found = beating(_Lost())._said_of(RuntimeError(f"[gloo/transport/tcp/pair.cc:1] {said}"))
    assert found.startswith("Another process of the launch ended")


def _raised(module, error):
    """Raise an error as from a function of that module."""
    names = {"__name__": module, "error": error}
    exec("def fail():\n    raise error", names)
    names["fail"]()


@pytest.mark.parametrize(
    ("module", "text", "is_exchange"),
    [
        ("torch.nn.parallel.distributed", "anything at all", True),
        ("torch.distributed.distributed_c10d", "anything at all", True),
        ("torch.autograd.graph", "Application timeout caused pair closure", True),
        ("torch.autograd.graph", "[gloo/transport/tcp/pair.cc:1] Timed out waiting 1000ms for recv", True),
        ("torch.autograd.graph", "the shapes do not go together", False),
    ],
)
def test_errors_of_the_exchange_are_told_from_others(beating, module, text, is_exchange):
    store = HashStore()
    ours, other = beating(store), beating(store, rank=1)
    other._beat()
    ours.at(2)
    ours._thread = SimpleNamespace(join=lambda seconds: None)
    with pytest.raises(RunFault if is_exchange else RuntimeError) as told:
        try:
            _raised(module, RuntimeError(text))
        except RuntimeError as error:
            ours.__exit__(RuntimeError, error, error.__traceback__)
            raise
    assert isinstance(told.value, RunFault) == is_exchange
    assert ("process 1" in str(told.value)) == (is_exchange and "time" in text.lower())
