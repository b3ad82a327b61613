"""The published depth models, built from their configurations without weights, against a stored list.

`references/published_depth_models.json` holds for each model its configuration, with the conversion script that it
comes from; the number of parameters, how many of them are left over, and the number that its authors publish; and our
tensors, names that differ in a number alone as one: how many there are and how many numbers they hold.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForDepthEstimation
from transformers.models.auto.modeling_auto import MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES

from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation
from depthseg.models.heads_base_depthseg import ENDINGS
from depthseg.models.heads_depthseg import build_head
from depthseg.models.heads_native_depthseg import NATIVE_HEADS
from depthseg.models.transfer_families_depthseg import (
    DEPTH_FAMILIES,
    UNSUPPORTED_FAMILIES,
    convert_config,
    depth_family,
    rename,
)

PUBLISHED = json.loads((Path(__file__).parents[1] / "references" / "published_depth_models.json").read_text())
# Of each form of network one size is built by default.
LARGER = ("Depth-Anything-V2-Base-hf", "Depth-Anything-V2-Large-hf", "dpt-large", "dpt-beit-large-512")
MODELS = [
    pytest.param(name, id=name.split("/")[1], marks=[pytest.mark.heavy] if name.endswith(LARGER) else [])
    for name in PUBLISHED
]


@pytest.fixture(scope="module", params=MODELS)
def published(request):
    """The stored facts, and the model as transformers and as we build it."""
    facts = PUBLISHED[request.param]
    options = dict(facts["config"])
    config = CONFIG_MAPPING[options.pop("model_type")](**options)
    with torch.device("meta"):
        theirs = AutoModelForDepthEstimation.from_config(config)
        ours = DepthSegForDepthEstimation(DepthSegConfig(**convert_config(config)))
    return facts, theirs, ours


def count(model, prefixes: tuple[str, ...] = ("",)) -> int:
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name.startswith(prefixes))


def test_every_tensor_has_one_place_or_a_reason(published):
    _, theirs, ours = published
    family = DEPTH_FAMILIES[theirs.config.model_type]
    names = [rename(name, family.names(theirs.config)) for name in theirs.state_dict()]
    assert len(set(names)) == len(names)
    shapes = {name: tensor.shape for name, tensor in zip(names, theirs.state_dict().values(), strict=True)}
    rest = {name for name in names if name.startswith(tuple(family.left_over))} if family.left_over else set()
    assert all(len(why.split()) > 3 for why in family.left_over.values())
    taken = {name: shape for name, shape in shapes.items() if name not in rest}
    assert taken == {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert sum(shapes[name].numel() for name in rest) == published[0]["left_over"]


def test_names_and_sizes_are_those_of_the_stored_list(published):
    facts, _, ours = published
    found: dict[str, list[int]] = {}
    for name, tensor in ours.state_dict().items():
        entry = found.setdefault(re.sub(r"\.\d+(?=\.)", ".*", name), [0, 0])
        entry[0] += 1
        entry[1] += tensor.numel()
    assert found == facts["tensors"]


def test_parameter_counts_are_the_stored_and_the_published_ones(published):
    facts, theirs, ours = published
    assert count(theirs) == facts["parameters"]
    assert count(ours) == facts["parameters"] - facts["left_over"]
    told = facts["published"]
    whole = ours if "parts" in told else theirs
    ours_and_beyond = count(whole, tuple(told.get("parts", [""]))) + told["beyond_ours"]
    digits = len(str(told["millions"]).partition(".")[2])
    assert round(ours_and_beyond / 1e6, digits) == told["millions"]
    assert bool(told["beyond_ours"]) == bool(told["why"])


def test_a_segmenter_has_the_same_head_with_either_ending(published):
    _, _, ours = published
    expected = {name: tensor.shape for name, tensor in ours.head.state_dict().items()}
    encoder, config = ours.encoder, ours.config
    for ending in ENDINGS:
        options = config.head_config | {"ending": ending}
        with torch.device("meta"):
            head = build_head("native", options, encoder.channels, encoder.strides, encoder.num_prefix_tokens)
            head.serve(depth=False, labels=True)
            classifier = head.make_classifier(19)
        assert {name: tensor.shape for name, tensor in head.state_dict().items()} == expected
        last = [module for module in classifier.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        assert last.out_channels == 19


def test_the_metric_head_of_zoedepth_has_the_layers_of_its_description():
    """Its parameters, layer by layer: convolutions of 1x1 with bias, and four layers of a transformer."""

    def conv(channels_in: int, channels_out: int) -> int:
        return channels_in * channels_out + channels_out

    def pair(channels_in: int, hidden: int, channels_out: int) -> int:
        return conv(channels_in, hidden) + conv(hidden, channels_out)

    fused, bins, embedding, refined = 256, 64, 128, 32
    attention, norms = 4 * conv(128, 128), 2 * 2 * 128
    router = conv(fused, 128) + 4 * (attention + pair(128, 1024, 128) + norms) + pair(128, 128, 2)
    projectors = 5 * pair(fused, embedding // 2, embedding)
    # Each of the four attractor layers has 16 attractors, in transformers and in the original code.
    domain = pair(fused, embedding // 2, bins) + 4 * pair(embedding, embedding, 16)
    domain += pair(refined + embedding, (refined + embedding) // 4, 4)
    expected = conv(fused, fused) + router + projectors + 2 * domain
    tensors = PUBLISHED["Intel/zoedepth-nyu-kitti"]["tensors"]
    found = sum(numbers for name, (_, numbers) in tensors.items() if ".metric_head." in name)
    assert found == expected


def test_every_depth_family_of_transformers_is_read_or_refused_with_a_reason():
    theirs = MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES.keys() - {"depthseg"}
    assert theirs <= DEPTH_FAMILIES.keys() | UNSUPPORTED_FAMILIES.keys()
    assert DEPTH_FAMILIES.keys().isdisjoint(UNSUPPORTED_FAMILIES)
    assert DEPTH_FAMILIES.keys() == NATIVE_HEADS.keys()
    for model_type, why in UNSUPPORTED_FAMILIES.items():
        assert len(why.split()) > 3
        with pytest.raises(ValueError, match=f"{model_type!r}, which is not supported: {re.escape(why)}"):
            depth_family(model_type, "somebody/their-model")


def test_families_name_the_classes_that_transformers_has_for_them():
    for model_type, family in DEPTH_FAMILIES.items():
        assert MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES[model_type] in family.classes


def test_the_list_covers_the_families_and_sizes_that_were_promised():
    families = {facts["config"]["model_type"] for facts in PUBLISHED.values()}
    assert families == DEPTH_FAMILIES.keys() - {"prompt_depth_anything"}
    assert len(PUBLISHED) == 10
