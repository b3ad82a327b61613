"""Optical flow, inpainting and classification on the encoders and heads of depth."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from models.test_contract import file_contents, fixed_parameters
from models.test_freezing import fingerprint
from models.tiny_models import NUM_LABELS, PRETEXT_TASKS, TASKS, TINY_ENCODERS, TINY_HEADS, scramble, tiny_config
from models.tiny_models import tiny_model as any_model
from PIL import Image
from rounding import assert_same_up_to_rounding
from torch.nn import functional as F
from transformers import AutoModelForImageClassification, AutoModelForImageToImage, pipeline

from depthseg import DepthSegConfig, DepthSegImageProcessor
from depthseg.models import HEADS

DENSE = ("flow", "reconstruction")
CROSSED_ENCODERS = ("depthseg_resnet", "vit")
# By default an encoder whose CLS token DPT reads and one of convolutions; the whole tables are heavy.
CHOSEN = [(e, h, t) for e in CROSSED_ENCODERS for h in ("monodepth2", "dpt", "linear") for t in DENSE]
EVERY = [
    pytest.param(combination, marks=() if combination in CHOSEN else pytest.mark.heavy)
    for combination in product(TINY_ENCODERS, TINY_HEADS, DENSE)
    if (combination[0] in CROSSED_ENCODERS or combination[1] == "dpt") and "depth" in HEADS[combination[1]].tasks
]
SIZE = (57, 101)


def tiny_model(task: str, *names: str, **options):
    return any_model(task, *names, **options).eval()


def predict(model, task: str, first: torch.Tensor, second: torch.Tensor | None = None):
    if task == "flow":
        output = model(first, first.flip(-1) if second is None else second)
        return output.flow, output.flow_maps
    output = model(first)
    return (output.logits, ()) if task == "classification" else (output.reconstruction, output.reconstruction_maps)


@pytest.mark.parametrize("combination", EVERY, ids="-".join)
def test_maps_cover_images_of_any_size_and_stay_in_their_range(combination):
    encoder, head, task = combination
    model = tiny_model(task, encoder, head)
    for height, width in (SIZE, (64, 96)):
        finest, maps = predict(model, task, 3 * torch.randn(2, 3, height, width))
        channels = 2 if task == "flow" else 3
        assert finest.shape == (2, channels, height, width) and finest.isfinite().all()
        depth = any_model("depth", encoder, head).eval()(torch.randn(1, 3, height, width))
        assert len(maps) == len(depth.raw_maps)
        padded = height % model.encoder.multiple or width % model.encoder.multiple
        for scale, raw in zip(maps, depth.raw_maps, strict=True):
            assert scale.shape[-2:] == ((height, width) if padded else raw.shape[-2:])
        if task == "flow":
            assert (maps[0].abs() < torch.tensor([0.2 * width, 0.2 * height])[:, None, None]).all()
        else:
            assert 0 <= finest.min() and finest.max() <= 1
        assert_same_up_to_rounding(finest, F.interpolate(maps[0], (height, width), mode="bilinear"))


@pytest.mark.parametrize("task", DENSE)
@torch.no_grad()
def test_padding_repeats_the_border_and_is_cropped_again(task):
    model = tiny_model(task, "vit", "dpt")
    images = np.random.default_rng(0).normal(size=(2, 1, 3, *SIZE)).astype(np.float32)
    padded = np.pad(images, [(0, 0)] * 3 + [(0, 7), (0, 11)], mode="edge")
    finest, maps = predict(model, task, *torch.from_numpy(images))
    expected, _ = predict(model, task, *torch.from_numpy(padded))
    if task == "flow":
        # Shares of the size of the image as given.
        expected = expected * torch.tensor([101 / 112, 57 / 64])[:, None, None]
    assert_same_up_to_rounding(maps[0], expected[..., :57, :101])
    assert_same_up_to_rounding(finest, expected[..., :57, :101])


@pytest.mark.parametrize("combination", CHOSEN, ids="-".join)
def test_exactly_the_trainable_parameters_get_a_gradient(combination):
    check_gradients(*combination)


@pytest.mark.parametrize("encoder", CROSSED_ENCODERS)
def test_exactly_the_trainable_parameters_of_a_classifier_get_a_gradient(encoder):
    check_gradients(encoder, "linear", "classification")


def check_gradients(encoder: str, head: str, task: str) -> None:
    model = any_model(task, encoder, head).train()
    built_fixed = {f"encoder.backbone.{name}" for name in fixed_parameters(model)}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in built_fixed)
    finest, maps = predict(model, task, torch.randn(2, 3, *SIZE))
    sum((torch.rand_like(scale) * scale).sum() for scale in maps or (finest,)).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached.isdisjoint(frozen)
    assert reached | frozen == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("task", PRETEXT_TASKS)
@pytest.mark.parametrize("encoder", CROSSED_ENCODERS)
@torch.no_grad()
def test_bfloat16_autocast_stays_near_float32(encoder, task):
    model, image = tiny_model(task, encoder, "dpt"), torch.randn(1, 3, *SIZE)
    exact, _ = predict(model, task, image)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = predict(model, task, image)
    assert rounded.isfinite().all()
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.05 * exact.abs().max().item())


@torch.no_grad()
def test_flow_is_a_share_of_the_width_to_the_side_and_of_the_height_down():
    for flow_range in (0.2, 0.05):
        model = tiny_model("flow", flow_range=flow_range)
        for predictor in model.pretext_head.predictor:
            predictor.conv.weight.zero_()
            predictor.conv.bias.copy_(torch.tensor([0.7, -1.1]))
        finest, maps = predict(model, "flow", torch.randn(1, 3, *SIZE))
        for scale in (finest, *maps):
            for channel, (bias, side) in enumerate([(0.7, 101), (-1.1, 57)]):
                expected = flow_range * (2 / (1 + math.exp(-bias)) - 1) * side
                assert_same_up_to_rounding(scale[:, channel], torch.full_like(scale[:, channel], expected))


@pytest.mark.parametrize(("encoder", "head"), [("depthseg_resnet", "monodepth2"), ("vit", "dpt")])
@torch.no_grad()
def test_the_decoder_reads_the_maps_of_both_images_side_by_side(encoder, head):
    model = tiny_model("flow", encoder, head)
    for name, parameter in model.named_parameters():
        # Else a CLS token, which knows little of its image at first, may be swapped for another one's unnoticed.
        if "attention" in name or "readout" in name:
            parameter.add_(0.5 * torch.randn_like(parameter))
    first, second = torch.randn(2, 2, 3, 64, 96).unbind()
    here, there = model.encoder(first), model.encoder(second)
    here.maps = [torch.cat(pair, 1) for pair in zip(here.maps, there.maps, strict=True)]
    if here.prefix_tokens:
        here.prefix_tokens = [torch.cat(pair, 2) for pair in zip(here.prefix_tokens, there.prefix_tokens, strict=True)]
    (predictor, *_), (level, *_) = model.pretext_head.predictor, model.pretext_head.body(here)
    expected = (predictor(level).sigmoid() - 0.5) * 0.4 * torch.tensor([96, 64])[:, None, None]
    output = model(first, second)
    assert_same_up_to_rounding(output.flow, expected)
    assert (output.flow - model(second, first).flow).abs().max() > 1e-3
    # One pair does not know of the other.
    assert_same_up_to_rounding(model(first[1:], second[1:]).flow, output.flow[1:])


def test_statistics_are_those_of_both_images_together():
    model = any_model("flow").train()
    first, second = torch.randn(2, 3, 32, 64), 3 + torch.randn(2, 3, 32, 64)
    with torch.no_grad():
        maps = model.encoder.backbone.conv1(torch.cat([first, second]))
    model(first, second)
    norm = model.encoder.backbone.bn1
    assert_same_up_to_rounding(norm.running_mean, norm.momentum * maps.mean((0, 2, 3)))
    assert norm.num_batches_tracked == 1


@torch.no_grad()
def test_a_classifier_is_a_linear_layer_on_the_mean_of_the_deepest_map():
    model = tiny_model("classification")
    image = torch.randn(2, 3, 64, 96)
    deepest = model.encoder(image).maps[-1].double().numpy()
    layer = model.pretext_head
    expected = deepest.mean((2, 3)) @ layer.weight.double().numpy().T + layer.bias.double().numpy()
    np.testing.assert_allclose(model(image).logits.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert model(image).logits.shape == (2, NUM_LABELS) and model(image).loss is None


def test_a_classifier_serves_the_pipeline(tmp_path):
    names = {0: "car", 1: "person", 2: "tree"}
    model = tiny_model("classification", num_labels=3, id2label=names)
    processor = DepthSegImageProcessor(size={"height": 32, "width": 48})
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    found = pipeline("image-classification", str(tmp_path), device="cpu")(Image.fromarray(image))
    with torch.no_grad():
        scores = model(**processor(images=[image], return_tensors="pt")).logits.softmax(1)[0]
    assert {row["label"]: row["score"] for row in found} == pytest.approx(
        {names[number]: score for number, score in enumerate(scores.tolist())}, rel=1e-5
    )


@pytest.mark.parametrize("task", PRETEXT_TASKS)
@pytest.mark.parametrize(("encoder", "head"), [("depthseg_resnet", "monodepth2"), ("vit", "dpt")])
def test_saving_and_loading_gives_the_same_model_and_the_same_files(encoder, head, task, tmp_path):
    model = scramble(tiny_model(task, encoder, head))
    model.save_pretrained(tmp_path / "first")
    loaded = type(model).from_pretrained(tmp_path / "first")
    assert loaded.transfer_report.is_reload and loaded.config.weight_lineage is None and not loaded.training
    image = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        assert_same_up_to_rounding(predict(loaded, task, image)[0], predict(model, task, image)[0])
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in loaded.parameters()]
    loaded.save_pretrained(tmp_path / "second")
    assert file_contents(tmp_path / "first") == file_contents(tmp_path / "second")


def test_auto_classes_know_reconstruction_and_classification(tmp_path):
    tiny_model("depth").save_pretrained(tmp_path)
    assert type(AutoModelForImageToImage.from_pretrained(tmp_path)) is PRETEXT_TASKS["reconstruction"]
    model = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=7)
    assert type(model) is PRETEXT_TASKS["classification"] and model.pretext_head.out_features == 7


@pytest.mark.parametrize("task", PRETEXT_TASKS)
def test_a_frozen_encoder_keeps_every_parameter_and_statistic(task):
    model = any_model(task)
    model.freeze_encoder()
    model.train()
    encoder, rest = fingerprint(model.encoder), fingerprint(model.pretext_head)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    predict(model, task, torch.randn(2, 3, 32, 64))[0].square().sum().backward()
    optimizer.step()
    assert fingerprint(model.encoder) == encoder and fingerprint(model.pretext_head) != rest


@pytest.mark.parametrize("task", DENSE)
def test_the_native_head_is_refused(task):
    config = DepthSegConfig(encoder_config=dict(TINY_ENCODERS["dinov2"]), head_type="native")
    with pytest.raises(ValueError, match="head_type is 'native', the decoder of a depth model of transformers"):
        PRETEXT_TASKS[task](config)


def test_images_of_different_size_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(1, 3, 32, 64\) and \(1, 3, 64, 64\); they must be equal"):
        tiny_model("flow")(torch.randn(1, 3, 32, 64), torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("task", PRETEXT_TASKS)
@torch.no_grad()
def test_half_precision_weights_and_hidden_states(task):
    model = tiny_model(task).to(torch.bfloat16)
    images = [torch.randn(2, 3, 64, 96)] * (2 if task == "flow" else 1)
    output = model(*images, output_hidden_states=True)
    assert output.to_tuple()[0].isfinite().all()
    assert output.to_tuple()[0].dtype == (torch.float32 if task == "flow" else torch.bfloat16)
    width = 2 if task == "flow" else 1
    assert [state.shape[1] for state in output.hidden_states] == [width * c for c in model.encoder.channels]
    assert model(*images).hidden_states is None
    assert torch.equal(model(*images, return_dict=False)[0], output.to_tuple()[0])


def test_decoders_have_no_name_in_common_with_depth_and_labels():
    own = {name.partition(".")[0] for task in TASKS for name, _ in any_model(task).named_parameters()}
    others = {name.partition(".")[0] for task in PRETEXT_TASKS for name, _ in any_model(task).named_parameters()}
    assert own & others == {"encoder"} and others == {"encoder", "pretext_head"}


def test_a_classifier_does_not_ask_what_head_comes_later():
    config = tiny_config("dinov2", "linear", head_config=None)
    config.head_type, config.head_config = "native", {"family": "dpt"}
    assert PRETEXT_TASKS["classification"](config).pretext_head.in_features == 16
