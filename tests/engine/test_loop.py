"""One optimiser step against the same step written out by hand."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F

from depthseg.engine.loop import Training, train_step
from depthseg.engine.options import RunConfig
from depthseg.engine.state import Progress


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


def _training(tmp_path, max_grad_norm=0.0):
    torch.manual_seed(0)
    objective = Regression()
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    prepared, optimizer = accelerator.prepare(objective, optimizer)
    config = RunConfig()
    config.optim.max_grad_norm = max_grad_norm
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

    values, stopping = train_step(training, batches)

    assert values["loss"] == pytest.approx(expected.item(), rel=1e-6)
    assert values["half"] == pytest.approx(expected.item() / 2, rel=1e-6)
    norm = torch.cat([weight.grad.flatten(), bias.grad]).norm().item()
    assert values["grad_norm"] == pytest.approx(norm, rel=1e-6)
    assert not stopping
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


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_loss_that_is_no_number_stops_before_the_update(tmp_path, value):
    training = _training(tmp_path)
    training.progress.step = 6
    before = [p.detach().clone() for p in training.objective.parameters()]
    batches = _batches(4)
    batches[0]["x"][0, 0] = value
    with pytest.raises(FloatingPointError, match="The loss of step 7 is .* at learning rate 0.1"):
        train_step(training, batches)
    for parameter, old in zip(training.objective.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, old, rtol=0, atol=0)


def test_a_gradient_that_is_no_number_stops_before_the_update(tmp_path):
    training = _training(tmp_path)
    training.objective.linear.weight.register_hook(lambda gradient: gradient * torch.nan)
    before = training.objective.linear.bias.detach().clone()
    with pytest.raises(FloatingPointError, match="The gradient of step 1 is nan"):
        train_step(training, _batches(4))
    torch.testing.assert_close(training.objective.linear.bias, before, rtol=0, atol=0)


def test_a_request_to_stop_is_passed_on(tmp_path):
    _, stopping = train_step(_training(tmp_path), _batches(2), stop=True)
    assert stopping
