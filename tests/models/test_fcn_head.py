"""The fully convolutional head against that of transformers' UPerNet, and the last layers that dense heads share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from models.feature_maps import CHANNELS, SIZES, STRIDES, copy_weights, make_features, make_head, random_weights
from models.tiny_models import tiny_config, tiny_model
from rounding import assert_same_up_to_rounding
from torch.nn import functional as F
from transformers.models.upernet.modeling_upernet import UperNetFCNHead

from depthseg.models import HEADS, DepthSegForSemanticSegmentation
from depthseg.models.heads_blocks_depthseg import PixelHead

RENAMES = {"conv_cat.": "join.", ".conv.": ".0.", ".batch_norm.": ".1."}
DENSE = [name for name, entry in HEADS.items() if isinstance(entry.cls, type) and issubclass(entry.cls, PixelHead)]


@pytest.mark.parametrize(("level", "num_convs", "concat_input"), [(-1, 2, True), (2, 1, False), (-2, 3, True)])
@torch.no_grad()
def test_head_equals_that_of_transformers(level, num_convs, concat_input):
    config = SimpleNamespace(
        auxiliary_in_channels=None,
        auxiliary_channels=9,
        auxiliary_num_convs=num_convs,
        auxiliary_concat_input=concat_input,
        num_labels=5,
    )
    theirs = random_weights(UperNetFCNHead(config, CHANNELS, in_index=level))
    options = {"channels": 9, "num_convs": num_convs, "concat_input": concat_input, "level": level}
    ours = make_head("fcn", options)
    copy_weights(theirs.state_dict(), ours, RENAMES)
    classifier = ours.make_classifier(5).eval()
    classifier.load_state_dict(theirs.classifier.state_dict())
    features = make_features()
    logits, expected = classifier(ours(features)[0]), theirs(features.maps)
    assert tuple(logits.shape) == (2, 5, *SIZES[level]) and expected.std() > 0.1
    assert (ours.channels, ours.strides) == ([9], (STRIDES[level],))
    assert_same_up_to_rounding(logits, expected)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"channels": 0}, "head_config.channels is 0; it must be an integer of at least 1"),
        ({"num_convs": True}, "head_config.num_convs is True; it must be an integer of at least 1"),
        ({"concat_input": 1}, "head_config.concat_input is 1; it must be True or False"),
        ({"level": "last"}, "head_config.level is 'last'; it must be an integer"),
        (
            {"classifier_dropout": 1.0},
            "head_config.classifier_dropout is 1.0; it must be a number of at least 0 and below 1",
        ),
        ({"width": 3}, "head_config has no option width for head_type 'fcn'"),
    ],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(head="fcn", head_config=options)


@pytest.mark.parametrize("level", [5, -6])
def test_a_map_that_does_not_exist_is_refused(level):
    with pytest.raises(ValueError, match=f"level is {level}, but the encoder returns 5 maps; choose from -5 "):
        tiny_model("depth", head="fcn", head_config={"level": level})


@pytest.mark.parametrize("head", DENSE)
@torch.no_grad()
def test_last_layers_are_one_convolution_on_the_finest_map_for_either_task(head):
    model = tiny_model("segmentation", head=head, keep_depth=True).eval()
    image = torch.randn(1, 3, 64, 96)
    (decoded,) = model.head(model.encode(image))
    output = model(image)
    weight, bias = model.classifier.weight, model.classifier.bias
    expected = torch.einsum("kc,bchw->bkhw", weight[:, :, 0, 0], decoded) + bias[:, None, None]
    assert_same_up_to_rounding(output.logits, expected)
    assert len(model.depth_predictor) == 1
    weight, bias = model.depth_predictor[0].weight, model.depth_predictor[0].bias
    raw = torch.einsum("kc,bchw->bkhw", weight[:, :, 0, 0], decoded) + bias[:, None, None]
    raw = F.interpolate(raw.sigmoid(), size=(64, 96), mode="bilinear", align_corners=False)
    assert_same_up_to_rounding(output.predicted_depth, 1 / (0.01 + 9.99 * raw[:, 0]))
    assert model.classifier.weight.shape == (5, model.head.channels[0], 1, 1)


@pytest.mark.parametrize(
    ("head", "options", "read"),
    [
        ("monodepth2", {"decoder_channels": [8] * 5}, [0, 1, 2, 3, 4]),
        ("linear", {"num_layers": 1}, [4]),
        ("linear", {"num_layers": 4}, [1, 2, 3, 4]),
        ("fcn", {"channels": 8}, [4]),
        ("fcn", {"channels": 8, "level": 2}, [2]),
        ("fcn", {"channels": 8, "level": -5}, [0]),
        ("deeplabv3", {"channels": 8}, [4]),
        ("upernet", {"channels": 8}, [1, 2, 3, 4]),
        ("segformer", {"channels": 8}, [1, 2, 3, 4]),
    ],
)
def test_a_head_names_the_maps_that_its_result_depends_on(head, options, read):
    decoder, features = make_head(head, options), make_features()
    for encoder_map in features.maps:
        encoder_map.requires_grad_(True)
    decoder(features)[0].square().sum().backward()
    assert [index for index, encoder_map in enumerate(features.maps) if encoder_map.grad is not None] == read
    assert list(range(5))[decoder.maps_read] == read


def test_dropout_is_before_the_classifier_in_training_and_nowhere_else():
    head = make_head("fcn", {"channels": 1, "classifier_dropout": 0.25})
    classifier, predictor = head.make_classifier(1), head.make_depth_predictor()[0]
    for layer in (classifier, predictor):
        torch.nn.init.ones_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    ones = torch.ones(1, 1, 100, 100)
    values, counts = classifier.train()(ones).unique(return_counts=True)
    assert values.tolist() == pytest.approx([0, 4 / 3])
    assert counts[0].item() / 10_000 == pytest.approx(0.25, abs=0.02)
    assert torch.equal(classifier.eval()(ones), ones) and torch.equal(predictor.train()(ones), ones)


def test_dropout_does_not_change_the_names_of_weights():
    options = [{"channels": 8}, {"channels": 8, "classifier_dropout": 0.0}]
    names = [set(tiny_model("segmentation", head="fcn", head_config=option).state_dict()) for option in options]
    assert names[0] == names[1] and {"classifier.weight", "classifier.bias"} < names[0]


@pytest.mark.parametrize("head", DENSE)
def test_one_image_and_maps_of_few_pixels_can_be_trained_on(head):
    model = DepthSegForSemanticSegmentation(tiny_config(head=head))
    image = torch.randn(1, 3, 33, 40)
    loss = model.train()(image, labels=torch.zeros(1, 33, 40, dtype=torch.long)).loss
    loss.backward()
    assert loss.isfinite()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []
