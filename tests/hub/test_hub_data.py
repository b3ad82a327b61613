"""Data sets by their id, over HTTP: the real client and the library `datasets` against the stand-in."""

import hashlib
import re

import pytest
from data.hub_files import CLASSES, truth, write_all
from hub_client import run_client

READ = """
import hashlib
from depthseg.data import load_dataset
try:
    data = load_dataset("hub", arg["root"], arg.get("split", "train"), **arg.get("options", {}))
    samples = [data[index] for index in range(len(data))]
    result["names"] = list(data.names)
    result["classes"] = list(data.label_space.classes)
    result["images"] = [hashlib.sha256(sample.image.tobytes()).hexdigest() for sample in samples]
    result["labels"] = [hashlib.sha256(sample.labels.tobytes()).hexdigest() for sample in samples]
    result["shards"] = data.shard_lengths
except Exception as error:
    result["error"], result["answer"] = type(error).__name__, str(error)
"""


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def put(hub, name, *versions):
    """A repository whose commits hold the given files."""
    commits = [(hashlib.sha1(f"{name}{number}".encode()).hexdigest(), files) for number, files in enumerate(versions)]
    hub.commits[f"datasets/tester/{name}"] = commits


@pytest.fixture(scope="module")
def filled(hub, tmp_path_factory):
    roots = write_all(tmp_path_factory.mktemp("formats"))
    parquet = files_of(roots["parquet"])
    put(hub, "city", parquet)
    put(hub, "shards", files_of(roots["tar"]))
    put(hub, "script", {"script.py": b"import datasets", "data.zip": b"x"})
    hub.refs["datasets/tester/script"] = {"refs/convert/parquet": [("c" * 40, parquet)]}
    put(hub, "secret", parquet)
    hub.gated.add("datasets/tester/secret")
    put(hub, "text", {"README.md": b"# Nothing"})
    return hub


def expected(first, last):
    image, labels = (
        [hashlib.sha256(truth(index)[part].tobytes()).hexdigest() for index in range(first, last)] for part in (0, 1)
    )
    return {"images": image, "labels": labels}


@pytest.mark.parametrize(
    ("name", "options", "shards"),
    [
        ("city", {}, None),
        ("city", {"streaming": True}, [5, 2, 4]),
        ("shards", {}, None),
        ("shards", {"streaming": True}, [5, 2, 4]),
        ("script", {"revision": "refs/convert/parquet"}, None),
    ],
)
def test_an_id_is_read(filled, tmp_path, name, options, shards):
    found = run_client(filled, tmp_path, READ, depthseg=True, root=f"tester/{name}", options=options)
    assert "error" not in found, found
    assert found["classes"] == list(CLASSES) and found["shards"] == shards
    assert len(set(found["names"])) == 11
    assert {key: found[key] for key in ("images", "labels")} == expected(0, 11)


def test_one_archive_beside_its_class_names_is_read(filled, tmp_path):
    files = {
        name: content for name, content in filled.files("datasets/tester/shards")[1].items() if "00001-of" not in name
    }
    put(filled, "one", {name: content for name, content in files.items() if "00002-of" not in name})
    for options in ({}, {"streaming": True}):
        found = run_client(filled, tmp_path, READ, depthseg=True, root="tester/one", options=options)
        assert found.get("images") == expected(0, 5)["images"], found


@pytest.mark.parametrize(
    ("root", "options", "error", "words"),
    [
        ("tester/nothing", {}, "FileNotFoundError", "There is no data set tester/nothing on http"),
        ("tester/secret", {}, "PermissionError", "is gated: ask for access on its page, then `hf auth login`"),
        ("tester/secret", {"streaming": True}, "PermissionError", "is gated: ask for access on its page"),
        ("tester/city", {"revision": "v9"}, "FileNotFoundError", "has no revision 'v9': give a commit, tag or branch"),
        ("tester/city", {"config": "other"}, "ValueError", "Give the option config"),
        ("tester/script", {}, "ValueError", "needs a loading script, .* Give revision=refs/convert/parquet"),
        ("tester/text", {}, "FileNotFoundError", "holds no data that can be read"),
        ("no/such/folder", {}, "FileNotFoundError", "There is no folder or file no/such/folder"),
    ],
)
def test_what_cannot_be_had_is_told_in_a_sentence(filled, tmp_path, root, options, error, words):
    found = run_client(filled, tmp_path, READ, depthseg=True, root=root, options=options)
    assert found.get("error") == error, found
    assert re.search(words, found["answer"]), found["answer"]


@pytest.mark.heavy
def test_without_a_connection_the_copy_is_read_and_what_is_not_there_is_told(filled, tmp_path):
    run_client(filled, tmp_path, READ, depthseg=True, root="tester/city")
    unreachable = "import os; os.environ['HF_ENDPOINT'] = 'http://127.0.0.1:9'\n"
    offline = unreachable + "os.environ['HF_HUB_OFFLINE'] = '1'\n"
    found = run_client(filled, tmp_path, offline + READ, depthseg=True, root="tester/city")
    assert found.get("images") == expected(0, 11)["images"], found
    for code in (offline, unreachable):
        found = run_client(filled, tmp_path, code + READ, depthseg=True, root="tester/shards")
        assert found.get("error") == "ConnectionError" and "is not in the cache, and http" in found["answer"], found
