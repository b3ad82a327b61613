"""Parameter groups against a hand-made list, schedules against PyTorch's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from depthseg.engine.optim import build_optimizer, learning_rate_factor, set_learning_rate
from depthseg.engine.options import OptimOptions, ScheduleOptions
from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation, DepthSegForSemanticSegmentation


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


def test_norms_positions_and_queries_have_multipliers_of_their_own():
    encoder = {"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    head = {"channels": 32, "num_attention_heads": 2, "pixel_layers": 1, "decoder_layers": 1, "num_queries": 5}
    config = DepthSegConfig(encoder_config=encoder, head_type="mask2former", head_config=head, num_labels=3)
    model = DepthSegForSemanticSegmentation(config)
    plain = OptimOptions(lr=1.0, encoder_lr_factor=0.1, weight_decay=0.5)
    options = replace(plain, norm_lr_factor=0.2, norm_decay_factor=0.4, position_lr_factor=0.3)
    options = replace(options, position_decay_factor=0.0, query_lr_factor=0.6, query_decay_factor=0.8)
    before, after = (rates_by_name(model, given) for given in (plain, options))
    norm, position = "encoder.backbone.encoder.layer.0.norm1.weight", "encoder.backbone.embeddings.position_embeddings"
    queries = [f"head.decoders.transformer_module.queries_{name}.weight" for name in ("embedder", "features")]
    levels = ["head.decoders.pixel_decoder.level_embed", "head.decoders.transformer_module.level_embed.weight"]
    assert before[norm] == pytest.approx((0.1, 0.0)) and after[norm] == pytest.approx((0.02, 0.2))
    assert after["head.pyramid.levels.0.1.bias"] == pytest.approx((0.2, 0.2))  # a BatchNorm
    assert before[position] == pytest.approx((0.1, 0.5)) and after[position] == pytest.approx((0.03, 0.0))
    for name in (*queries, *levels):
        assert before[name] == pytest.approx((1.0, 0.5)) and after[name] == pytest.approx((0.6, 0.4))
    # Nothing else, such as the matrix that makes the queries of an attention, is moved.
    changed = {name for name in before if before[name] != after[name]}
    own_norms = {name for name in changed if "norm" in name or name.startswith("head.")}
    assert changed - own_norms == {position}
    assert not any("attention." in name or "proj." in name or "classifier" in name for name in changed)
    optimizer = build_optimizer(model, model.encoder, options)
    assert len(rates_by_name(model, options)) == sum(1 for p in model.parameters() if p.requires_grad)
    # What is logged stays the rate of the head.
    assert set_learning_rate(optimizer, 0, ScheduleOptions(name="constant")) == 1.0


def rates_by_name(model: nn.Module, options: OptimOptions) -> dict[str, tuple[float, float]]:
    groups = build_optimizer(model, model.encoder, options).param_groups
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    return {name: rates[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def test_multipliers_of_mask_queries_and_relative_positions():
    encoder = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    head = {"channels": 8, "num_attention_heads": 2, "num_layers": 1}
    config = DepthSegConfig(encoder_config=encoder, head_type="mask_queries", head_config=head, num_labels=3)
    model = DepthSegForSemanticSegmentation(config)
    options = OptimOptions(lr=1.0, weight_decay=0.5, position_decay_factor=0.0, query_decay_factor=0.0)
    rates = rates_by_name(model, options)
    still = {name for name, (_, decay) in rates.items() if decay == 0 and model.get_parameter(name).ndim > 1}
    tables = {name for name in rates if name.endswith("relative_position_bias_table")}
    assert len(tables) == 4 and still == tables | {"head.queries.weight"}


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
