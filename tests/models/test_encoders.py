"""Every encoder: which backbones are offered, and that its maps are the backbone's, of every pixel, at any size."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from functools import cache

import pytest
import torch
from models.tiny_models import NUM_LABELS, TINY_ENCODERS, VIT, make_labels, tiny_model
from rounding import assert_same_gradients, assert_same_up_to_rounding, rounding_bound
from torch.nn import functional as F
from transformers import CONFIG_MAPPING, AutoBackbone
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

from depthseg.models import ENCODERS, DepthSegConfig
from depthseg.models.encoders_base_depthseg import logger
from depthseg.models.encoders_depthseg import UNSUPPORTED_BACKBONES, encoder_entry

AUTO = [name for name in ENCODERS if name in MODEL_FOR_BACKBONE_MAPPING_NAMES]
ANY_SIZE = [name for name, entry in ENCODERS.items() if not entry.fixed_size]
PLAIN = {key: VIT[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
CHECKPOINTED = [
    "depthseg_resnet",
    "depthseg_mobilenet_v2",
    "depthseg_efficientnet_lite",
    "vit",
    "vit_mae",
    "dinov2",
    "dinov3_vit",
    "beit",
    "swin",
    "hiera",
    "focalnet",
]


@cache
def tiny_encoder(name: str):
    """The encoder of a row with random weights; shared between tests, which do not change it."""
    return make_encoder(name)


def make_encoder(name: str, **options):
    torch.manual_seed(0)
    config = DepthSegConfig(encoder_config=TINY_ENCODERS[name] | options).encoder_config
    encoder = ENCODERS[name].cls(config).eval()
    # Initial values of 0 (embeddings, layer scales) would hide differences.
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return encoder


def bare_config(name: str, **options):
    return CONFIG_MAPPING[name](
        **{k: v for k, v in TINY_ENCODERS.get(name, {}).items() if k != "model_type"} | options
    )


# What is offered


def test_every_backbone_of_transformers_is_offered_or_refused_with_a_reason():
    assert set(MODEL_FOR_BACKBONE_MAPPING_NAMES) <= ENCODERS.keys() | UNSUPPORTED_BACKBONES.keys()
    assert ENCODERS.keys().isdisjoint(UNSUPPORTED_BACKBONES)
    assert len(AUTO) == 24


@pytest.mark.parametrize("name", UNSUPPORTED_BACKBONES)
def test_an_unsupported_backbone_is_refused_with_its_reason(name):
    with pytest.raises(ValueError, match=f"'{name}' is not supported. {UNSUPPORTED_BACKBONES[name][:20]}"):
        DepthSegConfig(encoder_config={"model_type": name})


@pytest.mark.parametrize(("name", "package"), [("dinat", "natten"), ("timm_backbone", "timm")])
def test_reasons_are_true_packages(name, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(ImportError, match=package):
        AutoBackbone.from_config(CONFIG_MAPPING[name]())


@torch.no_grad()
def test_reasons_are_true_shapes():
    image = torch.zeros(1, 3, 64, 64)
    with torch.device("meta"):
        text = AutoBackbone.from_config(CONFIG_MAPPING["pp_lcnet_v4"]())
        document = AutoBackbone.from_config(CONFIG_MAPPING["uvdoc_backbone"](out_indices=[1, 3, 5]))
        text_map = text(image.to("meta")).feature_maps[-1]
        document_maps = document(image.to("meta")).feature_maps
    assert text_map.shape[-2] != text_map.shape[-1]
    assert len({feature_map.shape for feature_map in document_maps}) == 1


@torch.no_grad()
def test_reasons_are_true_mixed_up_patches():
    """What goes into the first layer is the same with and without windows, but for images that are not square."""
    options = PLAIN | {"image_size": 64, "patch_size": 16, "out_indices": [0]}
    whole, windows = (
        AutoBackbone.from_config(CONFIG_MAPPING["rf_detr_dinov2"](**options, num_windows=count)).eval()
        for count in (1, 4)
    )
    windows.load_state_dict(whole.state_dict())
    for size, same in (((64, 64), True), ((64, 128), False)):
        image = torch.randn(1, 3, *size)
        expected, found = whole(image).feature_maps[0], windows(image).feature_maps[0]
        assert ((found - expected).abs().max().item() <= rounding_bound(expected)) is same


def test_reasons_are_true_biases_without_effect():
    options = {key: value for key, value in TINY_ENCODERS["pp_lcnet"].items() if key != "model_type"}
    backbone = AutoBackbone.from_config(CONFIG_MAPPING["pp_lcnet_v3"](**options)).train()
    backbone(torch.randn(2, 3, 64, 64)).feature_maps[-1].square().sum().backward()
    gradients = {name: p.grad.abs().max() for name, p in backbone.named_parameters() if p.grad is not None}
    # A stage that makes the map coarser ends its 3x3 convolution with this bias; a 1x1 convolution and a norm follow.
    without_effect = gradients["encoder.blocks.1.layers.0.depthwise_convolution.lab.bias"]
    assert without_effect < 1e-5 * max(gradients.values())


def test_reasons_are_true_lost_pixels():
    config = CONFIG_MAPPING["vitpose_backbone"](**PLAIN, image_size=[64, 64], patch_size=[16, 16])
    image = torch.randn(1, 3, 64, 64, requires_grad=True)
    AutoBackbone.from_config(config)(image).feature_maps[0].square().sum().backward()
    assert not image.grad[..., -2:, :].any() and image.grad[..., -3, :].any()


# Maps


@pytest.mark.parametrize("name", AUTO)
@torch.no_grad()
def test_maps_are_those_of_the_bare_backbone(name):
    """On sizes that need no padding; the bare backbone makes its maps of tokens itself."""
    encoder = tiny_encoder(name)
    reference = AutoBackbone.from_config(bare_config(name, out_features=encoder.backbone.config.out_features)).eval()
    reference.load_state_dict(encoder.backbone.state_dict())
    side = encoder.multiple * -(-32 // encoder.multiple)
    for size in [encoder.fixed_size] if encoder.fixed_size else [(2 * side, 2 * side), (2 * side, 3 * side)]:
        image = torch.randn(2, 3, *size)
        expected = reference(image, output_hidden_states=True)
        features = encoder(image)
        assert features.padded_size == features.input_size == size
        assert len(features.maps) == len(expected.feature_maps) == len(encoder.channels)
        for feature_map, other, channels in zip(features.maps, expected.feature_maps, encoder.channels, strict=True):
            assert feature_map.shape[1] == channels
            assert_same_up_to_rounding(feature_map, other)


PREFIXES = {"dinov2": 1, "dinov2_with_registers": 3, "beit": 1, "pixio": 3, "tipsv2_vision_model": 2, "sapiens2": 3}


@pytest.mark.parametrize("name", [*PREFIXES, "dinov3_vit"])
@torch.no_grad()
def test_prefix_tokens_are_the_first_tokens_of_the_layer_in_the_norm_of_its_map(name):
    encoder = tiny_encoder(name)
    config = encoder.backbone.config
    image = torch.randn(2, 3, 2 * encoder.multiple, 3 * encoder.multiple)
    features = encoder(image)
    states = encoder.backbone(image, output_hidden_states=True).hidden_states
    for index, feature_map, prefix in zip(config.out_indices, features.maps, features.prefix_tokens, strict=True):
        assert prefix.shape == (2, PREFIXES.get(name, 3), 16) and prefix.shape[1] == encoder.num_prefix_tokens
        patches = feature_map.flatten(2).transpose(1, 2)
        state = states[index]
        plain = (state[:, prefix.shape[1] :] - patches).abs().max().item() <= rounding_bound(patches)
        # Maps that are not the bare hidden state went through the final norm, and so must their prefix tokens.
        norm = None if plain else encoder.backbone.get_submodule(final_norm(encoder.backbone))
        expected = state if plain else norm(state)
        assert_same_up_to_rounding(expected[:, prefix.shape[1] :], patches)
        assert_same_up_to_rounding(expected[:, : prefix.shape[1]], prefix)


def final_norm(backbone) -> str:
    names = [name for name, _ in backbone.named_modules() if name in ("norm", "layernorm")]
    assert len(names) == 1
    return names[0]


@pytest.mark.parametrize("name", ANY_SIZE)
def test_no_pixel_is_left_out_at_odd_sizes(name):
    """Maps cover the image, and every map depends on its last row and its last column."""
    encoder = tiny_encoder(name)
    for size in [(57, 101), (33, 47)]:
        image = torch.randn(1, 3, *size, requires_grad=True)
        features = encoder(image)
        for feature_map, stride in zip(features.maps, encoder.strides, strict=True):
            assert feature_map.shape[-2] * stride >= size[0] and feature_map.shape[-1] * stride >= size[1]
            gradient = torch.autograd.grad(feature_map.square().sum(), image, retain_graph=True)[0]
            assert gradient[..., -1, :].any() and gradient[..., :, -1].any()


@pytest.mark.parametrize("name", ["pvt_v2", "convnext"])
def test_padding_goes_as_far_as_the_blocks_of_the_deepest_stage(name):
    # By hand: strides 4, 8, 16, 32, and in PVTv2 keys in blocks of 8, 4, 2, 1 cells: 32 pixels in every stage.
    assert tiny_encoder(name).multiple == 32
    if name == "pvt_v2":
        assert make_encoder(name, sr_ratios=[16, 4, 2, 1]).multiple == 64
    else:
        assert make_encoder(name, num_stages=3, depths=[1, 1, 1], hidden_sizes=[8, 8, 8]).multiple == 16


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_an_encoder_does_not_remember_images_of_another_size(name):
    encoder = tiny_encoder(name)
    image = torch.randn(1, 3, 57, 101)
    before = encoder(image).maps
    encoder(torch.randn(1, 3, 33, 32))
    for found, expected in zip(encoder(image).maps, before, strict=True):
        assert_same_up_to_rounding(found, expected)


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (57, 101)])
def test_masked_autoencoder_reads_every_patch_in_its_place(size):
    masked, plain = tiny_encoder("vit_mae"), make_encoder("vit")
    plain.load_state_dict(masked.state_dict())
    image = torch.randn(2, 3, *size)
    features, expected = masked(image), plain(image)
    for pair in zip(features.maps + features.prefix_tokens, expected.maps + expected.prefix_tokens, strict=True):
        assert_same_up_to_rounding(*pair)


# Layers


def test_layers_are_chosen_where_the_user_did_not():
    def chosen(name, **options):
        return list(DepthSegConfig(encoder_config={"model_type": name} | options).encoder_config.out_indices)

    assert chosen("dinov2") == chosen("beit") == chosen("vit_mae") == [3, 6, 9, 12]
    assert chosen("sapiens2") == [6, 12, 18, 24]
    assert chosen("dinov2", num_hidden_layers=2) == [1, 2]
    assert chosen("swin") == chosen("resnet") == chosen("maskformer-swin") == [1, 2, 3, 4]
    assert chosen("pvt_v2") == [0, 1, 2, 3]
    assert chosen("focalnet") == [0, 1, 2, 4]
    assert chosen("dinov2", out_indices=[5]) == [5]
    assert chosen("dinov2", out_indices=[12]) == chosen("dinov2", out_features=["stage12"]) == [12]
    assert chosen("swin", out_features=["stage2", "stage4"]) == [2, 4]


@pytest.mark.parametrize("name", ENCODERS)
def test_a_configuration_is_the_same_after_saving(name, tmp_path):
    config = DepthSegConfig(encoder_config=dict(TINY_ENCODERS[name]))
    config.save_pretrained(tmp_path)
    loaded = DepthSegConfig.from_pretrained(tmp_path)
    assert loaded.encoder_config.to_json_string(use_diff=False) == config.encoder_config.to_json_string(use_diff=False)


def test_a_configuration_object_is_completed_too():
    config = DepthSegConfig(encoder_config=bare_config("beit")).encoder_config
    assert config.out_indices == [1, 2, 3, 4] and config.reshape_hidden_states is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"add_fpn": True, "out_indices": [1, 2, 3, 4]}, "add_fpn is True; set it to False"),
        ({"patch_size": [16, 8]}, "patches must be square"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    name = "beit" if "add_fpn" in options else "sapiens2"
    with pytest.raises(ValueError, match=message):
        DepthSegConfig(encoder_config=TINY_ENCODERS[name] | options)


# Unused parameters: the contract test compares every row with the gradients; here are some known by reading.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dinov2", {"embeddings.mask_token"}),
        ("swin", {"swin.layernorm.weight", "swin.layernorm.bias"}),
        ("resnet", set()),
        ("vit_mae", {"embeddings.position_embeddings", "layernorm.weight", "layernorm.bias"}),
        ("dinov3_convnext", set()),
    ],
)
def test_parameters_that_no_map_depends_on(name, expected):
    encoder = tiny_encoder(name)
    unused = ids(encoder.unused_parameters())
    assert {name for name, p in encoder.backbone.named_parameters() if id(p) in unused} == expected


def test_layers_above_the_deepest_one_are_unused():
    encoder = make_encoder("vit", out_indices=[1, 2])
    above = [*encoder.backbone.layers[2:].parameters(), *encoder.backbone.layernorm.parameters()]
    assert ids(encoder.unused_parameters()) == ids(above)
    second = [*encoder.backbone.layers[1].parameters()]
    assert ids(encoder.unused_parameters(slice(1))) == ids(above + second)


def test_norms_of_maps_that_are_not_read_are_unused():
    encoder = tiny_encoder("swin")
    norms = encoder.backbone.hidden_states_norms
    final = [*encoder.backbone.swin.layernorm.parameters()]
    assert ids(encoder.unused_parameters(slice(-1, None))) == ids(
        [*final, *norms["stage1"].parameters(), *norms["stage2"].parameters(), *norms["stage3"].parameters()]
    )
    assert ids(encoder.unused_parameters(slice(-4, None))) == ids(final)


def ids(parameters) -> set[int]:
    return {id(parameter) for parameter in parameters}


# Fixed sizes


@pytest.mark.parametrize("name", ENCODERS)
def test_exactly_the_marked_rows_have_a_fixed_size(name):
    assert (tiny_encoder(name).fixed_size is not None) == ENCODERS[name].fixed_size


@torch.no_grad()
def test_an_image_for_a_fixed_size_is_resized_and_a_warning_says_so_once(caplog):
    encoder = tiny_encoder("hiera")
    image = torch.randn(1, 3, 57, 101)
    logger.warning_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger=logger.name):
        encoder(torch.randn(1, 3, 64, 64))
        assert not caplog.records
        features = encoder(image)
        encoder(torch.randn(1, 3, 90, 30))
    assert [record.getMessage()[:54] for record in caplog.records] == [
        "The encoder hiera supports only images of 64x64 pixels"
    ]
    assert features.input_size == features.padded_size == (57, 101)
    by_hand = F.interpolate(image, (64, 64), mode="bilinear", align_corners=False, antialias=True)
    for feature_map, expected in zip(features.maps, encoder(by_hand).maps, strict=True):
        assert_same_up_to_rounding(feature_map, expected)
    # What covers the maps covers the image: a ramp over the map is the same ramp over the image.
    ramp = features.to_input(torch.linspace(0.5 / 16, 15.5 / 16, 16).expand(1, 1, 16, 16))[0, 0, 0]
    torch.testing.assert_close(ramp[5:-5], ((torch.arange(101) + 0.5) / 101)[5:-5])


def test_a_fixed_size_works_in_half_precision():
    model = tiny_model("segmentation", "hiera", "linear").to(torch.bfloat16).eval()
    assert model(torch.randn(1, 3, 57, 101)).logits.isfinite().all()


# Gradient checkpointing


def enable_checkpointing(model, enable: bool = True) -> None:
    """By the names of the oldest transformers, which newer ones warn about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable() if enable else model.gradient_checkpointing_disable()


def train_once(model) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    images, labels = torch.randn(2, 3, 57, 101), make_labels("segmentation", 2, 57, 101)
    loss = model.train()(images, labels=labels).loss
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_checkpointing_changes_neither_loss_nor_gradients_nor_statistics(name):
    plain = tiny_model("segmentation", name, "linear")
    checkpointed = tiny_model("segmentation", name, "linear")
    checkpointed.load_state_dict(plain.state_dict())
    enable_checkpointing(checkpointed)
    runs = dict.fromkeys((plain, checkpointed), 0)
    for model in runs:
        for module in model.encoder.modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.BatchNorm2d)):
                module.register_forward_hook(lambda *_, model=model: runs.update({model: runs[model] + 1}))
    (loss, gradients), (other_loss, other_gradients) = train_once(plain), train_once(checkpointed)
    # Proof that it was at work: most layers ran again in the backward pass.
    assert runs[checkpointed] > 1.5 * runs[plain] > 0
    assert_same_up_to_rounding(other_loss, loss)
    assert_same_gradients(other_gradients, gradients)
    for key, value in plain.state_dict().items():
        assert_same_up_to_rounding(checkpointed.state_dict()[key], value, key)


@pytest.mark.parametrize("name", ["convnext", "resnet"])
def test_a_backbone_without_checkpointing_says_so(name):
    with pytest.raises(ValueError, match="not compatible with gradient checkpointing"):
        enable_checkpointing(tiny_model("segmentation", name, "linear"))


def test_checkpointing_that_would_count_statistics_twice_is_refused():
    model = tiny_model("segmentation", "pp_lcnet", "linear")
    enable_checkpointing(model)
    with pytest.raises(ValueError, match="pp_lcnet it would count every batch twice in the norm statistics"):
        train_once(model)
    assert model.eval()(torch.randn(1, 3, 57, 101)).logits.isfinite().all()
    enable_checkpointing(model, False)
    train_once(model)


def test_frozen_statistics_stay_under_checkpointing():
    model = tiny_model("segmentation", "depthseg_resnet", "linear")
    enable_checkpointing(model)
    model.freeze_encoder()
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    train_once(model)
    assert all(torch.equal(value, model.encoder.state_dict()[name]) for name, value in before.items())


def test_encoder_entry_names_what_is_allowed():
    with pytest.raises(ValueError, match="allowed are depthseg_resnet"):
        encoder_entry("resnet50")
    assert NUM_LABELS == 5
