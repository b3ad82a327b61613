"""A frozen encoder does not change, whatever is called on the model."""

from __future__ import annotations

import hashlib

import pytest
import torch
from models.tiny_models import TASKS, make_labels, tiny_model
from rounding import assert_same_up_to_rounding


def fingerprint(module: torch.nn.Module) -> str:
    """A hash over every parameter and every buffer, those that are not saved included."""
    digest = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def train_some_steps(model, task: str) -> None:
    # All parameters, as a careless loop would hand them over; weight decay moves those that have a gradient.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(3):
        model.train()
        model(torch.randn(2, 3, 57, 101), labels=make_labels(task, 2, 57, 101)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("task", TASKS)
def test_frozen_encoder_keeps_every_parameter_and_statistic(task):
    model = tiny_model(task)
    model.freeze_encoder()
    encoder, head = fingerprint(model.encoder), fingerprint(model.head)
    train_some_steps(model, task)
    assert fingerprint(model.encoder) == encoder
    assert fingerprint(model.head) != head
    assert model.training and model.head.training and not model.encoder.training


def test_without_freezing_parameters_and_statistics_change():
    model = tiny_model("depth")
    before = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    train_some_steps(model, "depth")
    after = model.encoder.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_the_output_of_a_frozen_encoder_does_not_depend_on_the_batch():
    model = tiny_model("depth")
    model.freeze_encoder()
    model.train()
    images = torch.randn(4, 3, 57, 101)
    for alone, together in zip(model.encoder(images[:1]).maps, model.encoder(images).maps, strict=True):
        assert_same_up_to_rounding(alone[0], together[0])


def test_a_kept_depth_predictor_is_not_trained_by_labels():
    model = tiny_model("segmentation", keep_depth=True)
    before = fingerprint(model.depth_predictor)
    train_some_steps(model, "segmentation")
    assert fingerprint(model.depth_predictor) == before
