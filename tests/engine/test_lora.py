"""Adapters: where they go, what they change, and that nothing is lost when they are saved, merged or resumed."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from engine.test_before_after import write_depth_anything
from engine.tiny_run import SIZE, Blocks, tiny_config
from models.tiny_models import NUM_LABELS, TINY_ENCODERS, make_labels, tiny_model
from rounding import assert_same_up_to_rounding
from safetensors.torch import load_file, save_file

from depthseg import DepthSegForSemanticSegmentation
from depthseg.engine.build import build_model
from depthseg.engine.config import load_config
from depthseg.engine.evaluation import evaluate_model
from depthseg.engine.lora import adapted_layers, add_adapters, load_adapted, merged_weights, save_weights
from depthseg.engine.options import LoraOptions
from depthseg.engine.predict import load_model
from depthseg.engine.run import train
from depthseg.hub.record import read_run
from depthseg.models.encoders_layers_depthseg import holds_attention


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_depth_anything(tmp_path_factory.mktemp("base"))


def config_of(base, run_dir, *overrides):
    own = ["model.encoder=null", f"model.pretrained={base}", "model.lora.rank=2", "data.size=[28,56]"]
    return tiny_config(run_dir, *own, "schedule.steps=3", "optim.lr=1e-2", *overrides)


def run(base, run_dir, *overrides):
    return train(config_of(base, run_dir, *overrides), Blocks(6), Blocks(2, seed=1))


def adapted(base, *overrides, noise=0.1):
    """A model with adapters that do something."""
    config = config_of(base, "unused", *overrides)
    torch.manual_seed(0)
    model, _ = build_model(config, Blocks(2))
    for module in adapted_layers(model).values():
        torch.nn.init.normal_(module.lora_B["default"].weight, std=noise)
    return config, model.eval()


@torch.no_grad()
def logits(model):
    return model(torch.linspace(-1, 1, 3 * SIZE[0] * SIZE[1]).reshape(1, 3, *SIZE)).logits


def test_adapters_are_on_attention_and_mlp_alone_and_the_head_is_trained(base):
    plain, _ = build_model(config_of(base, "unused", "model.lora.rank=0"), Blocks(2))
    torch.manual_seed(0)
    model, _ = build_model(config_of(base, "unused"), Blocks(2))
    layers = set(adapted_layers(model))
    # Of a layer of DINOv2: query, key, value, the projection after attention, and two of the MLP.
    assert len(layers) == 4 * 6 and all(name.startswith("encoder.backbone.encoder.layer") for name in layers)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if name.startswith("encoder")} == {
        f"{name}.lora_{part}.default.weight" for name in layers for part in "AB"
    }
    before = {name for name, parameter in plain.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if not name.startswith("encoder")} == {
        name for name in before if not name.startswith("encoder")
    }
    assert torch.equal(logits(model.eval())[:, :0], logits(plain.eval())[:, :0])
    pixels = torch.randn(1, 3, 28, 42)
    for ours, theirs in zip(model.encoder(pixels).maps, plain.encoder(pixels).maps, strict=True):
        assert torch.equal(ours, theirs)


def test_merged_weights_are_base_plus_scaled_product_computed_by_hand(base):
    config, model = adapted(base, "model.lora.alpha=6")
    expected = logits(model)
    merged = merged_weights(model)
    name, layer = next(iter(adapted_layers(model).items()))
    product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert_same_up_to_rounding(merged[f"{name}.weight"], layer.base_layer.weight + 6 / 2 * product)
    plain, _ = build_model(load_config(None, [f"model.pretrained={base}", "data.size=[28,56]"]), Blocks(2))
    assert merged.keys() == plain.state_dict().keys()
    different = logits(plain.eval())
    plain.load_state_dict(merged)
    assert_same_up_to_rounding(logits(plain), expected)
    assert (different - expected).abs().max() > 1e-3
    assert torch.equal(logits(model), expected)  # which stays as it was


@pytest.mark.parametrize("merge", ["true", "false"])
def test_what_is_saved_gives_the_logits_of_what_was_trained(base, tmp_path, merge):
    config, model = adapted(base, f"model.lora.merge={merge}")
    save_weights(model, tmp_path, config.model)
    assert (tmp_path / "model.safetensors").exists() == (merge == "true")
    if merge == "true":
        found = DepthSegForSemanticSegmentation.from_pretrained(tmp_path)
    else:
        found = load_adapted(DepthSegForSemanticSegmentation, tmp_path)
    assert not adapted_layers(found) and not found.training
    assert_same_up_to_rounding(logits(found), logits(model))


def test_peft_itself_reads_the_adapters(base, tmp_path):
    """Head, classifier and statistics of norms among them."""
    peft = pytest.importorskip("peft")
    config, model = adapted(base, "model.lora.merge=false")
    save_weights(model, tmp_path, config.model)
    about = json.loads((tmp_path / "adapter_config.json").read_text())
    assert about["base_model_name_or_path"] == str(base)
    torch.manual_seed(1)
    plain, _ = build_model(load_config(None, [f"model.pretrained={base}", "data.size=[28,56]"]), Blocks(2))
    assert_same_up_to_rounding(logits(peft.PeftModel.from_pretrained(plain, str(tmp_path)).eval()), logits(model))


@pytest.mark.parametrize("merge", ["true", "false"])
def test_a_run_is_evaluated_as_it_is_loaded_and_names_its_base(base, tmp_path, merge):
    result = run(base, tmp_path / "run", f"model.lora.merge={merge}")
    model, processor = load_model(result.model_dir, device="cpu")
    if merge == "true":
        assert base.name in read_run(tmp_path / "run").lineage.ancestors[0][0]
    config = json.loads((result.model_dir / "config.json").read_text())
    assert config["weight_lineage"][0]["source"].endswith(base.name) and processor.size["width"] == 56
    found = evaluate_model(model, processor, Blocks(2, seed=1), "segmentation")
    assert found["mean_iou"] == pytest.approx(result.scores["mean_iou"], abs=2e-3)


def test_a_resumed_run_ends_as_the_one_that_was_not_interrupted(base, tmp_path):
    whole = run(base, tmp_path / "whole", "model.lora.dropout=0.2")
    options = ("model.lora.dropout=0.2", "run.checkpoint_every=2")
    uninterrupted = run(base, tmp_path / "parts", *options)
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step_3")
    resumed = run(base, tmp_path / "parts", *options, "run.resume=true")
    for other in (uninterrupted, resumed):
        assert other.scores["mean_iou"] == whole.scores["mean_iou"]
        assert (other.model_dir / "model.safetensors").read_bytes() == (
            whole.model_dir / "model.safetensors"
        ).read_bytes()


def test_the_fixed_weights_of_the_encoder_do_not_move(base, tmp_path):
    result = run(base, tmp_path / "run", "model.lora.merge=false", "optim.layer_decay=0.5")
    plain, _ = build_model(load_config(None, [f"model.pretrained={base}", "data.size=[28,56]"]), Blocks(2))
    model, _ = load_model(result.model_dir, device="cpu")
    norm = "backbone.encoder.layer.0.norm1.weight"
    assert torch.equal(model.encoder.state_dict()[norm], plain.encoder.state_dict()[norm])
    after = model.encoder.state_dict()
    moved = [name for name, value in plain.encoder.state_dict().items() if not after[name].equal(value)]
    assert len(moved) == 4 * 6 and all(name.endswith("weight") for name in moved)


def test_targets_are_ends_of_names(base):
    _, model = adapted(base, "model.lora.targets=[q_proj, attention.v_proj]")
    ends = {name.rpartition(".")[2] for name in adapted_layers(model)}
    # Names as transformers 5 has them.
    assert ends == {"q_proj", "v_proj"} and len(adapted_layers(model)) == 8


def test_what_cannot_be_adapted_is_told_in_a_sentence(base, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"nothing to adapt\. No layer has a name .*\['nose'\].* q_proj"):
        adapted(base, "model.lora.targets=[nose]")
    resnet = train(tiny_config(tmp_path / "resnet", "schedule.steps=1"), Blocks(6), Blocks(2, seed=1))
    with pytest.raises(ValueError, match="It has no attention: name the layers"):
        adapted(resnet.model_dir)
    with pytest.raises(ValueError, match="model.pretrained is null"):
        tiny_config("unused", "model.lora.rank=2")
    with pytest.raises(ValueError, match="trains nothing of it"):
        config_of(base, "unused", "model.freeze_encoder=true")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"depthseg\[lora\]"):
        adapted(base)


def test_convolutions_are_adapted_where_they_are_named_and_their_norm_statistics_are_kept(tmp_path):
    first = train(tiny_config(tmp_path / "resnet", "schedule.steps=1"), Blocks(6), Blocks(2, seed=1))
    options = ("model.lora.targets=[conv1, conv2]", "model.lora.merge=false")
    result = run(first.model_dir, tmp_path / "run", *options)
    model, _ = load_model(result.model_dir, device="cpu")
    before = DepthSegForSemanticSegmentation.from_pretrained(first.model_dir).state_dict()
    statistics = [name for name in before if name.startswith("encoder") and name.endswith("running_mean")]
    assert statistics and not any(torch.equal(before[name], model.state_dict()[name]) for name in statistics)


def test_adapters_are_no_base_of_another_run(base, tmp_path):
    result = run(base, tmp_path / "run", "model.lora.merge=false")
    with pytest.raises(ValueError, match="holds adapters, not a whole model"):
        build_model(config_of(result.model_dir, "unused"), Blocks(2))
    with pytest.raises(ValueError, match=r"holds adapters of .*depthseg publish"):
        read_run(tmp_path / "run")
    weights = result.model_dir / "adapter_model.safetensors"
    tensors = load_file(weights)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, weights)
    with pytest.raises(ValueError, match="1 tensors are missing or unknown"):
        load_model(result.model_dir)


@pytest.mark.parametrize("name", TINY_ENCODERS)
def test_every_encoder_with_attention_is_adapted_where_each_adapter_gets_a_gradient(name):
    """Distributed training would wait for ever for one that gets none."""
    torch.manual_seed(0)
    model = tiny_model("segmentation", name, "dpt").train()
    if not holds_attention(model.encoder):
        with pytest.raises(ValueError, match="It has no attention"):
            add_adapters(model, LoraOptions(rank=2))
        return
    add_adapters(model, LoraOptions(rank=2))
    pixels, labels = torch.randn(2, 3, 64, 64), make_labels("segmentation", 2, 64, 64)
    assert labels.max() >= NUM_LABELS - 1
    model(pixel_values=pixels, labels=labels).loss.backward()
    layers = adapted_layers(model)
    silent = [layer for layer, module in layers.items() if module.lora_B["default"].weight.grad is None]
    assert layers and not silent
