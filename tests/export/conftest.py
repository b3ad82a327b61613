"""A model and its file, for every test of them: tracing takes seconds."""

import pytest
import torch
from export.exported_models import save_model

from depthseg.export.command import export


@pytest.fixture(scope="session")
def vit(tmp_path_factory):
    """A joint ViT in bfloat16 and its file with all outputs."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit")
    save_model(folder / "model", "segmentation", "dinov2", "linear", keep_depth=True, dtype="bfloat16")
    returns = ["labels", "logits", "depth"]
    return folder / "model", export(folder / "model", folder / "model.onnx", returns=returns)
