"""What the panel shows of a model whose depth has no unit."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from transformers import BatchFeature

from depthseg.data import Sample
from depthseg.engine import panel
from depthseg.engine.visualization import colourise_depth

TRUTH = np.linspace(2, 20, 24, dtype=np.float32).reshape(4, 6)


class Scenes:
    label_space = None
    names = ["a"]

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return Sample("a", np.zeros((4, 6, 3), np.uint8), None, TRUTH)


class Affine(nn.Module):
    """Knows the depth up to scale and shift."""

    device = torch.device("cpu")
    config = SimpleNamespace(depth_type="relative")

    def forward(self, pixel_values):
        return {"predicted_depth": 0.1 * torch.from_numpy(TRUTH)[None] - 0.1}


class Processor:
    def __call__(self, images, return_tensors):
        return BatchFeature({"pixel_values": torch.zeros(1, 3, 4, 6)})

    def post_process_depth_estimation(self, outputs, target_sizes):
        return [{"predicted_depth": outputs["predicted_depth"][0]}]


def test_relative_depth_is_shown_near_bright(tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(panel, "write_panel", lambda path, **parts: shown.update(parts))
    model = Affine().train()
    panel.write_prediction_panel(tmp_path / "panel.png", model, Processor(), Scenes())
    assert model.training and shown["titles"] == ["input", "predicted depth", "true depth"]
    predicted, truth = shown["rows"][0][1].astype(int).sum(-1), shown["rows"][0][2].astype(int).sum(-1)
    assert predicted.flatten()[0] > predicted.flatten()[12] > predicted.flatten()[-1]
    assert np.array_equal(np.argsort(-predicted, axis=None)[:1], np.argsort(-truth, axis=None)[:1])
    assert np.array_equal(shown["rows"][0][2], colourise_depth(TRUTH))
