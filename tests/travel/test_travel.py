"""A saved model is loaded by people who do not have depthseg: from a folder and through the Hub, as depth and labels.

One process with depthseg builds, saves, pushes and notes what its models predict; another one, which cannot import
depthseg, loads everything by the Auto classes of transformers.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from hub_client import run_client
from hub_server import ROOT, LoopbackHub
from rounding import assert_same_ids, assert_same_up_to_rounding
from travel.arrivals import assert_same_prediction

# Position embeddings of the size that the encoder's dry run has; resizing them there takes time.
TINY_VIT = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 14, "image_size": 140}
SMALL_DPT = {"neck_hidden_sizes": [8, 12, 16, 20], "fusion_hidden_size": 16}
# Convolutions, a backbone of transformers, a ViT that is none. The whole tables travel in test_all_rows.py.
MODELS = {
    "resnet-monodepth2": ({"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.25}, "monodepth2", {}),
    "dinov2-dpt": ({"model_type": "dinov2", "out_indices": [1, 2, 3, 4], **TINY_VIT}, "dpt", SMALL_DPT),
    "vit-linear": ({"model_type": "vit", **TINY_VIT}, "linear", {}),
}
# Where each model is loaded from.
ROADS = [("resnet-monodepth2", "folder"), *((name, "hub") for name in MODELS)]
TASKS = ("depth", "labels")

HERE = """
import numpy as np, torch
from transformers import AutoImageProcessor, AutoModelForDepthEstimation, AutoModelForSemanticSegmentation, pipeline

image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)

def forward(model, processor):
    with torch.inference_mode():
        return model.eval()(**processor(images=[image], return_tensors="pt"))

def keep(path, value):
    np.save(path, value.float().numpy())

def as_depth(source, **kwargs):
    return AutoModelForDepthEstimation.from_pretrained(source, **kwargs)

def as_segmenter(source, **kwargs):
    torch.manual_seed(1)  # for the new classifier
    return AutoModelForSemanticSegmentation.from_pretrained(source, num_labels=11, **kwargs)
"""
SENDER = (
    HERE
    + """
from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation, DepthSegImageProcessor

processor = DepthSegImageProcessor(size={"height": 56, "width": 84})
for name, (encoder, head, options) in arg["models"].items():
    torch.manual_seed(0)
    config = DepthSegConfig(encoder_config=encoder, head_type=head, head_config=options)
    model = DepthSegForDepthEstimation(config)
    for part in (model, processor):
        part.save_pretrained(name)
        part.push_to_hub(f"tester/{name}")
    keep(f"{name}.depth", forward(model, processor).predicted_depth)
    keep(f"{name}.labels", forward(as_segmenter(name), processor).logits)

both = as_segmenter(next(iter(arg["models"])), keep_depth=True)
outputs = forward(both, processor)
keep("both.depth", outputs.predicted_depth)
keep("both.labels", outputs.logits)
for part in (both, processor):
    part.push_to_hub("tester/both")
"""
)
RECEIVER = (
    HERE
    + """
from pathlib import Path
from PIL import Image

for name, road in arg["roads"]:
    source = f"tester/{name}" if road == "hub" else f"{arg['sent']}/{name}"
    processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=True)
    depth = as_depth(source, trust_remote_code=True)
    keep(f"{road}.{name}.depth", forward(depth, processor).predicted_depth)
    keep(f"{road}.{name}.labels", forward(as_segmenter(source, trust_remote_code=True), processor).logits)

both = AutoModelForSemanticSegmentation.from_pretrained("tester/both", trust_remote_code=True)
outputs = forward(both, processor)
keep("both.depth", outputs.predicted_depth)
keep("both.labels", outputs.logits)

for part in (both, processor):
    part.save_pretrained("again")
again = AutoModelForSemanticSegmentation.from_pretrained("again", trust_remote_code=True)
keep("again.labels", forward(again, AutoImageProcessor.from_pretrained("again", trust_remote_code=True)).logits)
result["files"] = {path.name: path.read_text() for path in Path("again").glob("*.py")}
result["module"] = type(again).__module__

image = Image.fromarray(image)
segments = pipeline("image-segmentation", "tester/both", trust_remote_code=True, device="cpu")(image)
result["segments"] = {s["label"]: (np.array(s["mask"]) > 0).tolist() for s in segments}
estimate = pipeline("depth-estimation", f"tester/{arg['roads'][0][0]}", trust_remote_code=True, device="cpu")(image)
result["estimate"] = [list(estimate["depth"].size), estimate["predicted_depth"].tolist()]
"""
)


@pytest.fixture(scope="module")
def sent(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the sender: saved models and what they predict."""
    home = tmp_path_factory.mktemp("sender")
    run_client(hub, home, SENDER, depthseg=True, models=MODELS)
    return home


@pytest.fixture(scope="module")
def received(hub: LoopbackHub, sent: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Folder and findings of the receiver, who has no depthseg."""
    home = tmp_path_factory.mktemp("receiver")
    return home, run_client(hub, home, RECEIVER, roads=ROADS, sent=str(sent))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("name", "road"), ROADS)
def test_a_depth_model_arrives_as_depth_and_as_segmenter(
    sent: Path, received, name: str, road: str, task: str
) -> None:
    assert np.load(sent / f"{name}.{task}.npy").shape[1] == (11 if task == "labels" else 56)
    assert_same_prediction(received[0] / f"{road}.{name}.{task}.npy", sent / f"{name}.{task}.npy")


@pytest.mark.parametrize("task", TASKS)
def test_one_forward_of_a_travelled_segmenter_gives_labels_and_depth(sent: Path, received, task: str) -> None:
    assert_same_prediction(received[0] / f"both.{task}.npy", sent / f"both.{task}.npy")


def test_the_whole_code_arrives_and_nothing_else(hub: LoopbackHub, sent: Path) -> None:
    ours = {path.name: path.read_bytes() for path in (ROOT / "depthseg" / "models").glob("*_depthseg.py")}
    assert "modeling_depthseg.py" in ours
    for name in MODELS:
        pushed = hub.files(f"models/tester/{name}")[1]
        assert {path: content for path, content in pushed.items() if path.endswith(".py")} == ours
        others = set(pushed) - set(ours)
        assert others == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
        for path in {*others, *ours} - {"README.md"}:
            assert (sent / name / path).read_bytes() == pushed[path], path


def test_weights_go_as_large_files(hub: LoopbackHub, sent: Path) -> None:
    for name in MODELS:
        assert (sent / name / "model.safetensors").read_bytes() in hub.stored.values()


def test_a_model_that_was_loaded_without_depthseg_keeps_its_code_when_saved_again(sent: Path, received) -> None:
    home, found = received
    ours = {path.name: path.read_text() for path in (ROOT / "depthseg" / "models").glob("*_depthseg.py")}
    assert found["files"] == ours
    assert found["module"].startswith("transformers_modules.again.")
    assert_same_prediction(home / "again.labels.npy", sent / "both.labels.npy")


def test_pipelines_work_without_depthseg(sent: Path, received) -> None:
    segments = received[1]["segments"]
    logits = torch.from_numpy(np.load(sent / "both.labels.npy"))
    scores = torch.nn.functional.interpolate(logits, size=(50, 70), mode="bilinear", align_corners=False)[0]
    masks = {int(name.removeprefix("LABEL_")): np.array(mask) for name, mask in segments.items()}
    np.testing.assert_array_equal(sum(mask.astype(int) for mask in masks.values()), 1)  # every pixel has one label
    assert_same_ids(sum(label * mask for label, mask in masks.items()), scores)

    size, depth = received[1]["estimate"]
    assert size == [70, 50]
    expected = torch.from_numpy(np.load(sent / f"{next(iter(MODELS))}.depth.npy"))
    expected = torch.nn.functional.interpolate(expected[None], size=(50, 70), mode="bilinear", align_corners=False)
    assert_same_up_to_rounding(np.array(depth, np.float32), expected[0, 0])
