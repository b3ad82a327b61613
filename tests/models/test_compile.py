"""`torch.compile` takes every head and every class of encoders as one graph, and computes what the model computes."""

from __future__ import annotations

import pytest
import torch
from models.tiny_models import ENCODERS_OF_CLASSES, TINY_HEADS, tiny_model
from rounding import assert_same_up_to_rounding

from depthseg.models import HEADS

SIZE = (60, 100)  # no multiple of any patch, so that images are padded and logits cropped

# An encoder of every class with one head, and every head with one encoder. By default the convolutional and the plain
# ViT encoder with a few heads; the rest is heavy. Depth differs by its last layer, which one head shows.
COMBINATIONS = dict.fromkeys(
    [
        *(("segmentation", encoder, "dpt") for encoder in ENCODERS_OF_CLASSES),
        *(("segmentation", "vit", head) for head in TINY_HEADS if "segmentation" in HEADS[head].tasks),
        ("segmentation", "depthseg_resnet", "monodepth2"),
        ("depth", "vit", "dpt"),
    ]
)


def is_heavy(task: str, encoder: str, head: str) -> bool:
    light = encoder in ("depthseg_resnet", "vit") and head in ("dpt", "linear", "mask_queries")
    return task == "depth" or not light


@pytest.fixture(autouse=True)
def forget_graphs():
    """Graphs of one test count towards the limit of recompilations of the next."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize(
    "combination",
    [
        pytest.param(names, id="-".join(names), marks=pytest.mark.heavy if is_heavy(*names) else ())
        for names in COMBINATIONS
    ],
)
def test_a_model_is_one_graph_with_the_same_outputs(combination):
    model = tiny_model(*combination).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    pixels = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        expected, found = model(pixel_values=pixels), compiled(pixel_values=pixels)
    assert expected.keys() == found.keys()
    name = "logits" if combination[0] == "segmentation" else "predicted_depth"
    assert_same_up_to_rounding(found[name], expected[name])
