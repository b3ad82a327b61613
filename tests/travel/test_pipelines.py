"""transformers' pipelines take saved models without a word of doubt, with depthseg and without."""

from pathlib import Path

import numpy as np
import pytest
from hub_client import run_client
from hub_server import LoopbackHub

ENCODER = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
SENDER = """
import torch
from depthseg.models import *

torch.manual_seed(0)
models = {
    "depth": DepthSegForDepthEstimation(DepthSegConfig(encoder_config=arg["encoder"])),
    "crack": DepthSegForSemanticSegmentation(DepthSegConfig(encoder_config=arg["encoder"], id2label={0: "crack"})),
    "photo": DepthSegForImageClassification(DepthSegConfig(encoder_config=arg["encoder"], num_labels=3)),
}
for name, model in models.items():
    for part in (model, DepthSegImageProcessor()):
        part.save_pretrained(name)
"""
RECEIVER = """
import logging
import numpy as np, torch
from PIL import Image
from transformers import AutoModelForSemanticSegmentation, pipeline

lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger("transformers").addHandler(handler)
if arg["local"]:
    import depthseg.models
image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))
trust = {} if arg["local"] else {"trust_remote_code": True}

def run(task, name):
    return pipeline(task, f"{arg['sent']}/{name}", **trust)(image)

segments = run("image-segmentation", "crack")
result["segments"] = {part["label"]: int((np.array(part["mask"]) > 0).sum()) for part in segments}
result["depth"] = list(run("depth-estimation", "depth")["depth"].size)
result["photo"] = sorted(part["label"] for part in run("image-classification", "photo"))
one = AutoModelForSemanticSegmentation.from_pretrained(f"{arg['sent']}/depth", num_labels=1, **trust)
labels = torch.zeros(2, 64, 96, dtype=torch.long)
labels[:, 20:40] = 1
result["one"] = [one.config.num_labels, one(torch.rand(2, 3, 64, 96), labels=labels).loss.item()]
result["lines"] = lines
"""


@pytest.fixture(scope="module")
def sent(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the sender."""
    home = tmp_path_factory.mktemp("sender")
    run_client(hub, home, SENDER, depthseg=True, encoder=ENCODER)
    return home


@pytest.mark.heavy
@pytest.mark.parametrize("local", [True, False], ids=["with depthseg", "without depthseg"])
def test_pipelines_know_the_models(hub, sent, tmp_path, local):
    found = run_client(hub, tmp_path, RECEIVER, depthseg=local, local=local, sent=str(sent))
    assert set(found["segments"]) <= {"background", "crack"} and sum(found["segments"].values()) == 64 * 96
    assert found["depth"] == [96, 64]
    assert found["photo"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert not [line for line in found["lines"] if "not supported" in line]
    count, loss = found["one"]
    assert count == 1 and loss > 0.1 and np.isfinite(loss)
