"""The checkpoint of every released version loads in the code of today, and computes what it did when it came out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depthseg import DepthSegForSemanticSegmentation, DepthSegImageProcessor

ROOT = Path(__file__).parents[2]
RELEASED = {"0.1.0": ROOT / "model_cards" / "depthseg-tiny-world"}


@pytest.mark.parametrize("version", RELEASED)
def test_a_released_checkpoint_computes_what_it_did(version):
    folder = RELEASED[version]
    model = DepthSegForSemanticSegmentation.from_pretrained(folder, dtype=torch.float32).eval()
    assert all(part.status == "taken" for part in model.transfer_report.parts)
    processor = DepthSegImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        outputs = model(**processor(images=[Image.open(folder / "street.png")], return_tensors="pt"))
    with np.load(ROOT / "tests" / "references" / f"tiny_world_{version}.npz") as then:
        np.testing.assert_allclose(outputs.logits[0, :, ::8, ::8], then["logits"], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(outputs.predicted_depth[0, ::8, ::8], then["depth"], rtol=1e-3)
