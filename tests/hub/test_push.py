"""Publishing through the real client to a Hub that fails: whole or not at all, and a sentence."""

import json
import shutil

import numpy as np
import pytest
from hub.tiny_runs import tiny_runs
from hub_client import run_client
from hub_server import Fault, LoopbackHub
from huggingface_hub import ModelCard
from rounding import assert_same_up_to_rounding

from depthseg.engine.fingerprint import hash_of
from depthseg.hub.bundle import MANIFEST, prepare
from depthseg.hub.facts import Facts
from depthseg.hub.record import LINEAGE_FILE

pytestmark = pytest.mark.heavy

# Waits between attempts, ours and those of the client, are cut short.
PUSH = """
import time
from depthseg.hub import push as module
wait = time.sleep
time.sleep = lambda seconds: wait(min(seconds, 0.05))
try:
    done = module.push(arg["folder"], arg["repo"], **arg.get("options", {}))
    result["revision"], result["url"] = done.revision, done.url
except Exception as error:
    result["error"], result["sentence"] = type(error).__name__, str(error)
"""
DOWNLOAD = """
import numpy, torch
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation
where = {"revision": arg["revision"], "code_revision": arg["revision"], "trust_remote_code": True}
processor = AutoImageProcessor.from_pretrained(arg["repo"], **where)
model = AutoModelForSemanticSegmentation.from_pretrained(arg["repo"], **where).eval()
image = numpy.random.default_rng(0).integers(0, 256, (32, 64, 3), numpy.uint8)
with torch.no_grad():
    result["logits"] = model(**processor(images=[image], return_tensors="pt")).logits.tolist()
"""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return tiny_runs(tmp_path_factory.mktemp("runs"))["segmentation"]


@pytest.fixture
def folder(run_dir, tmp_path_factory):
    """What would be published; a copy for each test."""
    kept = run_dir.parent / "prepared"
    if not kept.exists():
        prepare(run_dir, "tester/tiny", Facts(licence="mit"), kept)
    return shutil.copytree(kept, tmp_path_factory.mktemp("folder") / "tiny")


def pushed(hub: LoopbackHub, home, folder, repo="tester/tiny", **options):
    return run_client(hub, home, PUSH, depthseg=True, folder=str(folder), repo=repo, options=options)


def test_downloaded_logits_are_the_local_ones_where_depthseg_is_missing(hub, tmp_path, run_dir, folder):
    import torch

    from depthseg.models import DepthSegForSemanticSegmentation, DepthSegImageProcessor

    done = pushed(hub, tmp_path / "sender", folder, "tester/whole")
    sha, files = hub.files("models/tester/whole")
    assert done["revision"] == sha
    stored = {path for path in files if path != ".gitattributes"}
    assert stored == {*json.loads((folder / MANIFEST).read_text()), MANIFEST}
    found = run_client(hub, tmp_path / "receiver", DOWNLOAD, repo="tester/whole", revision=sha)
    model = DepthSegForSemanticSegmentation.from_pretrained(run_dir / "model").eval()
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    with torch.no_grad():
        inputs = DepthSegImageProcessor.from_pretrained(run_dir / "model")(images=[image], return_tensors="pt")
        # Up to the order of summation, which depends on where weights lie in memory.
        assert_same_up_to_rounding(torch.tensor(found["logits"]), model(**inputs).logits)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", "/commit/", "503", times=2),
        Fault("POST", "/preupload/", "500"),
        Fault("PUT", "/lfs/", "drop"),
        Fault("POST", "/commit/", "drop"),
        Fault("GET", "/tree/", "truncate"),
    ],
    ids=lambda fault: f"{fault.kind} {fault.path}",
)
def test_a_hub_that_fails_for_a_moment_gets_everything(hub, tmp_path, folder, fault, request):
    repo = f"tester/moment-{abs(hash(request.node.name))}"
    hub.stored.clear()  # large files that are there already would not be sent
    hub.faults.append(fault)
    done = pushed(hub, tmp_path, folder, repo)
    assert not hub.faults, "The fault was not met."
    sha, files = hub.files(f"models/{repo}")
    assert done["revision"] == sha and MANIFEST in files


@pytest.mark.parametrize("path", ["/commit/", "/lfs/"])
def test_a_hub_that_goes_on_failing_has_nothing_by_halves(hub, tmp_path, folder, path):
    repo = f"tester/failing{path.strip('/')}"
    hub.stored.clear()
    hub.faults.append(Fault("POST|PUT", path, "503" if path == "/commit/" else "drop", times=1000))
    try:
        done = pushed(hub, tmp_path / "first", folder, repo)
    finally:
        hub.faults.clear()
    assert done["error"] == "ConnectionError"
    assert "failed repeatedly" in done["sentence"] and "the same command resumes" in done["sentence"]
    assert not [name for name in hub.files(f"models/{repo}")[1] if name != ".gitattributes"]
    assert "revision" in pushed(hub, tmp_path / "second", folder, repo)
    assert MANIFEST in hub.files(f"models/{repo}")[1]


TRAIN_ON = """
from pathlib import Path
from depthseg.engine.config import load_config
from depthseg.engine.run import train
from depthseg.hub.bundle import prepare
from depthseg.hub.facts import Facts
shared = [
    "data.name=synthetic", "data.root=world", "data.size=[32,64]", "data.options={size: [32, 64]}",
    "data.train_options={count: 4}", "data.val_options={count: 12}", "data.subset_size=2", "optim.batch_size=2",
    "schedule.steps=2", "run.trackers=[]", "run.cpu=true", "run.output_dir=child",
]
train(load_config(None, [*shared, f"model.pretrained={arg['repo']}"]))
try:
    prepare("child", "tester/child", Facts(licence="mit"), Path("refused"))
except ValueError as error:
    result["sentence"] = str(error)
prepare("child", "tester/child", Facts(licence="cc-by-nc-4.0"), Path("ready"))
result["card"] = Path("ready/README.md").read_text()
"""


def test_a_run_that_began_with_a_published_checkpoint_inherits_its_licence_and_its_stages(
    hub, tmp_path, run_dir, folder
):
    depth = run_dir.parent / "depth"
    prepare(depth, "tester/deep", Facts(licence="cc-by-nc-4.0"), tmp_path / "deep")
    sha = pushed(hub, tmp_path / "sender", tmp_path / "deep", "tester/deep")["revision"]
    found = run_client(hub, tmp_path / "receiver", TRAIN_ON, depthseg=True, repo="tester/deep")
    assert "cc-by-nc-4.0" in found["sentence"] and "tester/deep" in found["sentence"]
    metadata = ModelCard(found["card"]).data
    assert (metadata.base_model, metadata.license) == ("tester/deep", "cc-by-nc-4.0")
    lineage = json.loads((tmp_path / "receiver" / "ready" / LINEAGE_FILE).read_text())
    assert [stage["task"] for stage in lineage["stages"]] == ["depth", "segmentation"]
    transfers = json.loads((tmp_path / "receiver" / "ready" / "config.json").read_text())["weight_lineage"]
    assert (transfers[-1]["source"], transfers[-1]["revision"]) == ("tester/deep", sha)


def test_publishing_again_sends_what_changed_and_keeps_what_others_put_there(hub, tmp_path, folder):
    first = pushed(hub, tmp_path / "first", folder, "tester/again")
    sha, files = hub.files("models/tester/again")
    hub.commits["models/tester/again"].append((sha[::-1], files | {"notes.txt": b"mine"}))
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / "training" / "curves.png").unlink()
    (folder / "README.md").write_text("A new card.")
    del manifest["training/curves.png"]
    manifest["README.md"] = hash_of(folder / "README.md")
    (folder / MANIFEST).write_text(json.dumps(manifest))
    hub.requests.clear()
    # The answer to the commit is lost: the next try finds the image gone already.
    hub.faults.append(Fault("POST", "/commit/", "truncate"))
    second = pushed(hub, tmp_path / "second", folder, "tester/again")
    assert not hub.faults, "The fault was not met."
    files = hub.files("models/tester/again")[1]
    assert second["revision"] != first["revision"]
    assert files["notes.txt"] == b"mine" and files["README.md"] == b"A new card."
    assert "training/curves.png" not in files and "model.safetensors" in files
    assert not [line for line in hub.requests if line.startswith("PUT")]


def test_a_folder_that_was_changed_is_not_sent(hub, tmp_path, folder):
    (folder / "README.md").write_text("Better numbers.")
    (folder / "config.json").unlink()
    done = pushed(hub, tmp_path, folder, "tester/changed")
    assert done["error"] == "ValueError"
    assert "was changed after it was prepared: README.md, config.json" in done["sentence"]
    assert "models/tester/changed" not in hub.commits


@pytest.mark.parametrize(
    ("token", "words"),
    [("hf_wrong", "This token has no write access to tester/token"), (None, "No access token was found")],
)
def test_a_token_that_may_not_write(hub, tmp_path, folder, token, words):
    code = "import os; os.environ.pop('HF_TOKEN', None)\n" + PUSH
    options = {"token": token} if token else {}
    done = run_client(hub, tmp_path, code, depthseg=True, folder=str(folder), repo="tester/token", options=options)
    assert done["error"] == "PermissionError" and words in done["sentence"]
    assert "hf auth login" in done["sentence"] and "HF_TOKEN" in done["sentence"]
    assert "models/tester/token" not in hub.commits


def test_branches_and_pull_requests_leave_main_alone(hub, tmp_path, folder):
    branch = pushed(hub, tmp_path / "branch", folder, "tester/side", revision="trial", private=True)
    assert "tester/side" in " ".join(hub.private)
    assert hub.files("models/tester/side", "trial")[0] == branch["revision"]
    request = pushed(hub, tmp_path / "request", folder, "tester/side", pull_request=True)
    assert "discussions/1" in request["url"]
    assert MANIFEST in hub.files("models/tester/side", "refs/pr/1")[1]
    assert not [name for name in hub.files("models/tester/side")[1] if name != ".gitattributes"]
