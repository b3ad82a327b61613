"""Publishing converted checkpoints, adapters and exported files, which have no run directory."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from convert.published_convnets import Monodepth2Decoder, Monodepth2Encoder, ResNet, randomise
from export.exported_models import save_model
from hub_client import run_client
from hub_server import ROOT
from huggingface_hub import ModelCard

from depthseg.cli import main
from depthseg.convert.saving import convert
from depthseg.engine.config import load_config
from depthseg.export.command import export
from depthseg.hub.bundle import MANIFEST
from depthseg.hub.facts import Facts
from depthseg.hub.record import LINEAGE_FILE, trace
from depthseg.hub.without_run import prepare_without_run

PUSH = """
from depthseg.hub import push as module
done = module.push(arg["folder"], arg["repo"])
result["revision"] = done.revision
"""
DOWNLOAD = """
import torch
from transformers import AutoModelForDepthEstimation
where = {"revision": arg["revision"], "code_revision": arg["revision"], "trust_remote_code": True}
model = AutoModelForDepthEstimation.from_pretrained(arg["repo"], **where).eval()
image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
with torch.no_grad():
    result["depth"] = model(image).predicted_depth.tolist()
"""
USE_EXPORT = """
import numpy, onnxruntime
from huggingface_hub import hf_hub_download
network = onnxruntime.InferenceSession(hf_hub_download(arg["repo"], "model.onnx"))
images = numpy.full((1, 61, 75, 3), 90, numpy.uint8)
result["labels"] = network.run(["labels"], {"images": images})[0].tolist()
"""
MONODEPTH2 = "other:monodepth2-license:https://github.com/nianticlabs/monodepth2/blob/master/LICENSE"


@pytest.fixture(scope="module")
def networks():
    encoder = randomise(Monodepth2Encoder(18, base=8), 0)
    return encoder, randomise(Monodepth2Decoder(encoder.num_ch_enc), 1)


@pytest.fixture(scope="module")
def folder(networks, tmp_path_factory):
    """A converted depth network."""
    place = tmp_path_factory.mktemp("converted")
    for name, network in zip(("encoder", "depth"), networks, strict=True):
        torch.save(network.state_dict(), place / f"{name}.pth")
    convert([place / "encoder.pth", place / "depth.pth"], place / "monodepth2")
    return place / "monodepth2"


def test_licence_of_the_weights_is_known_from_their_layout(folder, tmp_path):
    with pytest.raises(ValueError, match="monodepth2 is under monodepth2-license.*mit is another licence.*Niantic"):
        prepare_without_run(folder, "tester/depth", Facts(licence="mit"), tmp_path / "out")
    with pytest.raises(ValueError, match="Licences are missing: that of these weights"):
        prepare_without_run(folder, "tester/depth", Facts(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_from_converted_weights_descends_from_their_layout(folder, tmp_path):
    config = load_config(None, [f"model.pretrained={folder}", "data.name=camvid", "data.root=/data/camvid"])
    lineage = trace(config, tmp_path / "run")
    (weights,) = [source for source in lineage.sources({}) if source.kind == "weights"]
    assert (weights.name, weights.licence.name) == ("monodepth2", "monodepth2-license")


def test_a_bare_encoder_is_not_published(tmp_path):
    torch.save(ResNet(50, num_classes=0, base=8).state_dict(), tmp_path / "dino.pth")
    convert([tmp_path / "dino.pth"], tmp_path / "dino")
    with pytest.raises(ValueError, match=r"bare encoder.*model\.pretrained"):
        prepare_without_run(tmp_path / "dino", "tester/dino", Facts(licence="mit"), tmp_path / "out")


@pytest.mark.heavy
def test_converted_published_and_loaded_elsewhere(hub, networks, folder, tmp_path):
    prepared = tmp_path / "prepared"
    prepare_without_run(folder, "tester/depth", Facts(licence=MONODEPTH2), prepared)
    card = ModelCard.load(prepared / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", "monodepth2-license")
    assert card.data.pipeline_tag == "depth-estimation"
    assert "non-commercial use only" in card.text and "encoder.pth" in card.text
    lineage = json.loads((prepared / LINEAGE_FILE).read_text())
    assert lineage["ancestors"] == [["monodepth2", MONODEPTH2]]
    assert "conversion.json" in json.loads((prepared / MANIFEST).read_text())
    done = run_client(hub, tmp_path, PUSH, depthseg=True, folder=str(prepared), repo="tester/depth")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    there = run_client(hub, tmp_path, DOWNLOAD, repo="tester/depth", revision=done["revision"])
    encoder, decoder = networks
    with torch.no_grad():
        expected = 1 / (0.01 + 9.99 * decoder(encoder(image))[0][:, 0].sigmoid())
    torch.testing.assert_close(torch.tensor(there["depth"]), expected, rtol=1e-4, atol=0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A segmenter as a file; its checkpoint is a folder."""
    pytest.importorskip("onnxruntime", reason="pip install 'depthseg[export]'")
    place = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    save_model(place / "checkpoint", "segmentation", "depthseg_resnet", "linear")
    (place / "file").mkdir()
    export(place / "checkpoint", place / "file" / "model.onnx", returns=["labels", "logits"])
    return place / "file"


@pytest.mark.heavy
def test_an_export_is_published_with_a_card_that_needs_numpy_and_onnxruntime(exported, tmp_path):
    facts = Facts(licence="apache-2.0", licences={"model": "apache-2.0"})
    prepare_without_run(exported, "tester/export", facts, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("onnx", "image-segmentation")
    assert "LABEL_0, LABEL_1" in card.text
    (snippet,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    blocked = "import sys\nfor name in ('torch', 'transformers', 'depthseg', 'PIL'): sys.modules[name] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + snippet], cwd=tmp_path / "out", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "labels (1, 480, 640)" in done.stdout and "logits (1, 5, 480, 640)" in done.stdout


@pytest.mark.heavy
def test_a_program_of_torch_export_is_published_by_the_command(tmp_path):
    """A depth network whose images are scaled outside."""
    torch.manual_seed(0)
    save_model(tmp_path / "checkpoint", "depth", "depthseg_resnet", "linear", depth_type="metric")
    path = tmp_path / "file" / "depth.pt2"
    export(tmp_path / "checkpoint", path, format="torch-export", takes="pixel_values")
    words = ["--licence", "apache-2.0", "--licence-of", "model=apache-2.0", "--dry-run"]
    with pytest.raises(SystemExit) as ended:
        main(["publish", str(path), "tester/export", *words])
    assert not ended.value.code
    card = ModelCard.load(path.parent / "published" / "README.md")
    assert card.data.pipeline_tag == "depth-estimation" and "Depth: metres." in card.text
    (snippet,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['depthseg'] = None\n" + snippet],
        cwd=path.parent / "published",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "depth torch.Size([1, 480, 640])" in done.stdout


@pytest.mark.heavy
def test_an_export_published_and_run_elsewhere(hub, exported, tmp_path):
    facts = Facts(licence="apache-2.0", licences={"model": "apache-2.0"})
    prepare_without_run(exported, "tester/export", facts, tmp_path / "out")
    run_client(hub, tmp_path, PUSH, depthseg=True, folder=str(tmp_path / "out"), repo="tester/export")
    there = run_client(hub, tmp_path / "there", USE_EXPORT, repo="tester/export")
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(exported / "model.onnx"))
    (labels,) = session.run(["labels"], {"images": np.full((1, 61, 75, 3), 90, np.uint8)})
    assert there["labels"] == labels.tolist()


@pytest.mark.heavy
def test_exports_that_are_refused(exported, tmp_path):
    with pytest.raises(ValueError, match="Licences are missing.*checkpoint model"):
        prepare_without_run(exported, "tester/export", Facts(licence="mit"), tmp_path / "out")
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match="cannot be read by onnxruntime"):
        prepare_without_run(tmp_path / "broken.onnx", "tester/export", Facts(licence="mit"), tmp_path / "out")
    (tmp_path / "two.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match="several exported files"):
        prepare_without_run(tmp_path, "tester/export", Facts(licence="mit"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_adapters_of_a_local_base_are_refused(tmp_path):
    base = {"base_model_name_or_path": str(tmp_path), "revision": None}
    (tmp_path / "adapter_config.json").write_text(json.dumps(base))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="a folder of this machine.*Publish that base"):
        prepare_without_run(tmp_path, "tester/adapters", Facts(licence="mit"), tmp_path / "out")


PUBLISH_ADAPTERS = """
import sys; sys.path.insert(0, arg["tests"])
import re, torch
from pathlib import Path
from huggingface_hub import HfApi
from engine.test_before_after import write_depth_anything
from depthseg import DepthSegForSemanticSegmentation
from depthseg.engine.build import build_model
from depthseg.engine.config import load_config
from depthseg.engine.lora import load_adapted
from depthseg.engine.predict import load_model
from depthseg.engine.run import train
from depthseg.hub.facts import Facts
from depthseg.hub.push import push
from depthseg.hub.without_run import prepare_without_run
api = HfApi()
api.create_repo("tester/base")
from huggingface_hub import CommitOperationAdd
base = write_depth_anything(Path("base"))
files = [CommitOperationAdd(path.name, str(path)) for path in base.iterdir()]
api.create_commit("tester/base", files, commit_message="base")
train(load_config(None, [
    *("data.name=synthetic", "data.root=world", "data.size=[28,56]", "data.options={size: [28, 56]}"),
    *("data.train_options={count: 4}", "data.val_options={count: 2}", "optim.batch_size=2", "schedule.steps=4"),
    *("run.eval_every=4", "run.tensorboard=false", "run.cpu=true", "run.output_dir=run"),
    *("model.pretrained=tester/base", "model.lora.rank=2", "model.lora.merge=false"),
]))
facts = Facts(licence="apache-2.0", licences={"tester/base": "apache-2.0"})
prepare_without_run("run", "tester/adapters", facts, "prepared")
push("prepared", "tester/adapters")
model = load_adapted(DepthSegForSemanticSegmentation, "run/model")
with torch.no_grad():
    result["logits"] = model(torch.linspace(-1, 1, 3 * 28 * 56).reshape(1, 3, 28, 56)).logits.tolist()
    model, _ = load_model("tester/adapters", device="cpu")
    result["from_hub"] = model(torch.linspace(-1, 1, 3 * 28 * 56).reshape(1, 3, 28, 56)).logits.tolist()
try:
    build_model(load_config(None, ["task=depth", "model.pretrained=tester/adapters", "data.size=[28,56]"]), None)
except ValueError as error:
    result["refused"] = str(error)
result["card"] = Path("prepared/README.md").read_text()
result["files"] = sorted(path.name for path in Path("prepared").iterdir())
"""
USE_ADAPTERS = """
import numpy, torch
from PIL import Image
Image.fromarray(numpy.zeros((28, 56, 3), numpy.uint8)).save("street.png")
exec(arg["snippet"])
with torch.no_grad():
    result["logits"] = model(torch.linspace(-1, 1, 3 * 28 * 56).reshape(1, 3, 28, 56)).logits.tolist()
"""


@pytest.mark.heavy
def test_adapters_published_and_loaded_elsewhere_by_the_snippet_of_their_card(hub, tmp_path):
    pytest.importorskip("peft", reason="pip install 'depthseg[lora]'")
    here = run_client(hub, tmp_path / "here", PUBLISH_ADAPTERS, depthseg=True, tests=str(ROOT / "tests"))
    card = ModelCard(here["card"])
    assert (card.data.base_model, card.data.library_name) == ("tester/base", "peft")
    assert "on synthetic" in card.text and "4 steps, batch size 2" in card.text
    assert "adapter_model.safetensors" in here["files"] and "model.safetensors" not in here["files"]
    torch.testing.assert_close(torch.tensor(here["from_hub"]), torch.tensor(here["logits"]), rtol=1e-5, atol=1e-6)
    assert "holds adapters, not a whole model" in here["refused"]
    (snippet,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    there = run_client(hub, tmp_path / "there", USE_ADAPTERS, snippet=snippet)
    torch.testing.assert_close(torch.tensor(there["logits"]), torch.tensor(here["logits"]), rtol=1e-4, atol=1e-5)
