"""The heads that predict masks: against transformers' own, from initialisation to a trained model."""

import math

import pytest
import torch
from models.feature_maps import make_features, make_head, random_weights
from models.tiny_models import NUM_LABELS, TINY_ENCODERS, TINY_HEADS, make_labels, scramble, tiny_config, tiny_model
from rounding import assert_same_up_to_rounding
from torch.nn import functional as F
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from depthseg.models import (
    HEADS,
    DepthSegForDepthEstimation,
    DepthSegForOpticalFlow,
    DepthSegForSemanticSegmentation,
    DepthSegImageProcessor,
)
from depthseg.models.losses_masks_depthseg import MaskPrediction, mask_loss

MASK_HEADS = [name for name, entry in HEADS.items() if entry.kind == "masks"]
IMAGE = (57, 101)


def transformers_model() -> Mask2FormerForUniversalSegmentation:
    swin = {name: value for name, value in TINY_ENCODERS["swin"].items() if name not in ("model_type", "out_indices")}
    stages = ["stage1", "stage2", "stage3", "stage4"]
    options = {name: 32 for name in ("feature_size", "mask_feature_size", "hidden_dim")}
    config = Mask2FormerConfig(
        backbone_config=SwinConfig(**swin, out_features=stages),
        num_labels=NUM_LABELS,
        **options,
        **{"num_attention_heads": 2, "num_queries": 7, "encoder_layers": 1, "encoder_feedforward_dim": 16},
        **{"decoder_layers": 4, "dim_feedforward": 16, "output_auxiliary_logits": True},
    )
    return random_weights(Mask2FormerForUniversalSegmentation(config))


@torch.no_grad()
def test_mask2former_is_that_of_transformers_on_the_same_maps():
    torch.manual_seed(0)
    theirs = transformers_model()
    image = torch.randn(2, 3, 64, 96)
    maps = list(theirs.model.pixel_level_module.encoder(image).feature_maps)
    channels, sizes = [m.shape[1] for m in maps], [m.shape[-2:] for m in maps]
    head = make_head("mask2former", TINY_HEADS["mask2former"], channels, (4.0, 8.0, 16.0, 32.0))
    classifier = head.make_classifier(NUM_LABELS)
    head.decoders.pixel_decoder.load_state_dict(theirs.model.pixel_level_module.decoder.state_dict())
    head.decoders.transformer_module.load_state_dict(theirs.model.transformer_module.state_dict())
    classifier.load_state_dict(theirs.class_predictor.state_dict())
    features = make_features(channels, sizes, (4.0, 8.0, 16.0, 32.0))
    features.maps = maps
    logits, layers = head.predict_labels(classifier, head(features))
    expected = theirs(image)
    assert_same_up_to_rounding(layers[0].masks, expected.masks_queries_logits)
    assert_same_up_to_rounding(layers[0].classes, expected.class_queries_logits)
    assert len(layers) == 1 + len(expected.auxiliary_logits) == 4
    for layer, auxiliary in zip(layers[:0:-1], expected.auxiliary_logits, strict=True):
        assert_same_up_to_rounding(layer.masks, auxiliary["masks_queries_logits"])
        assert_same_up_to_rounding(layer.classes, auxiliary["class_queries_logits"])
    # The semantic scores of its own image processor, before it resizes them.
    classes = expected.class_queries_logits.softmax(-1)[..., :-1]
    semantic = torch.einsum("bqc,bqhw->bchw", classes, expected.masks_queries_logits.sigmoid())
    assert (logits.argmax(1) == semantic.argmax(1)).all()
    torch.testing.assert_close(logits.exp(), semantic)


@pytest.mark.parametrize("how", ["built", "from depth", "random"])
def test_every_parameter_of_mask2former_is_initialised_by_its_rules(how, tmp_path):
    if how == "built":
        model = tiny_model("segmentation", "depthseg_resnet", "mask2former")
    else:
        source = scramble(tiny_model("depth" if how == "from depth" else "segmentation", head="linear"))
        if how == "random":
            source = scramble(tiny_model("segmentation", "depthseg_resnet", "mask2former"))
        source.save_pretrained(tmp_path)
        config = tiny_config("depthseg_resnet", "mask2former")
        init = "random" if how == "random" else "pretrained"
        model = DepthSegForSemanticSegmentation.from_pretrained(tmp_path, config=config, head_init=init)
        status = {(part.part, part.status) for part in model.transfer_report.parts}
        assert status >= {("encoder", "taken"), ("head", "new"), ("classifier", "new")}
    pixels, decoder = model.head.decoders.pixel_decoder, model.head.decoders.transformer_module
    for embedding in (pixels.level_embed, decoder.level_embed.weight, decoder.queries_features.weight):
        assert 0.7 < embedding.std() < 1.3 and abs(embedding.mean()) < 0.4
    # The perceptron of the masks: uniform between plus and minus one by the root of its inputs.
    for layer in decoder.decoder.mask_predictor.mask_embedder.modules():
        if isinstance(layer, torch.nn.Linear):
            weight = layer.weight * layer.in_features**0.5
            assert weight.abs().max() <= 1 and 0.5 < weight.std() < 0.65 and layer.bias.any()
    attention = pixels.encoder.layers[0].self_attn
    assert not attention.sampling_offsets.weight.any() and not attention.attention_weights.weight.any()
    # Two heads look right and left, at 1, 2, 3 and 4 cells, on each of three levels.
    ring = torch.tensor([1.0, -1.0])[:, None, None] * torch.arange(1.0, 5.0).expand(3, 4)
    offsets = attention.sampling_offsets.bias.view(2, 3, 4, 2)
    torch.testing.assert_close(offsets[..., 0], ring)
    torch.testing.assert_close(offsets[..., 1], torch.zeros_like(ring), atol=1e-6, rtol=0)


@pytest.mark.parametrize("head", [name for name in HEADS if name != "native"])
def test_a_new_head_on_a_loaded_encoder_is_initialised_as_one_that_was_built(head, tmp_path):
    """Norms to 1 and 0, and every other parameter to values of the same size."""
    scramble(tiny_model("depth", "dinov2", "dpt")).save_pretrained(tmp_path)
    config = tiny_config("dinov2", head)
    built = DepthSegForSemanticSegmentation(config).head
    loaded = DepthSegForSemanticSegmentation.from_pretrained(tmp_path, config=config, head_init="random").head
    for name, module in loaded.named_modules():
        if isinstance(module, (torch.nn.LayerNorm, torch.nn.BatchNorm2d, torch.nn.GroupNorm)):
            assert (module.weight == 1).all() and (module.bias == 0).all(), name
    for name, parameter in built.named_parameters():
        assert loaded.get_parameter(name).abs().max() <= 3 * parameter.abs().max() + 0.1, name


def test_an_attention_implementation_reaches_the_encoder_of_a_mask_model(tmp_path):
    tiny_model("segmentation", "dinov2", "mask2former").save_pretrained(tmp_path)
    model = DepthSegForSemanticSegmentation.from_pretrained(tmp_path, attn_implementation="eager").eval()
    image = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        expected = DepthSegForSemanticSegmentation.from_pretrained(tmp_path)(image).logits
        assert model.config.encoder_config._attn_implementation == "eager"
        torch.testing.assert_close(model(image).logits, expected, rtol=1e-4, atol=1e-4)
        model.set_attn_implementation("sdpa")
        torch.testing.assert_close(model(image).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", MASK_HEADS)
@torch.no_grad()
def test_the_loss_of_a_padded_image_is_that_of_its_masks_at_the_image(head):
    torch.manual_seed(0)
    model = tiny_model("segmentation", "dinov2", head).eval()
    image, labels = torch.randn(2, 3, *IMAGE), make_labels("segmentation", 2, *IMAGE)
    features = model.encode(image)
    layers = model.head.predict_labels(model.classifier, model.head(features))[1]
    assert features.padded_size != IMAGE
    at_the_image = [MaskPrediction(layer.classes, features.to_input(layer.masks)) for layer in layers]
    expected = mask_loss(at_the_image, labels, model.head.loss_weights)
    torch.testing.assert_close(model(image, labels=labels).loss, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("head", MASK_HEADS)
@pytest.mark.parametrize("num_labels", [1, 40])
def test_class_scores_have_a_gradient_only_where_no_loss_is_asked_for(head, num_labels):
    torch.manual_seed(0)
    model = tiny_model("segmentation", "dinov2", head, num_labels=num_labels).eval()
    image, labels = torch.randn(1, 3, 56, 98), torch.zeros(1, 56, 98, dtype=torch.int64)
    kept = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        trained = model(image, labels=labels)
        with_labels = set(kept)
        kept.clear()
        shown = model(image)
    assert shown.logits.requires_grad and not trained.logits.requires_grad
    assert torch.equal(shown.logits, trained.logits)
    scores = (1, max(num_labels, 2), *shown.logits.shape[-2:])
    assert scores in set(kept) and scores not in with_labels
    trained.loss.backward()
    silent = [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]
    shown.logits.sum().backward()
    assert not [name for name in silent if name.startswith(("head", "classifier"))]


@pytest.mark.parametrize("head", MASK_HEADS)
@torch.no_grad()
def test_one_class_is_compared_with_its_background(head):
    torch.manual_seed(0)
    model = tiny_model("segmentation", "dinov2", head, num_labels=1).eval()
    image, labels = torch.randn(2, 3, 56, 98), torch.randint(0, 2, (2, 56, 98))
    output = model(image, labels=labels)
    layers = model.head.predict_labels(model.classifier, model.head(model.encode(image)))[1]
    background, found = layers[0].class_scores().exp().unbind(1)
    assert output.logits.shape[1] == 1
    torch.testing.assert_close(output.logits[:, 0].sigmoid(), found / (background + found))
    ids = DepthSegImageProcessor().post_process_semantic_segmentation(output)
    assert (torch.stack(ids) == (found >= background)).all()
    torch.testing.assert_close(output.loss, mask_loss(layers, labels, model.head.loss_weights))
    with pytest.raises(ValueError, match="0 to 1 and ignores 255"):
        model(image, labels=torch.full((2, 56, 98), 2))


@pytest.mark.parametrize("head", MASK_HEADS)
def test_a_mask_head_learns_an_image(head):
    """Left and right half, the upper rows unlabelled, with the encoder frozen."""
    torch.manual_seed(0)
    model = tiny_model("segmentation", "dinov2", head)
    model.freeze_encoder()
    before = [parameter.clone() for parameter in model.encoder.parameters()]
    image = torch.randn(1, 3, 56, 56) * 0.1
    image[..., 28:] += 1
    labels = torch.where(torch.arange(56) < 28, 1, 3).expand(1, 56, 56).clone()
    labels[:, :20] = 255
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.train()(image, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    with torch.no_grad():
        predicted = DepthSegImageProcessor().post_process_semantic_segmentation(model.eval()(image), [(56, 56)])[0]
    assert (predicted == labels[0])[20:].float().mean() > 0.9
    assert all(torch.equal(a, b) for a, b in zip(before, model.encoder.parameters(), strict=True))


@pytest.mark.parametrize("head", MASK_HEADS)
def test_other_tasks_are_refused_in_a_sentence(head):
    config = tiny_config("dinov2", head)
    for model_class in (DepthSegForDepthEstimation, DepthSegForOpticalFlow):
        with pytest.raises(ValueError, match="does segmentation only, without keep_depth; for depth and other tasks"):
            model_class(config)
    with pytest.raises(ValueError, match="does segmentation only, without keep_depth"):
        tiny_model("segmentation", "dinov2", head, keep_depth=True)


@pytest.mark.parametrize(
    ("head", "options", "message"),
    [
        ("mask2former", {"channels": 48}, "channels is 48; it must be a multiple of 32 and of num_attention_heads"),
        ("mask2former", {"channels": 32, "num_attention_heads": 5}, "num_attention_heads, which is 5"),
        ("mask2former", {"decoder_layers": 0}, "decoder_layers is 0; it must be an integer of at least 1"),
        ("mask_queries", {"channels": 10, "num_attention_heads": 4}, "multiple of num_attention_heads, which is 4"),
        ("mask_queries", {"num_queries": True}, "num_queries is True; it must be an integer"),
        ("mask_queries", {"dice_weight": -1}, "dice_weight is -1; it must be a number of at least 0"),
        ("mask_queries", {"mask_weight": math.nan}, "mask_weight is nan; it must be a number of at least 0"),
    ],
)
def test_impossible_options_are_refused(head, options, message):
    with pytest.raises(ValueError, match=message):
        tiny_config("dinov2", head, head_config=options)


def test_mask2former_needs_three_maps_of_an_encoder_with_several_strides():
    with pytest.raises(
        ValueError, match="requires at least 3 maps of a hierarchical encoder, but the encoder returns 2"
    ):
        make_head("mask2former", TINY_HEADS["mask2former"], [8, 16], (8.0, 16.0))
    assert make_head("mask2former", TINY_HEADS["mask2former"], [8, 8, 16], (8.0, 16.0, 32.0)).strides == (8.0,)
    assert make_head("mask2former", TINY_HEADS["mask2former"], [8], (14.0,)).strides == (3.5,)


@torch.no_grad()
def test_mask_queries_reads_every_one_of_the_last_four_maps():
    torch.manual_seed(0)
    head = random_weights(make_head("mask_queries", TINY_HEADS["mask_queries"]))
    features = make_features()
    masks, queries = head(features)
    assert masks.shape == (2, 7, 15, 26) and queries.shape == (2, 7, 8) and head.strides == (4.0,)
    for level in range(5):
        changed = make_features()
        changed.maps = [torch.randn_like(m) if i == level else m for i, m in enumerate(features.maps)]
        assert torch.equal(head(changed)[0], masks) == (level == 0)


@torch.no_grad()
def test_mask_queries_attends_as_written_out():
    """The layers against PyTorch's own encoder layer with the same weights."""
    torch.manual_seed(0)
    head = random_weights(make_head("mask_queries", TINY_HEADS["mask_queries"], [6], (14.0,)))
    layer, x = head.layers[0], torch.randn(2, 11, 8)
    ours = torch.nn.TransformerEncoderLayer(8, 2, 32, 0.0, F.gelu, batch_first=True, norm_first=True).eval()
    names = {"self_attn.in_proj_": "inputs.", "self_attn.out_proj.": "output.", "norm1.": "attention_norm."}
    names |= {"linear1.": "feedforward.1.", "linear2.": "feedforward.3.", "norm2.": "feedforward.0."}
    weights = {}
    for name, tensor in layer.state_dict().items():
        new = next(theirs for theirs, own in names.items() if name.startswith(own))
        weights[new + name.removeprefix(names[new])] = tensor
    ours.load_state_dict(weights)
    torch.testing.assert_close(layer(x), ours(x))
