"""The stand-in is worth something only if the real client is content with it."""

import hashlib
import subprocess

import pytest
from hub_client import run_client
from hub_server import LoopbackHub

TEXT = "# A card\n"
LARGE = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def pushed(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Two commits by the real client: a card with a large file, then a changed card without it."""
    home = tmp_path_factory.mktemp("client")
    (home / "folder").mkdir()
    (home / "folder" / "README.md").write_text(TEXT)
    (home / "folder" / "weights.bin").write_bytes(LARGE)
    return run_client(
        hub,
        home,
        """
        from huggingface_hub import HfApi, hf_hub_download, snapshot_download
        api = HfApi()
        api.create_repo("tester/thing")
        first = api.upload_folder(repo_id="tester/thing", folder_path="folder").oid
        again = api.upload_folder(repo_id="tester/thing", folder_path="folder").oid
        api.create_repo("tester/thing", exist_ok=True)
        entries = {e.path: [e.blob_id, e.size, e.lfs and e.lfs.sha256] for e in api.list_repo_tree("tester/thing")}
        api.upload_file(repo_id="tester/thing", path_in_repo="README.md", path_or_fileobj=b"changed")
        api.delete_file("weights.bin", "tester/thing")
        result |= {
            "first": first,
            "again": again,
            "entries": entries,
            "user": api.whoami()["name"],
            "sha": api.model_info("tester/thing").sha,
            "names_now": api.list_repo_files("tester/thing"),
            "names_then": api.list_repo_files("tester/thing", revision=first),
            "now": open(hf_hub_download("tester/thing", "README.md")).read(),
            "then": open(hf_hub_download("tester/thing", "README.md", revision=first)).read(),
            "large": open(snapshot_download("tester/thing", revision=first) + "/weights.bin", "rb").read().hex(),
        }
        """,
    )


def test_content_and_history_come_back(pushed: dict) -> None:
    assert pushed["then"] == TEXT
    assert pushed["now"] == "changed"
    assert bytes.fromhex(pushed["large"]) == LARGE
    assert pushed["names_now"] == ["README.md"]
    assert pushed["names_then"] == ["README.md", "weights.bin"]
    assert pushed["sha"] != pushed["first"]
    assert pushed["again"] == pushed["first"], "the client sees that nothing has changed"
    assert pushed["user"] == "tester"


def test_ids_are_those_of_git_and_of_large_file_storage(pushed: dict) -> None:
    git = subprocess.run(["git", "hash-object", "--stdin"], input=TEXT, capture_output=True, text=True, check=True)
    assert pushed["entries"]["README.md"] == [git.stdout.strip(), len(TEXT), None]
    assert pushed["entries"]["weights.bin"][1:] == [len(LARGE), hashlib.sha256(LARGE).hexdigest()]


def test_binary_files_take_the_large_file_road(hub: LoopbackHub, pushed: dict) -> None:
    oid = hashlib.sha256(LARGE).hexdigest()
    assert f"PUT /lfs/{oid}" in hub.requests
    assert "POST /lfs/verify" in hub.requests
    assert "POST /tester/thing.git/info/lfs/objects/batch" in hub.requests


def test_a_broken_download_is_resumed_and_absent_things_have_their_errors(
    hub: LoopbackHub, pushed: dict, tmp_path_factory: pytest.TempPathFactory
) -> None:
    answer = run_client(
        hub,
        tmp_path_factory.mktemp("errors"),
        """
        import io
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import get_session
        api = HfApi()
        url = f"{api.endpoint}/tester/thing/resolve/{arg['first']}/weights.bin"
        part = get_session().get(url, headers={"Range": "bytes=100-199"})
        result |= {"status": part.status_code, "part": part.content.hex(), "range": part.headers["Content-Range"]}
        rest = io.BytesIO()
        http_get(url, rest, resume_size=10000, expected_size=10240)
        result["rest"] = rest.getvalue().hex()
        for name, call in {
            "repository": lambda: api.model_info("tester/nothing"),
            "revision": lambda: api.model_info("tester/thing", revision="nowhere"),
            "file": lambda: hf_hub_download("tester/thing", "absent.txt"),
            "again": lambda: api.create_repo("tester/thing"),
        }.items():
            try:
                call()
            except HfHubHTTPError as error:
                result[name] = type(error).__name__
        """,
        first=pushed["first"],
    )
    assert (answer["status"], bytes.fromhex(answer["part"])) == (206, LARGE[100:200])
    assert answer["range"] == f"bytes 100-199/{len(LARGE)}"
    assert bytes.fromhex(answer["rest"]) == LARGE[10000:]
    assert answer["repository"] == "RepositoryNotFoundError"
    assert answer["revision"] == "RevisionNotFoundError"
    assert answer["file"] == "RemoteEntryNotFoundError"
    assert answer["again"] == "HfHubHTTPError"
