"""One optimiser step against the same step written out by hand."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.nn import functional as F

from depthseg.engine.bad_steps import BatchSource
from depthseg.engine.loop import Training, fit, train_step
from depthseg.engine.optim import build_optimizer
from depthseg.engine.options import RunConfig
from depthseg.engine.pending import PendingSteps
from depthseg.engine.skipping import step_if
from depthseg.engine.state import Progress, generator_states

MOST_BAD_STEPS = RunConfig().optim.max_bad_steps


class Regression(nn.Module):
    """Masked squares of a linear map: the smallest objective there is. NaN targets are unknown."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def count_valid(self, batch):
        return (~batch["y"].isnan()).sum()

    def forward(self, batch, num_valid=None):
        known = ~batch["y"].isnan()
        error = self.linear(batch["x"])[:, 0] - batch["y"].nan_to_num()
        loss = (error.square() * known).sum() / num_valid
        return {"loss": loss, "half": loss / 2}


class WithStatistics(Regression):
    """The same behind a layer that keeps running statistics."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, batch, num_valid=None):
        return super().forward(batch | {"x": self.norm(batch["x"])}, num_valid)


def _training(tmp_path, max_grad_norm=0.0, name="sgd", objective=None):
    torch.manual_seed(0)
    objective = objective or Regression()
    accelerator = Accelerator(cpu=True)
    config = RunConfig()
    config.optim.name, config.optim.max_grad_norm = name, max_grad_norm
    config.optim.lr, config.optim.weight_decay = 0.1, 0.0
    prepared, optimizer = accelerator.prepare(objective, build_optimizer(objective, None, config.optim))
    return Training(config, tmp_path, accelerator, prepared, objective.count_valid, optimizer, Progress(), *[None] * 5)


def _batches(*known):
    """One micro-batch of four rows for each number of known targets."""
    generator = torch.Generator().manual_seed(1)
    batches = []
    for count in known:
        y = torch.randn(4, generator=generator)
        y[count:] = torch.nan
        batches.append({"x": torch.randn(4, 3, generator=generator), "y": y})
    return batches


def test_the_loss_is_the_mean_over_all_valid_pixels_of_the_step(tmp_path):
    training, batches = _training(tmp_path), _batches(4, 1, 0, 2)
    x, y = (torch.cat([batch[key] for batch in batches]) for key in ("x", "y"))
    weight, bias = (p.detach().clone().requires_grad_() for p in training.objective.parameters())
    expected = F.mse_loss((x @ weight.T + bias)[:, 0][~y.isnan()], y[~y.isnan()])
    expected.backward()

    values, is_finite = train_step(training, batches)

    assert values["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert values["half"].item() == pytest.approx(expected.item() / 2, rel=1e-6)
    norm = torch.cat([weight.grad.flatten(), bias.grad]).norm().item()
    assert values["grad_norm"].item() == pytest.approx(norm, rel=1e-6)
    assert is_finite
    after = list(training.objective.parameters())
    torch.testing.assert_close(after[0], weight - 0.1 * weight.grad, rtol=0, atol=1e-6)
    torch.testing.assert_close(after[1], bias - 0.1 * bias.grad, rtol=0, atol=1e-6)


def test_clipping_shortens_the_gradient_to_its_limit(tmp_path):
    training = _training(tmp_path, max_grad_norm=0.01)
    before = [p.detach().clone() for p in training.objective.parameters()]
    train_step(training, _batches(4))
    moved = torch.cat([(p - q).flatten() for p, q in zip(training.objective.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_a_step_of_unknown_pixels_alone_changes_nothing(tmp_path):
    training = _training(tmp_path)
    before = [p.detach().clone() for p in training.objective.parameters()]
    values, _ = train_step(training, _batches(0, 0))
    assert values["loss"] == 0 and values["grad_norm"] == 0
    for parameter, old in zip(training.objective.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, old, rtol=0, atol=0)


def _state(training):
    """Every number that a step may change."""
    objective, optimizer = training.accelerator.unwrap_model(training.objective), training.optimizer.optimizer
    state = [value for entries in optimizer.state.values() for value in entries.values()]
    return [value.detach().clone() for value in (*objective.state_dict().values(), *state)]


def _poison_loss(training, batch):
    batch["x"][0, 0] = torch.nan


def _overflow_loss(training, batch):
    batch["x"][0, 0] = torch.inf


def _poison_gradient(training, batch):
    training.objective.linear.weight.register_hook(lambda gradient: gradient * torch.nan)


@pytest.mark.parametrize("spoil", [_poison_loss, _overflow_loss, _poison_gradient])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("steps_before", [0, 2])
def test_a_step_that_is_not_finite_changes_nothing(tmp_path, spoil, name, steps_before):
    training = _training(tmp_path, name=name, objective=WithStatistics())
    for _ in range(steps_before):
        train_step(training, _batches(4))
    before = _state(training)
    batches = _batches(4, 4)
    spoil(training, batches[1])
    _, is_finite = train_step(training, batches)
    assert not is_finite
    after = _state(training)
    # State that the step made itself is what an optimiser begins with: 0.
    assert all(torch.equal(value, torch.zeros_like(value)) for value in after[len(before) :])
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=False))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_after_a_step_that_was_skipped_training_goes_on_as_if_it_had_not_been(tmp_path, name):
    runs = [_training(tmp_path, name=name, objective=WithStatistics()) for _ in range(2)]
    bad = _batches(4)
    _poison_loss(runs[0], bad[0])
    train_step(runs[0], bad)
    for training in runs:
        for _ in range(3):
            train_step(training, _batches(4, 2))
    assert all(torch.equal(one, other) for one, other in zip(*map(_state, runs), strict=True))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_step_is_that_of_the_plain_optimiser(tmp_path, name):
    training = _training(tmp_path, name=name)
    plain = Regression()
    plain.load_state_dict(training.objective.state_dict())
    optimizer = build_optimizer(plain, None, training.config.optim)
    for _ in range(3):
        (batch,) = _batches(3)
        train_step(training, [batch])
        plain(batch, plain.count_valid(batch))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    ours, theirs = training.objective.state_dict(), plain.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_gradient_scaler_skips_a_loss_that_is_not_finite(tmp_path):
    training = _training(tmp_path)
    scaler = training.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    training.optimizer = AcceleratedOptimizer(training.optimizer.optimizer, scaler=scaler)
    before = [p.detach().clone() for p in training.objective.parameters()]
    batches = _batches(4)
    _overflow_loss(training, batches[0])
    _, is_finite = train_step(training, batches)
    assert not is_finite and scaler.get_scale() == 2.0
    assert all(torch.equal(p, old) for p, old in zip(training.objective.parameters(), before, strict=True))


class Log:
    """Keeps the steps that are written down."""

    seconds = 0.0
    waiting = staticmethod(contextlib.nullcontext)

    def __init__(self):
        self.advanced, self.steps, self.saved = 0, [], []

    def advance(self):
        self.advanced += 1

    def step(self, step, values, lr):
        self.steps.append(step)


def _fit(training, batches, steps, log_every=4, bad=()):
    """Train on one batch a step, some of which hold NaN; returns the steps of which a bundle is kept."""
    config, found = training.config, []
    config.schedule.steps, config.run.log_every, config.schedule.warmup_steps = steps, log_every, 0
    training.log = Log()
    training.source = BatchSource(lambda step: [[f"image_{step}"]], (4, 4))
    for step in bad:
        _poison_loss(training, batches[step - 1])
    training.score = lambda votes: {"loss": 0.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("depthseg.engine.bad_steps.write_bundle", lambda training, step, about: found.append(step))
        patch.setattr("depthseg.engine.loop._save_checkpoint", _save)
        patch.setattr("depthseg.engine.loop._score", lambda training, votes: None)
        fit(training, iter(batches))
    return found


def _save(training):
    """What a checkpoint would hold."""
    states = generator_states(training.accelerator.device)["cpu"]
    training.log.saved.append((training.progress.step, training.progress.bad_steps_in_a_row, states))


def test_steps_that_are_not_finite_are_reported_with_their_batches_and_images(tmp_path, caplog):
    training, batches = _training(tmp_path), _batches(*[4] * 9)
    found = _fit(training, batches, 9, bad=(2, 4, 7))
    assert [step.record.step for step in found] == [2, 4, 7]
    assert [step.record.micro_batches[0] is batches[step.record.step - 1] for step in found] == [True] * 3
    assert all(step.what == "loss" and math.isnan(step.value) for step in found)
    assert all(torch.equal(step.record.random_states["cpu"], torch.get_rng_state()) for step in found)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert "The loss of step 4 is nan at learning rate 0.075. Its batch: image_4. The step is left" in caplog.text
    assert training.progress.loss_steps == 6 and math.isfinite(training.progress.loss_sum)
    assert training.log.steps == [4, 8, 9] and training.log.advanced == 9


def test_a_bad_step_whose_batch_was_let_go_is_named_and_not_kept(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("depthseg.engine.loop.PendingSteps", partial(PendingSteps, largest_kept=0))
    found = _fit(_training(tmp_path), _batches(*[4] * 8), 8, bad=(2, 8))
    assert [step.record.step for step in found] == [8]
    assert "Its batch: image_2. It is not kept for replay, because later batches took its memory. The" in caplog.text


def test_the_same_run_without_its_bad_steps_has_the_same_weights(tmp_path):
    with_bad, without = _training(tmp_path), _training(tmp_path)
    batches = _batches(*[4] * 9)
    good = [{name: tensor.clone() for name, tensor in batch.items()} for batch in batches]
    with_bad.config.schedule.name = without.config.schedule.name = "constant"
    _fit(with_bad, batches, 9, bad=(2, 4, 7))
    _fit(without, [good[step] for step in range(9) if step + 1 not in (2, 4, 7)], 6)
    assert all(torch.equal(one, other) for one, other in zip(*map(_state, (with_bad, without)), strict=True))


@pytest.mark.parametrize(
    ("log_every", "saved", "row"), [(1, 2, MOST_BAD_STEPS), (4, 2, MOST_BAD_STEPS + 1), (10, 10, MOST_BAD_STEPS + 1)]
)
def test_training_stops_after_bad_steps_in_a_row_however_often_they_are_read(tmp_path, log_every, saved, row):
    training = _training(tmp_path)
    bad = range(3, 4 + MOST_BAD_STEPS)
    said = rf"nan at learning rate .* \({row} such steps in a row\).*after step {saved} is saved.*lower optim"
    with pytest.raises(FloatingPointError, match=said):
        _fit(training, _batches(*[4] * 12), 12, log_every, bad)
    assert [each[:2] for each in training.log.saved] == [(saved, 0)]


def test_what_is_saved_after_bad_steps_in_a_row_is_the_last_good_state(tmp_path):
    class Drawing(Regression):
        def forward(self, batch, num_valid=None):
            torch.rand(1)
            return super().forward(batch, num_valid)

    good, bad = (_training(tmp_path, name="adamw", objective=Drawing()) for _ in range(2))
    torch.manual_seed(1)
    _fit(good, _batches(*[4] * 2), 2)
    torch.manual_seed(1)
    with pytest.raises(FloatingPointError):
        _fit(bad, _batches(*[4] * 12), 12, 4, range(3, 9))
    assert torch.equal(bad.log.saved[0][2], good.log.saved[0][2])


def test_training_that_recovered_before_its_last_step_ends(tmp_path):
    training = _training(tmp_path)
    _fit(training, _batches(*[4] * 9), 9, 100, range(3, 3 + MOST_BAD_STEPS))
    assert training.progress.step == 9


def test_an_optimiser_that_is_not_fused_is_left_alone_by_a_bad_step():
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=False)
    weight.grad = torch.full((3,), torch.nan)
    step_if(optimizer, torch.tensor(False))
    assert torch.equal(weight, torch.ones(3)) and not optimizer.state
    weight.grad = torch.ones(3)
    step_if(optimizer, torch.tensor(True))
    torch.testing.assert_close(weight.detach(), torch.full((3,), 0.9))


@pytest.mark.parametrize("log_every", [1, 4, 100])
def test_bad_steps_with_a_good_one_among_them_do_not_stop_training(tmp_path, log_every):
    training = _training(tmp_path)
    bad = [step for step in range(1, 3 + MOST_BAD_STEPS) if step != 4]
    _fit(training, _batches(*[4] * 9), 9, log_every, bad)
    assert training.progress.step == 9 and training.progress.bad_steps_in_a_row == 0


def test_large_batches_are_let_go_and_their_steps_are_still_named():
    pending = PendingSteps(largest_kept=2 * 4 * 10)
    for step in range(1, 5):
        batch = {"x": torch.zeros(10)}
        pending.add(step, 0.1, {"loss": torch.tensor(float(step))}, torch.tensor(step != 2), {}, [batch])
    records = pending.read()
    assert [len(record.micro_batches) for record in records] == [0, 0, 1, 1]
    assert [(record.step, record.values, record.is_finite) for record in records] == [
        *((1, {"loss": 1.0}, True), (2, {"loss": 2.0}, False), (3, {"loss": 3.0}, True), (4, {"loss": 4.0}, True))
    ]
    assert pending.read() == []


def test_features_in_the_place_of_images_have_a_size():
    @dataclass
    class Features:
        maps: tuple
        size: tuple = (4, 4)

    pending = PendingSteps(largest_kept=100)
    for step in range(2):
        batch = {"pixel_values": Features((torch.zeros(10), [torch.zeros(8)])), "names": ["a"]}
        pending.add(step, 0.1, {"loss": torch.tensor(1.0)}, torch.tensor(True), {}, [batch])
    assert [len(record.micro_batches) for record in pending.read()] == [0, 1]
