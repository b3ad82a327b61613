"""Padding and attention that Swin is traced with compute what those of transformers do, at any size."""

from __future__ import annotations

import pytest
import torch
from models.tiny_models import scramble, tiny_model
from rounding import assert_same_up_to_rounding

from depthseg.export.windows import PADDINGS, traceable_windows


@pytest.mark.parametrize("encoder", ["swin", "swinv2", "maskformer-swin"])
@torch.no_grad()
def test_traceable_windows_compute_what_transformers_computes(encoder):
    """Sides that are whole windows of every stage, odd ones, and ones that no patch fits."""
    torch.manual_seed(0)
    model = scramble(tiny_model("segmentation", encoder, "linear").eval())
    padding = [module for module in model.modules() if type(module) in PADDINGS]
    assert len(padding) == 1 + 5 + 3  # patches, layers, and merging between four stages
    before = [module.maybe_pad.__func__ for module in padding]
    for height, width in ((256, 384), (129, 131), (148, 129), (180, 206)):
        pixel_values = torch.randn(2, 3, height, width)
        expected = model(pixel_values=pixel_values).logits
        with traceable_windows(model):
            assert not any(hasattr(module.maybe_pad, "__func__") for module in padding)
            logits = model(pixel_values=pixel_values).logits
        assert_same_up_to_rounding(logits, expected)
    assert [module.maybe_pad.__func__ for module in padding] == before
