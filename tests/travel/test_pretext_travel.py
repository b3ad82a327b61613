"""Checkpoints of the other pre-trainings are loaded by people who do not have depthseg, and become segmenters."""

from pathlib import Path

import numpy as np
import pytest
from hub_client import run_client
from hub_server import ROOT, LoopbackHub
from travel.arrivals import assert_same_prediction

TASKS = ("flow", "reconstruction", "classification")
# Where each is loaded from; the road by the Hub fetches file after file.
ROADS = [("flow", "folder"), ("flow", "hub"), ("reconstruction", "hub"), ("classification", "folder")]
# The image processor's file goes with an image processor.
OURS = {path.name: path.read_text() for path in (ROOT / "depthseg" / "models").glob("*_depthseg.py")}
del OURS["image_processing_depthseg.py"]
del OURS["image_inputs_depthseg.py"]  # travels with the image processor
HERE = """
import numpy as np, torch
from transformers import AutoModelForImageClassification, AutoModelForImageToImage, AutoModelForSemanticSegmentation
from transformers.dynamic_module_utils import get_class_from_dynamic_module

image = torch.linspace(-1, 1, 3 * 50 * 70).reshape(1, 3, 50, 70)

@torch.inference_mode()
def keep(name, task, model):
    model = model.eval()
    output = model(image, image.flip(3)) if task == "flow" else model(image)
    np.save(name, output.to_tuple()[0].numpy())

def as_segmenter(source, **kwargs):
    torch.manual_seed(1)  # for the new parts
    return AutoModelForSemanticSegmentation.from_pretrained(source, num_labels=11, **kwargs)
"""
SENDER = (
    HERE
    + """
from depthseg import DepthSegConfig, DepthSegForImageClassification, DepthSegForImageReconstruction
from depthseg import DepthSegForOpticalFlow

encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
config = {"encoder_config": encoder, "head_config": {"decoder_channels": [8, 8, 8, 8, 8]}, "num_labels": 5}
classes = {
    "flow": DepthSegForOpticalFlow,
    "reconstruction": DepthSegForImageReconstruction,
    "classification": DepthSegForImageClassification,
}
for task, task_class in classes.items():
    torch.manual_seed(0)
    model = task_class(DepthSegConfig(**config))
    model.save_pretrained(task)
    model.push_to_hub(f"tester/{task}")
    keep(task, task, model)
    keep(f"{task}.labels", "labels", as_segmenter(task))
keep("painter.labels", "labels", as_segmenter("reconstruction", transfer_head=True))
"""
)
RECEIVER = (
    HERE
    + """
from pathlib import Path

def load(task, source, **kwargs):
    if task == "flow":
        name = "modeling_pretext_depthseg.DepthSegForOpticalFlow"
        return get_class_from_dynamic_module(name, source).from_pretrained(source)
    auto_class = {"reconstruction": AutoModelForImageToImage, "classification": AutoModelForImageClassification}[task]
    return auto_class.from_pretrained(source, trust_remote_code=True)

for task, road in arg["roads"]:
    source = f"tester/{task}" if road == "hub" else f"{arg['sent']}/{task}"
    keep(f"{road}.{task}", task, load(task, source))
    keep(f"{road}.{task}.labels", "labels", as_segmenter(source, trust_remote_code=True))
keep("painter.labels", "labels", as_segmenter("tester/reconstruction", transfer_head=True, trust_remote_code=True))

flow = load("flow", "tester/flow")
flow.save_pretrained("again")
result["files"] = {path.name: path.read_text() for path in Path("again").glob("*.py")}
keep("again", "flow", load("flow", "again"))
"""
)

# Two processes, each of which imports torch and transformers: half a minute.
pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def sent(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("sender")
    run_client(hub, home, SENDER, depthseg=True)
    return home


@pytest.fixture(scope="module")
def received(hub: LoopbackHub, sent: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    home = tmp_path_factory.mktemp("receiver")
    return home, run_client(hub, home, RECEIVER, roads=ROADS, sent=str(sent))


@pytest.mark.parametrize("suffix", ["", ".labels"])
@pytest.mark.parametrize(("task", "road"), ROADS)
def test_every_task_arrives_as_itself_and_as_segmenter(
    sent: Path, received: tuple[Path, dict], task: str, road: str, suffix: str
) -> None:
    assert_same_prediction(received[0] / f"{road}.{task}{suffix}.npy", sent / f"{task}{suffix}.npy")


def test_the_decoder_of_a_reconstruction_arrives_on_request(sent: Path, received: tuple[Path, dict]) -> None:
    with_decoder, without = np.load(sent / "painter.labels.npy"), np.load(sent / "reconstruction.labels.npy")
    assert np.abs(with_decoder - without).max() > 1e-3
    assert_same_prediction(received[0] / "painter.labels.npy", sent / "painter.labels.npy")


def test_the_whole_code_arrives_with_every_task(hub: LoopbackHub, sent: Path) -> None:
    assert "modeling_pretext_depthseg.py" in OURS
    for task in TASKS:
        pushed = hub.files(f"models/tester/{task}")[1]
        assert {path: content.decode() for path, content in pushed.items() if path.endswith(".py")} == OURS
        assert set(pushed) - set(OURS) == {"README.md", "config.json", "model.safetensors"}


def test_flow_that_was_loaded_without_depthseg_keeps_its_code_when_saved_again(
    sent: Path, received: tuple[Path, dict]
) -> None:
    home, found = received
    assert found["files"] == OURS
    assert_same_prediction(home / "again.npy", sent / "flow.npy")
