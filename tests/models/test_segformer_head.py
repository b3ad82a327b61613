"""SegFormer's head against that of transformers with the same weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from models.feature_maps import CHANNELS, SIZES, STRIDES, copy_weights, make_features, make_head, random_weights
from models.tiny_models import tiny_config
from rounding import assert_same_up_to_rounding
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

RENAMES = {"linear_projections.": "projections.", ".proj.": ".", "linear_fuse.": "join.0.", "batch_norm.": "join.1."}


@pytest.mark.parametrize("sizes", [[(24, 40), (12, 20), (6, 10), (3, 5)], SIZES[1:]], ids=["even", "odd"])
@torch.no_grad()
def test_head_equals_that_of_transformers(sizes):
    config = SimpleNamespace(
        num_encoder_blocks=4,
        hidden_sizes=CHANNELS[1:],
        decoder_hidden_size=9,
        classifier_dropout_prob=0.1,
        num_labels=5,
        reshape_last_stage=True,
    )
    theirs = random_weights(SegformerDecodeHead(config))
    ours = make_head("segformer", {"channels": 9}, CHANNELS[1:], STRIDES[1:])
    copy_weights(theirs.state_dict(), ours, RENAMES)
    classifier = ours.make_classifier(5).eval()
    classifier.load_state_dict(theirs.classifier.state_dict())
    features = make_features(CHANNELS[1:], sizes, STRIDES[1:])
    logits, expected = classifier(ours(features)[0]), theirs(features.maps)
    assert tuple(logits.shape) == (2, 5, *sizes[0]) and expected.std() > 0.1
    assert (ours.channels, ours.strides) == ([9], (4.0,))
    assert_same_up_to_rounding(logits, expected)


@torch.no_grad()
def test_fewer_than_four_maps_are_joined_as_well():
    head = random_weights(make_head("segformer", {"channels": 9}, [6, 8], (8.0, 16.0)))
    decoded = head(make_features([6, 8], [(7, 9), (4, 5)], (8.0, 16.0)))
    assert [tuple(level.shape) for level in decoded] == [(2, 9, 7, 9)] and head.strides == (8.0,)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"channels": -8}, "head_config.channels is -8; it must be an integer of at least 1"),
        ({"classifier_dropout": "0.1"}, "head_config.classifier_dropout is '0.1'; it must be a number of at least 0"),
    ],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(head="segformer", head_config=options)
