"""Processes agree on the step after which they stop."""

from __future__ import annotations

import torch.multiprocessing
from torch import distributed

from depthseg.engine.stop_votes import StopVotes

STEPS = 6


def test_a_process_alone_stops_at_once():
    with StopVotes(1) as votes:
        assert [votes.cast(stop) for stop in (False, True, False)] == [False, True, False]


def _vote(rank, folder, asked, results):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    with StopVotes(2) as votes:
        stopped = [votes.cast(rank == 1 and step >= asked) for step in range(STEPS)]
    results[rank] = stopped
    distributed.destroy_process_group()


def test_all_processes_stop_at_the_step_after_one_was_asked(tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(_vote, (str(tmp_path), 2, results), nprocs=2)
        assert dict(results) == {rank: [False, False, False, True, True, True] for rank in range(2)}
