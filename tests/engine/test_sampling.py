"""The stream of samples against its definition, for every way to cut it."""

from __future__ import annotations

import numpy as np
import pytest

from depthseg.engine.sampling import MicroBatches, SampleStream


def test_every_epoch_is_a_new_permutation():
    stream = SampleStream(7, seed=3)
    epochs = [[stream.index(7 * epoch + offset) for offset in range(7)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_position_means_the_same_whatever_was_asked_before():
    in_order = SampleStream(5, seed=1)
    expected = [in_order.index(position) for position in range(40)]
    jumping = SampleStream(5, seed=1)
    for position in (39, 0, 17, 3, 22, 4):
        assert jumping.index(position) == expected[position]
    other = SampleStream(5, seed=2)
    assert [other.index(position) for position in range(40)] != expected


def test_augmentation_is_drawn_by_seed_and_position():
    drawn = SampleStream(5, seed=4).rng(11).random(3)
    np.testing.assert_array_equal(drawn, np.random.default_rng([4, 11]).random(3))


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (1, 3), (2, 1), (2, 3), (4, 3)])
def test_all_cuts_cover_the_same_global_batches(processes, accumulation):
    ranks = [list(MicroBatches(2, 5, 12, accumulation, rank, processes)) for rank in range(processes)]
    assert all(len(rank) == 3 * accumulation == len(MicroBatches(2, 5, 12, accumulation)) for rank in ranks)
    for step in range(3):
        merged = [
            position
            for micro_batch in range(accumulation)
            for rank in ranks
            for position in rank[step * accumulation + micro_batch]
        ]
        assert merged == list(range((2 + step) * 12, (3 + step) * 12))


@pytest.mark.parametrize(("batch", "processes", "accumulation"), [(10, 4, 1), (7, 2, 3), (5, 4, 1)])
def test_a_batch_that_is_no_multiple_is_cut_into_parts_that_differ_by_one(batch, processes, accumulation):
    ranks = [list(MicroBatches(1, 3, batch, accumulation, rank, processes)) for rank in range(processes)]
    parts = [rank[number] for number in range(2 * accumulation) for rank in ranks]
    assert [position for part in parts for position in part] == list(range(batch, 3 * batch))
    smallest = batch // (processes * accumulation)
    assert {len(part) for part in parts} == {smallest, smallest + 1}


def test_a_batch_that_cannot_be_cut_says_what_could():
    with pytest.raises(ValueError, match=r"batch_size=3 .* 2 process.*accumulation_steps=2: take at least 4"):
        MicroBatches(0, 1, 3, 2, 0, 2)


def test_an_empty_training_set_is_refused():
    with pytest.raises(ValueError, match="training set is empty"):
        SampleStream(0, seed=0)
