"""Requests to stop: what is said at the signal, and how processes agree on where they stop."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest
import torch.multiprocessing
from torch import distributed

from depthseg.engine.evaluation import shared_out
from depthseg.engine.stopping import STOP_SIGNALS, EvaluationStopped, StopRequest, StopVotes

STEPS = 6


def test_a_process_alone_stops_at_once():
    request = StopRequest("The run stops")
    with StopVotes(request, 1) as votes:
        assert not votes.cast() and not votes.agreed()
        request.received = True
        assert votes.cast() and votes.agreed()


def _vote(rank, folder, results):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    request, accelerator = StopRequest("The run stops"), SimpleNamespace(process_index=rank, num_processes=2)

    def answers(vote):
        for step in range(STEPS):
            request.received = rank == 1 and step >= 2
            yield vote()

    def evaluated():
        request.received, read = False, []
        try:
            for sample in shared_out(range(9), accelerator, votes):
                read.append(sample)
                request.received = sample == 3
        except EvaluationStopped:
            read.append("stopped")
        return read

    with StopVotes(request, 2) as votes:
        results[rank] = [*answers(votes.cast)], [*answers(votes.agreed)], evaluated()
    distributed.destroy_process_group()


def test_all_processes_stop_where_one_was_asked(tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(_vote, (str(tmp_path), results), nprocs=2)
        found = dict(results)
    for rank, samples in enumerate([[0, 2, 4, 6, 8], [1, 3]]):
        steps, at_once, evaluated = found[rank]
        assert steps == [False, False, False, True, True, True]
        # The last vote of the steps, which nobody has counted, is not lost.
        assert at_once == [True, False, True, True, True, True]
        assert evaluated == [*samples, "stopped"]


@pytest.fixture
def usual_signals():
    """Handlers that a second request finds: here they only count."""
    counted = []
    before = {
        number: signal.signal(number, lambda *arguments: counted.append(arguments[0])) for number in STOP_SIGNALS
    }
    yield counted
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_the_first_request_says_once_what_it_does(number, usual_signals, capfd):
    with StopRequest("The study stops after this trial") as study, StopRequest("The run stops after this step") as run:
        os.kill(os.getpid(), number)
        said = capfd.readouterr().err
        assert study.received and run.received
        os.kill(os.getpid(), number)
    assert said == (
        "The run stops after this step, and everything is saved; a second signal ends it at once, without saving.\n"
    )
    assert usual_signals == [number] and capfd.readouterr().err == ""


def test_of_many_processes_one_speaks(usual_signals, monkeypatch, capfd):
    monkeypatch.setenv("RANK", "1")
    with StopRequest("The run stops") as run:
        os.kill(os.getpid(), signal.SIGTERM)
    assert run.received and capfd.readouterr().err == ""


def test_a_run_that_begins_after_the_request_has_received_it(usual_signals):
    """As of a study, while a run opens its data: it stops after its first step, not after its last one."""
    with StopRequest("The study stops") as study:
        os.kill(os.getpid(), signal.SIGTERM)
        with StopRequest("The run stops") as run:
            assert run.received
        assert study.received
    with StopRequest("The run stops") as other:
        assert not other.received
        os.kill(os.getpid(), signal.SIGTERM)
    assert usual_signals == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert usual_signals == [signal.SIGTERM]
