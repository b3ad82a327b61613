"""Somebody's depth model on the Hub becomes a segmenter by its id, travels on, and says where it came from."""

from pathlib import Path

import numpy as np
import pytest
from hub_client import run_client
from hub_server import LoopbackHub
from travel.arrivals import assert_same_prediction

BACKBONE = {
    "model_type": "dinov2",
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "patch_size": 14,
    "image_size": 140,
    "out_indices": [1, 2, 3, 4],
    "reshape_hidden_states": False,
}
NECK = {"reassemble_hidden_size": 24, "neck_hidden_sizes": [8, 12, 16, 20], "fusion_hidden_size": 16}
OWNER = """
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation
model = DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=arg["backbone"], **arg["neck"]))
result["commits"] = [model.push_to_hub("owner/depth", commit_message=str(i)).oid for i in range(1)]
"""
FINE_TUNER = """
import numpy as np, torch
from depthseg import DepthSegForSemanticSegmentation
torch.manual_seed(0)
model = DepthSegForSemanticSegmentation.from_depth_pretrained(
    "owner/depth", head_type="dpt", num_labels=19, keep_depth=True, revision=arg["revision"]
)
result["report"] = model.transfer_report.to_dict()
model.push_to_hub("tester/segmenter")
outputs = model(torch.linspace(-1, 1, 3 * 56 * 84).reshape(1, 3, 56, 84))
np.save("labels.npy", outputs.logits.detach().numpy())
np.save("depth.npy", outputs.predicted_depth.detach().numpy())
"""
RECEIVER = """
import numpy as np, torch
from transformers import AutoModelForDepthEstimation, AutoModelForSemanticSegmentation
image = torch.linspace(-1, 1, 3 * 56 * 84).reshape(1, 3, 56, 84)
model = AutoModelForSemanticSegmentation.from_pretrained("tester/segmenter", trust_remote_code=True)
np.save("labels.npy", model(image).logits.detach().numpy())
owners = AutoModelForDepthEstimation.from_pretrained("owner/depth")
np.save("depth.npy", owners(image).predicted_depth.detach().numpy())
"""

# Three processes, each of which imports torch and transformers: half a minute.
pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def journey(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, str]:
    home = tmp_path_factory.mktemp("journey")
    commit = run_client(hub, home / "owner", OWNER, backbone=BACKBONE, neck=NECK)["commits"][-1]
    made = run_client(hub, home / "tuner", FINE_TUNER, depthseg=True, revision=commit)
    run_client(hub, home / "receiver", RECEIVER)
    return home, made["report"], commit


def test_labels_arrive_and_the_depth_is_still_that_of_the_owner(journey) -> None:
    home, _, _ = journey
    labels = np.load(home / "tuner" / "labels.npy")
    assert labels.shape == (1, 19, 56, 84)
    assert_same_prediction(home / "receiver" / "labels.npy", home / "tuner" / "labels.npy")
    assert_same_prediction(home / "tuner" / "depth.npy", home / "receiver" / "depth.npy")


def test_the_report_names_the_owner_the_revision_and_every_part(journey) -> None:
    _, report, commit = journey
    assert (report["source"], report["revision"]) == ("owner/depth", commit)
    assert report["source_class"] == "DepthAnythingForDepthEstimation"
    assert {part["part"]: part["status"] for part in report["parts"]} == {
        "encoder": "taken",
        "head": "taken",
        "depth_predictor": "taken",
        "classifier": "new",
    }
