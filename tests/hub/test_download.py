"""What somebody reads whose download does not work: one sentence, from the command and from Python."""

import pytest
from hub_client import run_client

pytestmark = pytest.mark.heavy

ASK = """
from depthseg.engine.predict import load_model
try:
    load_model(arg["name"], arg.get("revision"))
    result["answer"] = "loaded"
except Exception as error:
    result["error"], result["answer"] = type(error).__name__, str(error)
"""
SEND = """
from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation, DepthSegImageProcessor
encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
head = {"decoder_channels": [8, 8, 8, 16, 16]}
config = DepthSegConfig(encoder_config=encoder, head_config=head)
parts = [DepthSegForDepthEstimation(config), DepthSegImageProcessor()]
for name in arg["names"]:
    for part in parts:
        part.push_to_hub(name)
"""


@pytest.fixture(scope="module")
def filled(hub, tmp_path_factory):
    """The Hub with a network that all may read, one that is private and one that is gated."""
    names = ["tester/open", "tester/hidden", "tester/gated"]
    run_client(hub, tmp_path_factory.mktemp("sender"), SEND, depthseg=True, names=names)
    hub.private.add("models/tester/hidden")
    hub.gated.add("models/tester/gated")
    return hub


@pytest.mark.parametrize(
    ("name", "revision", "error", "words"),
    [
        ("tester/nothing", None, "FileNotFoundError", "There is no tester/nothing on http"),
        ("tester/open", "v9", "FileNotFoundError", "has no revision 'v9': give a commit, tag or branch"),
        ("tester/hidden", None, "FileNotFoundError", "If it is private, `hf auth login` or set HF_TOKEN"),
        ("tester/gated", None, "PermissionError", "is gated: ask for access on its page"),
        ("no/such/folder", None, "ValueError", "is no folder, and no Hub id either"),
    ],
)
def test_what_cannot_be_had_is_told_in_a_sentence(filled, tmp_path, name, revision, error, words):
    filled.users["hf_of_somebody_else"] = "somebody"
    code = "import os; os.environ['HF_TOKEN'] = 'hf_of_somebody_else'\n" + ASK
    found = run_client(filled, tmp_path, code, depthseg=True, name=name, revision=revision)
    assert found.get("error") == error, found
    assert words in found["answer"]


def test_a_token_that_is_not_valid_is_told_apart_from_what_it_was_to_read(filled, tmp_path):
    code = "import os; os.environ['HF_TOKEN'] = 'hf_expired'\n" + ASK
    found = run_client(filled, tmp_path, code, depthseg=True, name="tester/open")
    assert found["error"] == "PermissionError" and "does not know the access token" in found["answer"]


def test_without_a_connection_the_cache_serves_what_was_loaded_before(filled, tmp_path):
    assert run_client(filled, tmp_path, ASK, depthseg=True, name="tester/open")["answer"] == "loaded"
    offline = "import os; os.environ['HF_HUB_OFFLINE'] = '1'\n" + ASK
    seen = len(filled.requests)
    assert run_client(filled, tmp_path, offline, depthseg=True, name="tester/open")["answer"] == "loaded"
    found = run_client(filled, tmp_path, offline, depthseg=True, name="tester/nothing")
    assert found["error"] == "ConnectionError"
    assert "is not in the cache" in found["answer"] and "HF_HUB_OFFLINE is set" in found["answer"]
    assert len(filled.requests) == seen


def test_code_that_nobody_trusted_is_refused_with_a_way_out(filled, tmp_path):
    code = """
    from transformers import AutoModelForDepthEstimation
    try:
        AutoModelForDepthEstimation.from_pretrained("tester/open", trust_remote_code=False)
    except Exception as error:
        result["answer"] = str(error)
    """
    assert "trust_remote_code=True" in run_client(filled, tmp_path, code)["answer"]
