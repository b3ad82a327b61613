"""Parameter groups against a hand-made list, schedules against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from depthseg.engine.optim import build_optimizer, learning_rate_factor, set_learning_rate
from depthseg.engine.options import OptimOptions, ScheduleOptions
from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation


def _network():
    encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    return nn.ModuleDict({"encoder": encoder, "head": nn.Conv2d(4, 2, 1)}), encoder


def test_groups_split_by_part_and_by_dimension():
    network, encoder = _network()
    options = OptimOptions(lr=0.1, encoder_lr_factor=0.5, weight_decay=0.3)
    groups = {group["name"]: group for group in build_optimizer(network, encoder, options).param_groups}
    settings = {name: (len(group["params"]), group["lr"], group["weight_decay"]) for name, group in groups.items()}
    assert settings == {
        "encoder": (1, 0.05, 0.3),
        "encoder_no_decay": (3, 0.05, 0.0),
        "head": (1, 0.1, 0.3),
        "head_no_decay": (1, 0.1, 0.0),
    }
    assert groups["encoder"]["params"][0] is encoder[0].weight


class Tower(nn.Module):
    """An encoder of a stem, two layers and a norm, that says so."""

    num_layers = 3

    def __init__(self):
        super().__init__()
        self.stem, self.block1, self.block2 = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.norm = nn.BatchNorm2d(3)

    def layer_of(self, name):
        return {"stem": 0, "block1": 1, "block2": 2, "norm": 3}[name.partition(".")[0]]


def test_layers_of_the_encoder_learn_ever_slower_towards_the_image():
    encoder = Tower()
    network = nn.ModuleDict({"encoder": encoder, "head": nn.Conv2d(3, 2, 1)})
    options = OptimOptions(lr=0.1, encoder_lr_factor=0.5, layer_decay=0.8, weight_decay=0.3)
    optimizer = build_optimizer(network, encoder, options)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    for module, rate in (
        *((encoder.stem, 0.1 * 0.5 * 0.8**3), (encoder.block1, 0.1 * 0.5 * 0.8**2), (encoder.block2, 0.1 * 0.5 * 0.8)),
        (network["head"], 0.1),
    ):
        assert rates[id(module.weight)] == pytest.approx((rate, 0.3))
        assert rates[id(module.bias)] == pytest.approx((rate, 0.0))
    assert rates[id(encoder.norm.weight)] == pytest.approx((0.1 * 0.5, 0.0))
    assert set_learning_rate(optimizer, 5, ScheduleOptions(name="poly", steps=10, power=1.0)) == pytest.approx(0.05)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * 0.5 * 0.8**3)


def test_layer_decay_of_a_real_encoder():
    config = {"model_type": "depthseg_resnet", "width_factor": 0.125}
    model = DepthSegForDepthEstimation(DepthSegConfig(encoder_config=config))
    optimizer = build_optimizer(model, model.encoder, OptimOptions(lr=1.0, layer_decay=0.5))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    stages = [model.encoder.backbone.get_submodule(name) for name in ("conv1", "layer1", "layer2", "layer3", "layer4")]
    assert [{rates[id(p)] for p in stage.parameters()} for stage in stages] == [{2.0**-k} for k in (5, 4, 3, 2, 1)]
    assert len(rates) == sum(1 for p in model.parameters() if p.requires_grad)


def test_frozen_parameters_are_in_no_group():
    network, encoder = _network()
    encoder.requires_grad_(False)
    optimizer = build_optimizer(network, encoder, OptimOptions())
    assert [group["name"] for group in optimizer.param_groups] == ["head", "head_no_decay"]
    network.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(network, encoder, OptimOptions())


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_names_make_the_optimisers_of_pytorch(name, kind):
    network, encoder = _network()
    optimizer = build_optimizer(network, encoder, OptimOptions(name=name, betas=[0.5, 0.6], momentum=0.7))
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert (group["momentum"] == 0.7) if name == "sgd" else (group["betas"] == (0.5, 0.6))


def _rates(make_scheduler, steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make_scheduler(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_schedules_equal_those_of_pytorch():
    pairs = {
        "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=10),
        "poly": lambda optimizer: lr_scheduler.PolynomialLR(optimizer, total_iters=10, power=0.9),
        "constant": lambda optimizer: lr_scheduler.ConstantLR(optimizer, factor=1.0),
    }
    for name, make_scheduler in pairs.items():
        schedule = ScheduleOptions(name=name, steps=10, power=0.9)
        ours = [learning_rate_factor(step, schedule) for step in range(10)]
        assert ours == pytest.approx(_rates(make_scheduler, 10), abs=1e-12)


def test_warm_up_rises_evenly_then_the_curve_begins():
    schedule = ScheduleOptions(name="poly", steps=9, warmup_steps=4, power=1.0)
    factors = [learning_rate_factor(step, schedule) for step in range(9)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_each_group_keeps_its_share_of_the_rate():
    network, encoder = _network()
    optimizer = build_optimizer(network, encoder, OptimOptions(lr=0.2, encoder_lr_factor=0.5))
    lr = set_learning_rate(optimizer, 5, ScheduleOptions(name="poly", steps=10, power=1.0))
    assert lr == pytest.approx(0.1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.05, 0.1, 0.1])
