"""What the real client makes of branches, tokens and faults of the stand-in: publishing is built on what it does."""

import hashlib
import json
import socket
from pathlib import Path

import pytest
from hub_client import run_client
from hub_server import TOKEN, Fault, LoopbackHub

LARGE = bytes(range(256)) * 400
OID = hashlib.sha256(LARGE).hexdigest()

# Waits of the client are noted and last a twentieth of what it wants.
CLIENT = """
import time
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

api, large, waits, sleep = HfApi(), bytes(range(256)) * 400, [], time.sleep

def short(seconds):
    waits.append(seconds)
    sleep(seconds / 20)

time.sleep = short

def error(call):
    try:
        call()
    except Exception as error:
        cause = type(error.__cause__).__name__ if error.__cause__ else None
        status = getattr(getattr(error, "response", None), "status_code", None)
        return {"type": type(error).__name__, "cause": cause, "status": status, "text": str(error)}

def upload(content, path="w.bin", repo=arg.get("repo"), api=api, **options):
    return api.upload_file(repo_id=repo, path_in_repo=path, path_or_fileobj=content, **options)

def read(path="w.bin", repo=arg.get("repo"), **options):
    return open(hf_hub_download(repo, path, **options), "rb").read().hex()

"""


def asked(hub: LoopbackHub, method: str, word: str) -> int:
    """How many requests of a method there were with this word in the path."""
    return sum(line.startswith(f"{method} ") and word in line for line in hub.requests)


@pytest.fixture
def repo(hub: LoopbackHub, request: pytest.FixtureRequest) -> str:
    """An empty repository for each test, no faults and no requests yet, nothing stored."""
    name = f"tester/{hashlib.sha256(request.node.name.encode()).hexdigest()[:8]}"
    hub.commits[f"models/{name}"] = [(hashlib.sha1(name.encode()).hexdigest(), {})]
    hub.faults.clear()
    hub.requests.clear()
    hub.stored.clear()
    return name


def run(hub: LoopbackHub, home: Path, code: str, **arguments) -> dict:
    return run_client(hub, home, CLIENT + code, **arguments)


def test_branches_have_commits_of_their_own(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    code = """
first = upload(b"one", "a.txt").oid
api.create_branch(arg["repo"], branch="try/one")
api.create_branch(arg["repo"], branch="try/one", exist_ok=True)
second = upload(large, revision="try/one").oid
upload(b"two", "a.txt")
api.create_branch(arg["repo"], branch="old", revision=first)
refs = api.list_repo_refs(arg["repo"])
result |= {
    "by_name": read(revision="try/one"),
    "by_sha": read(revision=second),
    "names": api.list_repo_files(arg["repo"], revision="try/one"),
    "on_main": api.list_repo_files(arg["repo"]),
    "texts": [read("a.txt", revision=revision) for revision in ("main", "old", "try/one")],
    "head": api.model_info(arg["repo"], revision="try/one").sha == second,
    "refs": {ref.name: [ref.ref, ref.target_commit] for ref in refs.branches},
    "old": first,
    "again": error(lambda: api.create_branch(arg["repo"], branch="main")),
    "request": error(lambda: api.create_branch(arg["repo"], branch="refs/pr/9")),
    "start": error(lambda: api.create_branch(arg["repo"], branch="c", revision="nowhere")),
    "nowhere": error(lambda: upload(b"x", "b.txt", revision="nowhere")),
}
"""
    found = run(hub, tmp_path, code, repo=repo)
    assert bytes.fromhex(found["by_name"]) == bytes.fromhex(found["by_sha"]) == LARGE
    assert found["names"] == ["a.txt", "w.bin"] and found["on_main"] == ["a.txt"] and found["head"]
    assert [bytes.fromhex(text) for text in found["texts"]] == [b"two", b"one", b"one"]
    assert set(found["refs"]) == {"main", "try/one", "old"}
    assert found["refs"]["old"] == ["refs/heads/old", found["old"]]
    assert found["again"]["status"] == 409
    assert found["request"]["type"] == "BadRequestError"
    assert found["start"]["type"] == found["nowhere"]["type"] == "RevisionNotFoundError"


def test_a_pull_request_leaves_main_alone(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    code = """
upload(b"one", "a.txt")
before = api.model_info(arg["repo"]).sha
first = upload(large, create_pr=True)
second = upload(b"two", "a.txt", create_pr=True)
upload(b"three", "a.txt", revision=first.pr_revision)
refs = api.list_repo_refs(arg["repo"], include_pull_requests=True)
result |= {
    "urls": [first.pr_url, second.pr_url],
    "revision": first.pr_revision,
    "unchanged": before == api.model_info(arg["repo"]).sha and len(refs.branches) == 1,
    "on_main": api.list_repo_files(arg["repo"]),
    "refs": [ref.ref for ref in refs.pull_requests],
    "shas": [first.oid, refs.pull_requests[0].target_commit],
    "large": [read(revision="refs/pr/1"), read(revision=first.oid)],
    "texts": [read("a.txt", revision=revision) for revision in ("main", "refs/pr/1", "refs/pr/2", first.oid)],
    "not_asked": api.list_repo_refs(arg["repo"]).pull_requests,
}
"""
    found = run(hub, tmp_path, code, repo=repo)
    assert found["urls"] == [f"{hub.endpoint}/{repo}/discussions/{number}" for number in (1, 2)]
    assert found["refs"] == ["refs/pr/1", "refs/pr/2"] and found["revision"] == "refs/pr/1"
    assert found["unchanged"] and found["on_main"] == ["a.txt"] and found["not_asked"] is None
    assert found["shas"][0] != found["shas"][1]
    assert [bytes.fromhex(text) for text in found["large"]] == [LARGE, LARGE]
    assert [bytes.fromhex(text) for text in found["texts"]] == [b"one", b"three", b"two", b"one"]


def test_private_repositories_are_not_there_without_the_right_token(
    hub: LoopbackHub, repo: str, tmp_path: Path
) -> None:
    hub.users["hf_other"] = "other"
    code = """
secret = arg["repo"] + "-secret"
api.create_repo(secret, private=True)
upload(b"hidden", "a.txt", secret)
result |= {"mine": read("a.txt", secret), "private": api.model_info(secret).private}
for token in (False, "hf_other", "hf_wrong"):
    away = HfApi(token=token)
    result[str(token)] = [
        error(lambda: away.model_info(secret)),
        error(lambda: away.list_repo_files(secret)),
        error(lambda: hf_hub_download(secret, "a.txt", token=token, cache_dir="empty")),
        error(lambda: upload(b"x", "b.txt", secret, away)),
    ]
"""
    found = run(hub, tmp_path, code, repo=repo)
    assert hub.private == {f"models/{repo}-secret"}
    assert bytes.fromhex(found["mine"]) == b"hidden" and found["private"] is True
    for token in ("False", "hf_other"):
        assert {(error["type"], error["status"]) for error in found[token]} == {("RepositoryNotFoundError", 401)}
    assert {(error["type"], error["status"]) for error in found["hf_wrong"]} == {("HfHubHTTPError", 401)}
    assert hub.files(f"models/{repo}-secret")[1] == {"a.txt": b"hidden"}


def test_tokens_that_may_not_write(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    hub.users["hf_other"] = "other"
    before = dict(hub.commits)
    code = """
upload(b"one", "a.txt")
result["read"] = open(hf_hub_download(arg["repo"], "a.txt", token=False)).read()
for token in ("hf_wrong", "hf_other", False):
    away = HfApi(token=token)
    result[str(token)] = {
        "user": error(away.whoami),
        "read": error(lambda: hf_hub_download(arg["repo"], "a.txt", token=token, cache_dir="empty")),
        "create": error(lambda: away.create_repo("tester/new")),
        "create_there": error(lambda: away.create_repo(arg["repo"], exist_ok=True)),
        "branch": error(lambda: away.create_branch(arg["repo"], branch="new")),
        "text": error(lambda: upload(b"x", "b.txt", api=away)),
        "large": error(lambda: upload(large, api=away)),
    }
HfApi(token="hf_other").create_repo("other/own")
"""
    found = run(hub, tmp_path, code, repo=repo)
    assert found["read"] == "one"
    wrong, other, nobody = found["hf_wrong"], found["hf_other"], found["False"]
    assert wrong["user"]["text"] == "Invalid user token." and wrong["user"]["status"] == 401
    for answer in [answer for question, answer in wrong.items() if question != "user"]:
        assert (answer["type"], answer["status"]) == ("HfHubHTTPError", 401)
        assert answer["text"].endswith("Invalid credentials in Authorization header")
    assert other["user"] is other["read"] is other["create_there"] is None, "the client is content that it exists"
    assert {other[question]["status"] for question in ("create", "branch", "text", "large")} == {403}
    assert "rights to create a model under the namespace" in other["create"]["text"]
    assert nobody["read"] is nobody["create_there"] is None
    assert nobody["user"]["type"] == "ValueError", "the client does not even ask"
    assert (nobody["create"]["type"], nobody["create"]["status"]) == ("HfHubHTTPError", 401)
    assert {nobody[name]["type"] for name in ("branch", "text", "large")} == {"RepositoryNotFoundError"}
    assert set(hub.commits) == {*before, "models/other/own"} and not hub.refs.get(f"models/{repo}")
    assert hub.files(f"models/{repo}")[1] == {"a.txt": b"one"} and not hub.stored


def test_gated_repositories_have_their_own_error(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    hub.commits[f"models/{repo}"][0][1]["a.txt"] = b"one"
    hub.gated.add(f"models/{repo}")
    code = """
result |= {
    "gated": api.model_info(arg["repo"]).gated,
    "names": api.list_repo_files(arg["repo"]),
    "read": error(lambda: read("a.txt")),
    "write": error(lambda: upload(b"x", "b.txt")),
    "nobody": error(lambda: read("a.txt", token=False)),
}
"""
    found = run(hub, tmp_path, code, repo=repo)
    assert found["gated"] == "manual" and found["names"] == ["a.txt"]
    assert {found[name]["type"] for name in ("read", "write", "nobody")} == {"GatedRepoError"}
    assert [found[name]["status"] for name in ("read", "write", "nobody")] == [403, 403, 401]


def test_upload_with_a_hub_that_is_away_for_a_moment(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    retried = ("/preupload/", "/objects/batch", f"/lfs/{OID}", "/lfs/verify")
    hub.faults += [Fault("POST|PUT", path, "503", times=2) for path in retried]
    hub.faults += [Fault("POST", "/commit/", kind) for kind in ("503", "500", "drop")]
    code = """
result["refused"] = [error(lambda: upload(large)) for _ in range(3)]
result["waits"] = list(waits)
result["heads"] = [api.model_info(arg["repo"]).sha]
result["heads"] += [upload(large).oid, api.model_info(arg["repo"]).sha]
result["names"] = api.list_repo_files(arg["repo"])
"""
    found = run(hub, tmp_path, code, repo=repo)
    assert not hub.faults
    assert [answer["type"] for answer in found["refused"]] == ["HfHubHTTPError"] * 2 + ["RemoteProtocolError"]
    assert [answer["status"] for answer in found["refused"]] == [503, 500, None]
    assert found["waits"] == [1.0] * 8, "two for each request but the commit, which the client does not repeat"
    assert asked(hub, "POST", "/commit/") == 4 and asked(hub, "PUT", "/lfs/") == 3
    assert found["heads"][0] == hub.commits[f"models/{repo}"][0][0], "a refused commit changes nothing"
    assert found["heads"][1] == found["heads"][2] and found["names"] == ["w.bin"]


def test_download_with_a_hub_that_is_away_for_a_moment(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    hub.commits[f"models/{repo}"][0][1]["w.bin"] = LARGE
    hub.faults += [Fault("HEAD", "/resolve/", "503", times=2), Fault("GET", "/tree/", "503", times=2)]
    hub.faults += [Fault("GET", "/resolve/", kind) for kind in ("503", "500")]
    hub.faults += [Fault("GET", f"{repo}(/revision/main)?$", kind) for kind in ("503", "503")]
    code = """
result["refused"] = [error(read), error(read)]
result |= {"names": api.list_repo_files(arg["repo"]), "waits": list(waits), "content": read()}
def snapshot():
    return snapshot_download(arg["repo"], cache_dir="other")
result["others"] = [error(lambda: api.model_info(arg["repo"])), error(snapshot)]
result["whole"] = open(snapshot() + "/w.bin", "rb").read().hex()
"""
    found = run(hub, tmp_path, code, repo=repo)
    assert not hub.faults
    assert [answer["status"] for answer in found["refused"]] == [503, 500], "the client repeats HEAD, GET it does not"
    assert found["names"] == ["w.bin"] and found["waits"] == [1.0] * 3
    assert [answer["type"] for answer in found["others"]] == ["HfHubHTTPError", "LocalEntryNotFoundError"]
    assert bytes.fromhex(found["content"]) == bytes.fromhex(found["whole"]) == LARGE


def test_truncated_downloads_are_noticed(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    hub.commits[f"models/{repo}"][0][1].update({"w.bin": LARGE, "b.bin": LARGE[::-1], "c.bin": LARGE[1:]})
    hub.faults += [
        Fault("GET", "/resolve/.*/w.bin", "truncate"),
        Fault("GET", "/resolve/.*/b.bin", "truncate", times=3),
        Fault("GET", "/resolve/.*/c.bin", "truncate", times=6),
        Fault("GET", "/tree/", "truncate"),
        Fault("GET", f"{repo}$", "truncate"),
    ]
    code = """
from pathlib import Path
from huggingface_hub import constants
result["again"] = read()
result["info"] = error(lambda: api.model_info(arg["repo"]))
result["names"] = api.list_repo_files(arg["repo"])
result["broken"] = error(lambda: read("c.bin"))
result["left"] = [path.name for path in Path("hub").rglob("*") if path.is_file() and "incomplete" in path.name]
result["then"] = read("c.bin")
constants.DOWNLOAD_CHUNK_SIZE = 1000  # of a file of more than one chunk, the chunks that came are kept
result["resumed"] = read("b.bin")
result["sizes"] = {path.name: path.stat().st_size for path in Path("hub").rglob("*.bin")}
"""
    found = run(hub, tmp_path, code, repo=repo)
    assert not hub.faults
    assert bytes.fromhex(found["again"]) == LARGE and bytes.fromhex(found["resumed"]) == LARGE[::-1]
    assert found["names"] == ["b.bin", "c.bin", "w.bin"]
    assert found["info"]["type"] == found["broken"]["type"] == "RemoteProtocolError", "after six tries of the file"
    assert found["left"] == [] and bytes.fromhex(found["then"]) == LARGE[1:]
    assert found["sizes"] == {"w.bin": len(LARGE), "b.bin": len(LARGE), "c.bin": len(LARGE) - 1}


def test_connections_lost_in_mid_upload(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    hub.faults.append(Fault("PUT", "/lfs/", "drop", times=6))
    code = """
open("w.bin", "wb").write(large)
result |= {"given_up": error(lambda: upload("w.bin")), "waits": list(waits)}
result |= {"names": api.list_repo_files(arg["repo"]), "head": api.model_info(arg["repo"]).sha}
"""
    found = run(hub, tmp_path / "first", code, repo=repo)
    assert (found["given_up"]["type"], found["given_up"]["cause"]) == ("RuntimeError", "RemoteProtocolError")
    assert found["waits"] == [1, 2, 4, 8, 8]
    assert not hub.stored and asked(hub, "POST", "/commit/") == 0 and len(hub.commits[f"models/{repo}"]) == 1
    assert found["names"] == [] and found["head"] == hub.files(f"models/{repo}")[0]
    hub.faults.append(Fault("PUT", "/lfs/", "drop"))
    found = run(hub, tmp_path / "second", "result |= {'oid': upload(large).oid, 'waits': waits}", repo=repo)
    assert found == {"oid": hub.files(f"models/{repo}")[0], "waits": [1]}, "one loss is nothing to the client"
    assert hub.files(f"models/{repo}")[1] == {"w.bin": LARGE}


def test_an_answer_that_was_lost_may_have_been_a_yes(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    hub.faults += [Fault("POST", path, "truncate") for path in ("/repos/create", "/branch/", "/commit/", "/commit/")]
    code = """
new = arg["repo"] + "-new"
result["lost"] = [
    error(lambda: api.create_repo(new)),
    error(lambda: api.create_branch(new, branch="side")),
    error(lambda: upload(large, repo=new)),
    error(lambda: upload(b"one", "a.txt", repo=new, create_pr=True)),
]
result["exists"] = error(lambda: api.create_repo(new))
api.create_repo(new, exist_ok=True)
result |= {"head": api.model_info(new).sha, "again": upload(large, repo=new).oid}
result["second"] = upload(b"one", "a.txt", repo=new, create_pr=True).pr_num
"""
    found = run(hub, tmp_path, code, repo=repo)
    assert [answer["type"] for answer in found["lost"]] == ["RemoteProtocolError"] * 4
    assert "side" in hub.refs[f"models/{repo}-new"]
    assert found["exists"]["status"] == 409
    assert found["head"] == found["again"], "the client sees that all of it is there"
    assert found["second"] == 2, "but it would open another pull request"


def test_a_commit_upon_a_head_of_before_is_refused(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    code = """
first = upload(b"one", "a.txt").oid
second = upload(b"two", "a.txt", parent_commit=first).oid
result["stale"] = error(lambda: upload(large, parent_commit=first))
result["head"] = [second, api.model_info(arg["repo"]).sha]
result["names"] = api.list_repo_files(arg["repo"])
result["third"] = upload(large, parent_commit=second[:10]).oid
"""
    found = run(hub, tmp_path, code, repo=repo)
    assert (found["stale"]["type"], found["stale"]["status"]) == ("HfHubHTTPError", 412)
    assert found["stale"]["text"].endswith("A commit has happened since. Please refresh and try again.")
    assert found["head"][0] == found["head"][1] and found["names"] == ["a.txt"]
    assert found["third"] == hub.files(f"models/{repo}")[0]


def test_nothing_is_stored_by_halves(hub: LoopbackHub, repo: str) -> None:
    """Without the client: it would not send these."""
    key = f"models/{repo}"
    lines = [
        {"key": "header", "value": {"summary": "", "description": ""}},
        {"key": "file", "value": {"path": "a.txt", "content": "b25l", "encoding": "base64"}},
        {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": OID, "size": len(LARGE)}},
        {"key": "deletedFile", "value": {"path": "absent.txt"}},
    ]
    whole = [json.dumps(line).encode() + b"\n" for line in lines]
    commit = f"POST /api/models/{repo}/commit/main"
    put = f"PUT /lfs/{OID}"
    assert post(hub, commit, b"".join(whole[:2]), size=1000) == b"", "the rest of the lines never comes"
    assert post(hub, put, LARGE[:1000], size=len(LARGE)) == b""
    assert b" 400 " in post(hub, put, LARGE[:1000])
    assert b" 400 " in post(hub, commit, b"".join(whole[:3]))
    assert b" 404 " in post(hub, commit, whole[0] + whole[1] + whole[3])
    assert not hub.stored and len(hub.commits[key]) == 1 and not hub.files(key)[1]
    assert b" 200 " in post(hub, put, LARGE) and b" 200 " in post(hub, commit, b"".join(whole[:3]))
    assert hub.files(key)[1] == {"a.txt": b"one", "w.bin": LARGE}
    with pytest.raises(ValueError, match="not 504"):
        Fault("GET", "", "504")


def post(hub: LoopbackHub, request: str, body: bytes, size: int | None = None) -> bytes:
    """First line of the answer to a request whose sender hangs up when it has sent this much of the body."""
    head = f"{request} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {size or len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", hub.server_port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").readline()
