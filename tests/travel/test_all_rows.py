"""Every row of the tables of encoders and heads, and every depth family, is loaded by people who have no depthseg."""

from pathlib import Path

import pytest
from hub_client import run_client
from hub_server import LoopbackHub
from models.test_families_dpt import FAMILIES as DPT_FAMILIES
from models.test_families_dpt import make_foreign
from models.tiny_models import TINY_ENCODERS, TINY_HEADS
from travel.arrivals import assert_same_prediction

from depthseg.models import ENCODERS, HEADS, DepthSegForDepthEstimation

HERE = """
import numpy as np, torch
image = torch.linspace(-1, 1, 3 * 64 * 96).reshape(1, 3, 64, 96)
"""
SENDER = (
    HERE
    + """
from depthseg.models import DepthSegConfig, DepthSegForSemanticSegmentation
for name, options in arg["models"].items():
    model = DepthSegForSemanticSegmentation(DepthSegConfig(**options, num_labels=5)).eval()
    model.save_pretrained(name)
    np.save(f"{name}.npy", model(image).logits.detach().numpy())
"""
)
RECEIVER = (
    HERE
    + """
from transformers import AutoModelForSemanticSegmentation
for name in arg["names"]:
    model = AutoModelForSemanticSegmentation.from_pretrained(f"{arg['sent']}/{name}", trust_remote_code=True)
    np.save(f"{name}.npy", model(image).logits.detach().numpy())
"""
)


def native_options(family: str, folder: Path) -> dict:
    """The configuration of a tiny depth model of transformers, as it is after conversion."""
    make_foreign(family)[0].save_pretrained(folder)
    config = DepthSegForDepthEstimation.from_depth_pretrained(folder).config.to_dict()
    names = ("encoder_config", "head_type", "head_config", "depth_type")
    return {name: config[name] for name in names} | {
        "encoder_config": {k: v for k, v in config["encoder_config"].items() if v is not None}
    }


@pytest.mark.heavy
def test_every_row_arrives(hub: LoopbackHub, tmp_path: Path) -> None:
    models = {
        f"encoder-{encoder}": {"encoder_config": {"model_type": encoder, **options}, "head_type": "linear"}
        for encoder, options in TINY_ENCODERS.items()
    }
    dinov2 = {"model_type": "dinov2", **TINY_ENCODERS["dinov2"]}
    models |= {
        f"head-{head}": {"encoder_config": dinov2, "head_type": head, "head_config": options}
        for head, options in TINY_HEADS.items()
    }
    models |= {f"native-{family}": native_options(family, tmp_path / family) for family in DPT_FAMILIES}
    assert set(TINY_ENCODERS) == set(ENCODERS) and set(TINY_HEADS) | {"native"} == set(HEADS)
    run_client(hub, tmp_path / "sender", SENDER, depthseg=True, models=models)
    run_client(hub, tmp_path / "receiver", RECEIVER, names=list(models), sent=str(tmp_path / "sender"))
    for name in models:
        assert_same_prediction(tmp_path / "receiver" / f"{name}.npy", tmp_path / "sender" / f"{name}.npy")
