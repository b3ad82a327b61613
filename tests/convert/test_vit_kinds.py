"""Published vision transformers and depth networks on them: the converted model gives the published output."""

import argparse
import json
import re

import pytest
import torch
from convert.vit_networks import WIDTH, DepthAnything, DepthAnything3, DinoV3, DptHybrid, DptLarge, SwiGlu, Vit
from safetensors.torch import load_file
from torch import nn

from depthseg import DepthSegForDepthEstimation, DepthSegForSemanticSegmentation, DepthSegImageProcessor
from depthseg.convert.converted import ConvertOptions
from depthseg.convert.reading import read_source
from depthseg.convert.saving import convert
from depthseg.models import check_input_scaling

LAST_FOUR, SPREAD = (8, 9, 10, 11), (2, 5, 8, 11)


def made(build, *arguments, **options):
    """A network with weights that matter in every tensor, and an output of about 1."""
    torch.manual_seed(0)
    network = build(*arguments, **options).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.1, 0.1)
            elif "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return network


def image_of(side):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def largest_difference(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@torch.no_grad()
def converted_depth(path, tmp_path, kind=None, **options):
    """Convert a file and load the result, as a user does."""
    folder = tmp_path / "converted"
    convert([path], folder, kind, ConvertOptions(**options))
    model = DepthSegForDepthEstimation.from_pretrained(folder)
    check_input_scaling(model.config, DepthSegImageProcessor.from_pretrained(folder))
    return model, json.loads((folder / "conversion.json").read_text())


WRAPPINGS = {
    "plain": lambda weights: weights,
    "model": lambda weights: {"model": weights, "optimizer": {"state": {}}, "epoch": 3},
    "module": lambda weights: {"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}},
    "model and module": lambda weights: {"model": {f"module.{name}": tensor for name, tensor in weights.items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapped_weights_are_found(tmp_path, wrapping):
    weights = {"pretrained.norm.bias": torch.arange(3.0), "depth_head.projects.0.bias": torch.ones(2)}
    torch.save(WRAPPINGS[wrapping](weights), tmp_path / "file.pth")
    found = read_source([tmp_path / "file.pth"]).tensors
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("file", "kind", "layers", "wrapping"),
    [
        ("depth_anything_vits14.pth", "depth-anything-1", LAST_FOUR, "plain"),
        ("depth_anything_v2_vits.pth", "depth-anything-2", SPREAD, "model and module"),
    ],
)
@torch.no_grad()
def test_depth_anything_is_relative_inverse_depth(tmp_path, wrapping, file, kind, layers):
    network = made(DepthAnything, layers)
    # Depth that is positive in most places, so that the ReLU at the end hides nothing.
    network.depth_head.scratch.output_conv2[2].bias += 1
    torch.save(WRAPPINGS[wrapping](network.state_dict()), tmp_path / file)
    model, report = converted_depth(tmp_path / file, tmp_path)
    image = image_of(56)
    theirs = network(image)
    assert (theirs > 0).float().mean() > 0.5
    assert largest_difference(model(image).predicted_depth, theirs.relu()) < 1e-5
    assert (report["kind"], model.config.depth_type) == (kind, "relative_inverse")
    assert model.config.depth_loss == "ssi"
    assert not report["left_out"] and not report["filled_with_zero"]


@torch.no_grad()
def test_a_metric_depth_anything_needs_its_range(tmp_path):
    network = made(DepthAnything, SPREAD)
    path = tmp_path / "depth_anything_v2_Metric_hypersim_vits.pth"
    torch.save(network.state_dict(), path)
    with pytest.raises(ValueError, match=r"give --max-depth in metres. Published are 20 .* and 80"):
        converted_depth(path, tmp_path)
    model, _ = converted_depth(path, tmp_path, max_depth=20.0)
    image = image_of(56)
    assert largest_difference(model(image).predicted_depth, 20 * network(image).sigmoid()) < 1e-5
    assert model.config.depth_loss == "silog"


@torch.no_grad()
def test_a_checkpoint_of_metric_training_is_not_taken_as_relative(tmp_path):
    """As Depth Anything 2's metric training saves it: `latest.pth`, with the best scores beside the weights."""
    network = made(DepthAnything, SPREAD)
    weights = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    scores = ("d1", "d2", "d3", "abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog")
    path = tmp_path / "latest.pth"
    torch.save(
        {"model": weights, "optimizer": {"state": {}}, "epoch": 3, "previous_best": dict.fromkeys(scores, 0.5)}, path
    )
    with pytest.raises(ValueError, match=r"latest is a metric network by its training.*give --max-depth in metres"):
        converted_depth(path, tmp_path)
    model, report = converted_depth(path, tmp_path, max_depth=20.0)
    image = image_of(56)
    assert largest_difference(model(image).predicted_depth, 20 * network(image).sigmoid()) < 1e-5
    assert (report["kind"], report["depth"]) == ("depth-anything-2", "metres, 20 at most")


@pytest.mark.parametrize(
    ("file", "kind", "says"),
    [
        ("depth_anything_v2_vits.pth", None, True),
        ("depth_anything_vits14.pth", None, True),
        ("my_v2_run.pth", None, False),
        ("mine.pth", "depth-anything-1", False),
    ],
)
def test_depth_that_is_assumed_to_be_relative_is_said_so(tmp_path, file, kind, says):
    torch.save(made(DepthAnything, SPREAD).state_dict(), tmp_path / file)
    text = convert([tmp_path / file], tmp_path / "out", kind)
    (line,) = [line for line in text.splitlines() if line.startswith("depth ")]
    assert "inverse depth up to scale and shift" in line
    assert ("was taken as relative" in line and "--max-depth METRES" in line) is not says


def test_a_network_of_one_file_is_not_taken_from_two(tmp_path):
    paths = [tmp_path / f"depth_anything_v2_{name}.pth" for name in ("one", "two")]
    for path in paths:
        torch.save(made(DepthAnything, SPREAD).state_dict(), path)
    with pytest.raises(ValueError, match="depth-anything-2 is in one file, and these are 2; give one of them"):
        convert(paths, tmp_path / "out", "depth-anything-2")
    assert not (tmp_path / "out").exists()


def test_a_file_that_does_not_say_its_version_asks_for_it(tmp_path):
    path = tmp_path / "mine.pth"
    torch.save(made(DepthAnything, SPREAD).state_dict(), path)
    with pytest.raises(ValueError, match="depth-anything-1 and depth-anything-2 and does not say which.*--from"):
        converted_depth(path, tmp_path)
    model, _ = converted_depth(path, tmp_path, "depth-anything-1")
    assert list(model.config.encoder_config.out_indices) == [9, 10, 11, 12]


@torch.no_grad()
def test_zoedepth_gives_its_relative_network(tmp_path):
    network = made(DepthAnything, LAST_FOUR)
    weights = {f"module.core.core.{name}": tensor for name, tensor in network.state_dict().items()}
    bins = {"module.conditional_log_binomial.mlp.0.weight": torch.zeros(3), "module.conv2.weight": torch.zeros(2)}
    path = tmp_path / "depth_anything_metric_depth_outdoor.pt"
    torch.save({"model": weights | bins}, path)
    with pytest.raises(ValueError, match="does not go with ZoeDepth's metric bins"):
        converted_depth(path, tmp_path, max_depth=80.0)
    model, report = converted_depth(path, tmp_path)
    image = image_of(56)
    ours = model.depth_predictor[0](model.head(model.encode(image))[0])[:, 0]
    assert largest_difference(ours, network(image)) < 1e-5
    assert report["left_out"].keys() == bins.keys()


def test_the_core_of_zoedepth_alone(tmp_path):
    weights = made(DepthAnything, LAST_FOUR).state_dict()
    path = tmp_path / "depth_anything_v1_mine.pth"
    torch.save({f"core.core.{name}": tensor for name, tensor in weights.items()}, path)
    _, report = converted_depth(path, tmp_path, "depth-anything-1")
    assert {entry["from"] for entry in report["tensors"]} == {f"core.core.{name}" for name in weights}


@torch.no_grad()
def test_depth_anything_3_is_exponential_depth(tmp_path):
    from safetensors.torch import save_file

    network = made(DepthAnything3)
    path = tmp_path / "model.safetensors"
    save_file({f"model.{name}": tensor for name, tensor in network.state_dict().items()}, path)
    model, report = converted_depth(path, tmp_path)
    image = image_of(56)
    assert largest_difference(model(image).predicted_depth, network(image)) < 1e-5
    assert (report["kind"], model.config.depth_type) == ("depth-anything-3", "relative")
    assert "if it is Metric-L, its output times the focal length in pixels / 300 is in metres" in report["depth"]
    assert all("sky_output_conv2" in name for name in report["left_out"])
    assert len(report["left_out"]) == 4 and len(report["filled_with_zero"]) == 5


def test_depth_anything_3_of_many_views_is_refused(tmp_path):
    weights = made(DepthAnything3).state_dict()
    path = tmp_path / "da3-large.pth"
    torch.save(weights | {"backbone.pretrained.camera_token": torch.zeros(1, 2, WIDTH)}, path)
    with pytest.raises(ValueError, match="any-view or nested series.*only Mono-L and Metric-L"):
        converted_depth(path, tmp_path)


@pytest.mark.parametrize(("build", "file"), [(DptLarge, "dpt_large_384.pt"), (DptHybrid, "dpt_hybrid_384.pt")])
@torch.no_grad()
def test_dpt_is_relative_inverse_depth(tmp_path, build, file):
    network = made(build)
    path = tmp_path / file
    torch.save(network.state_dict(), path)
    model, report = converted_depth(path, tmp_path)
    image = image_of(64)
    ours = model.depth_predictor[0](model.head(model.encode(image))[0])[:, 0]
    assert largest_difference(ours, network(image)) < 1e-5
    assert report["left_out"].keys() == {"pretrained.model.head.weight", "pretrained.model.head.bias"}
    assert DepthSegImageProcessor.from_pretrained(tmp_path / "converted").image_mean == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("file", "without", "more", "sentence"),
    [
        (
            "dpt_beit_large_512.pt",
            "pos_embed",
            ["pretrained.model.blocks.0.attn.q_bias"],
            "than those of dpt_large and dpt_hybrid",
        ),
        (
            "dpt_swin2_tiny_256.pt",
            "blocks",
            ["pretrained.model.layers.0.blocks.0.attn.qkv.weight"],
            "than those of dpt_large",
        ),
        ("midas_v21_384.pt", "pretrained.", ["pretrained.layer1.0.weight"], "than those of dpt_large and dpt_hybrid"),
        ("dpt_large-ade20k.pt", "output_conv.2", ["scratch.output_conv.1.weight"], "a DPT for segmentation"),
    ],
)
def test_other_networks_of_midas_name_those_that_are_supported(tmp_path, file, without, more, sentence):
    weights = {name: tensor for name, tensor in made(DptLarge).state_dict().items() if without not in name}
    torch.save(weights | {name: torch.zeros(2) for name in more}, tmp_path / file)
    with pytest.raises(ValueError, match=sentence):
        convert([tmp_path / file], tmp_path / "out")


# File, network, its options, and whether the maps that a segmenter reads have the last norm, as in transformers.
ENCODERS = {
    "dinov2": ("dinov2_vits14_pretrain.pth", Vit, {}, True),
    "dinov2 with registers": ("dinov2_vits14_reg4_pretrain.pth", Vit, {"registers": 4}, True),
    "dinov2 giant": ("dinov2_vitg14_pretrain.pth", Vit, {"mlp": SwiGlu}, True),
    "dinov2 without mask token": ("vit_small_patch14_dinov2.pth", Vit, {"mask_token": False}, True),
    "dino-vit": ("DINO_deitsmall16_pretrain.pth", Vit, {"scaled": False, "patch": 16}, False),
    "mae": ("MAE_pretrain_vit_base.pth", Vit, {"scaled": False, "patch": 16}, False),
    "dinov3": ("dinov3_vits16_pretrain_lvd1689m.pth", DinoV3, {}, True),
}


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_an_encoder_gives_the_published_maps(tmp_path, name):
    file, build, options, normalises = ENCODERS[name]
    network = made(build, **options)
    torch.save(network.state_dict(), tmp_path / file)
    folder = tmp_path / "converted"
    convert([tmp_path / file], folder)
    # As `model.pretrained=` does with the folder of an encoder.
    model = DepthSegForSemanticSegmentation.from_encoder_pretrained(folder, head_type="linear", num_labels=3)
    image = image_of(network.image)
    prefix = 1 + options.get("registers", 4 if build is DinoV3 else 0)
    after = network(image)
    features = model.encode(image)
    assert len(features.maps) == 4
    for ours, theirs in zip(features.maps, after, strict=True):
        expected = network.norm(theirs) if normalises else theirs
        assert largest_difference(ours.flatten(2).transpose(1, 2), expected[:, prefix:]) < 1e-5
    assert json.loads((folder / "conversion.json").read_text())["kind"] == name.split(" ")[0]


# Kind, network, its options, the names of the heads of the loss, and how its blocks are numbered in the checkpoint.
TRAININGS = {
    "dino-vit": (Vit, {"scaled": False, "patch": 16}, ("head.mlp.0.weight", "head.last_layer.weight_g"), "blocks.{}."),
    "dinov2": (Vit, {}, ("dino_head.mlp.0.weight", "ibot_head.mlp.0.weight"), "blocks.{}."),
    "dinov2 in groups": (Vit, {}, ("dino_head.mlp.0.weight",), "blocks.1.{}."),
    "dinov3": (DinoV3, {}, ("dino_head.mlp.0.weight",), "blocks.{}."),
}


@pytest.mark.parametrize("network", ["teacher", "student"])
@pytest.mark.parametrize("name", TRAININGS)
@torch.no_grad()
def test_a_checkpoint_of_a_whole_pretraining_gives_its_encoder(tmp_path, name, network):
    build, options, heads, blocks = TRAININGS[name]
    weights = made(build, **options).state_dict()
    torch.save(weights, tmp_path / f"{name.split(' ')[0]}.pth")
    convert([tmp_path / f"{name.split(' ')[0]}.pth"], tmp_path / "bare")
    whole = {
        f"backbone.{re.sub(r'^blocks.([0-9]+).', lambda m: blocks.format(m[1]), k)}": t for k, t in weights.items()
    }
    whole |= {head: torch.randn(4, 8) for head in heads}
    content = {network: {f"module.{k}": t for k, t in whole.items()} if network == "student" else whole}
    if network == "teacher":
        content = {"student": {f"module.{k}": torch.zeros_like(t) for k, t in whole.items()}} | content
    content |= {"optimizer": {"state": {}}, "epoch": 100, "args": argparse.Namespace(arch="vit_small", lr=5e-4)}
    torch.save(content | {"dino_loss": {"center": torch.zeros(1, 4)}}, tmp_path / "checkpoint.pth")
    convert([tmp_path / "checkpoint.pth"], tmp_path / "whole")
    report = json.loads((tmp_path / "whole" / "conversion.json").read_text())
    assert report["kind"] == name.split(" ")[0]
    prefix = "module." if network == "student" else ""
    assert {prefix + head for head in heads} <= report["left_out"].keys()
    ours, bare = (load_file(tmp_path / folder / "model.safetensors") for folder in ("whole", "bare"))
    assert ours.keys() == bare.keys()
    assert all(torch.equal(ours[key], bare[key]) for key in bare)


def test_the_norm_of_local_crops_of_a_dinov3_is_left_out(tmp_path):
    weights = made(DinoV3).state_dict()
    weights |= {"local_cls_norm.weight": torch.ones(WIDTH), "local_cls_norm.bias": torch.zeros(WIDTH)}
    torch.save(weights, tmp_path / "DINOv3_vitl16_pretrain_SAT493M.pth")
    convert([tmp_path / "DINOv3_vitl16_pretrain_SAT493M.pth"], tmp_path / "out")
    left_out = json.loads((tmp_path / "out" / "conversion.json").read_text())["left_out"]
    assert "local crops" in left_out["local_cls_norm.weight"]
    assert DepthSegImageProcessor.from_pretrained(tmp_path / "out").image_mean == [0.430, 0.411, 0.296]


def test_the_range_of_a_metric_network_is_read_from_the_options_of_its_training(tmp_path):
    path = tmp_path / "depth_anything_v2_mine.pth"
    weights = made(DepthAnything, SPREAD).state_dict()
    torch.save({"model": weights, "args": argparse.Namespace(max_depth=35.0)}, path)
    model, report = converted_depth(path, tmp_path)
    assert (model.config.depth_type, model.config.max_depth) == ("metric", 35.0)
    assert report["depth"] == (
        "metres, 35 at most; max_depth is among the options of its training; if its depth is relative, save its "
        "weights alone and convert those"
    )


def test_the_decoder_of_an_mae_is_left_out(tmp_path):
    weights = made(Vit, scaled=False, patch=16).state_dict()
    weights |= {"decoder_pos_embed": torch.zeros(1, 17, 8), "mask_token": torch.zeros(1, 1, 8)}
    options = argparse.Namespace(model="mae_vit_base_patch16", mask_ratio=0.75)
    torch.save(
        {"model": weights, "optimizer": {"state": {}}, "scaler": {}, "args": options}, tmp_path / "pretrain_full.pth"
    )
    convert([tmp_path / "pretrain_full.pth"], tmp_path / "out")
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert report["kind"] == "mae"
    assert report["left_out"].keys() == {"decoder_pos_embed", "mask_token"}


def test_a_converted_depth_network_becomes_a_segmenter_with_its_lineage(tmp_path):
    path = tmp_path / "depth_anything_v2_vits.pth"
    torch.save(made(DepthAnything, SPREAD).state_dict(), path)
    convert([path], tmp_path / "depth")
    model = DepthSegForSemanticSegmentation.from_pretrained(tmp_path / "depth", num_labels=5)
    first = model.config.weight_lineage[0]
    assert first["source"] == "depth_anything_v2_vits.pth"
    assert first["licence"].startswith("Apache-2.0 for ViT-S")
    assert {part.part for part in model.transfer_report.parts if part.status == "taken"} == {"encoder", "head"}
    assert isinstance(model.classifier, nn.Conv2d)


def test_a_range_is_refused_where_it_means_nothing(tmp_path):
    path = tmp_path / "dinov2.pth"
    torch.save(made(Vit).state_dict(), path)
    with pytest.raises(
        ValueError, match=r"--max-depth is the range of a metric depth network, and .*dinov2.* are none"
    ):
        convert([path], tmp_path / "out", options=ConvertOptions(max_depth=20.0))
    with pytest.raises(ValueError, match="--max-depth is -1; give metres above 0.1"):
        ConvertOptions(max_depth=-1)
