"""A stand-in for the Hub on the loopback interface: it speaks the Hub's HTTP protocol to the real client.

Repositories live in memory. Clients are configured through environment variables that `huggingface_hub` reads when it
is imported, so they run in processes of their own, started with `LoopbackHub.client_env`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
USER, TOKEN = "tester", "hf_loopback"
REPO = r"(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"
PAGE = r"/((?P<kind>datasets|spaces)/)?(?P<repo>[^/]+/[^/]+)"
FILE = r"/((?P<kind>datasets|spaces)/)?(?P<repo>\w+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)"
# Method, quoted path, who is let in (see `Handler.admit`), method of the handler.
ROUTES = [
    ("GET", r"/api/whoami-v2", "user", "whoami"),
    ("POST", r"/api/validate-yaml", "anyone", "validate_yaml"),
    ("POST", r"/api/repos/create", "user", "create_repo"),
    ("POST", rf"/api/{REPO}/branch/(?P<branch>.+)", "writer", "create_branch"),
    ("POST", rf"/api/{REPO}/preupload/(?P<rev>.+)", "writer", "preupload"),
    ("POST", rf"/api/{REPO}/commit/(?P<rev>.+)", "writer", "commit"),
    ("GET", rf"/api/{REPO}/refs", "visitor", "list_refs"),
    ("GET", rf"/api/{REPO}/tree/(?P<rev>[^/]+)/?(?P<path>.*)", "visitor", "tree"),
    ("GET", rf"/api/{REPO}(/revision/(?P<rev>.+))?", "visitor", "info"),
    ("POST", rf"{PAGE}\.git/info/lfs/objects/batch", "writer", "lfs_batch"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "anyone", "lfs_upload"),  # the address is for writers, and enough
    ("POST", r"/lfs/verify", "user", "lfs_verify"),
    ("HEAD|GET", FILE, "reader", "resolve"),
]
FAULTS = {"500": "Internal Server Error", "503": "Service Unavailable", "truncate": "", "drop": ""}

Commit = tuple[str, dict[str, bytes]]
"""A sha, and the content of every file by path."""


@dataclass
class Fault:
    """Something that goes wrong with the next requests that it matches.

    Attributes:
        method: Regular expression that the whole method matches, such as "POST|PUT".
        path: Regular expression that is found in the path, as `LoopbackHub.requests` shows it.
        kind: "500" and "503" are answered instead of what was asked for (a client need not wait after the latter);
            "truncate" does what was asked for, announces an answer of full length, sends half of it and hangs up;
            "drop" reads half of the request and hangs up.
        times: How many requests it hits.
    """

    method: str
    path: str
    kind: str
    times: int = 1

    def __post_init__(self) -> None:
        if self.kind not in FAULTS:
            raise ValueError(f"A fault is one of {', '.join(FAULTS)}, not {self.kind}.")


class HubError(Exception):
    """An answer other than success: HTTP status, the code that the client turns into an exception, and a sentence."""

    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class LoopbackHub(ThreadingHTTPServer):
    """The server and all that it stores.

    Attributes:
        commits: Repository ("models/owner/name") -> the commits of its main branch, oldest first.
        refs: Repository -> branch ("trial") or pull request ("refs/pr/1") -> its commits, with those it began with.
        private: Repositories that only their owner and the tester see.
        gated: Repositories that nobody may read the files of, or write to.
        users: Token -> name. The tester writes everywhere, others only in repositories of theirs.
        stored: Content of large files by sha256.
        requests: Every request so far, as "METHOD /path".
        faults: What is to go wrong; the first one that matches a request hits it.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits: dict[str, list[Commit]] = {}
        self.refs: dict[str, dict[str, list[Commit]]] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.users = {TOKEN: USER}
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def page(self, repo: str) -> str:
        """Address of a repository in a browser."""
        return f"{self.endpoint}/{repo.removeprefix('models/')}"

    def branches(self, repo: str) -> dict[str, list[Commit]]:
        """The commits of main, of every other branch and of every pull request."""
        if repo not in self.commits:
            raise HubError(404, "RepoNotFound", f"Repository {repo} is not here.")
        return {"main": self.commits[repo], **self.refs.get(repo, {})}

    def branch(self, repo: str, name: str) -> list[Commit]:
        """The commits of a branch or of a pull request, to be read or added to."""
        branches = self.branches(repo)
        if name not in branches:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {name}")
        return branches[name]

    def files(self, repo: str, revision: str | None = None) -> Commit:
        """The commit that a revision names (a branch, "refs/pr/1" or a sha), as (sha, {path: content})."""
        branches = self.branches(repo)
        for history in branches.values():
            for sha, files in history:
                if sha == revision:
                    return sha, files
        return self.branch(repo, revision or "main")[-1]

    def register(self, method: str, path: str) -> str | None:
        """Write a request down, and tell what goes wrong with it: the kind of a fault, which is used up once."""
        with self.lock:
            self.requests.append(f"{method} {path}")
            for fault in self.faults:
                if re.fullmatch(fault.method, method) and re.search(fault.path, path):
                    fault.times -= 1
                    if fault.times <= 0:
                        self.faults.remove(fault)
                    return fault.kind
        return None

    def client_env(self, home: Path) -> dict[str, str]:
        """Environment of a client process: this process's, pointed at this server, with caches under `home`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
        return kept | {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_MODULES_CACHE": str(home / "modules"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }


class Handler(BaseHTTPRequestHandler):
    """Sends each request to the method that its route names."""

    protocol_version = "HTTP/1.1"
    server: LoopbackHub

    def log_message(self, *args: Any) -> None:
        """Keep the test output clean; `LoopbackHub.requests` has the log."""

    def dispatch(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.fault = self.server.register(self.command, unquote(url.path))
        try:
            if self.fault == "drop":
                return self.drop()
            self.body = self.read_body()
            with self.server.lock:
                self.answer(url.path)
        except ConnectionError:  # the client hung up
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = dispatch

    def answer(self, path: str) -> None:
        try:
            if self.fault in ("500", "503"):
                raise HubError(int(self.fault), None, FAULTS[self.fault])
            self.route(path)
        except HubError as error:
            headers = {"X-Error-Message": str(error)}
            if error.code:
                headers["X-Error-Code"] = error.code
            if error.status == 503:
                headers["Retry-After"] = "0"
            self.send({"error": str(error)}, error.status, headers)

    def route(self, path: str) -> None:
        for methods, pattern, access, name in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in methods.split("|"):
                arguments = {key: value and unquote(value) for key, value in found.groupdict().items()}
                if "kind" in arguments:
                    arguments["repo"] = f"{arguments.pop('kind') or 'models'}/{arguments['repo']}"
                self.admit(access, arguments.get("repo"))
                return getattr(self, name)(**arguments)
        raise HubError(404, "EntryNotFound", f"The stand-in does not know {self.command} {unquote(path)}.")

    @property
    def user(self) -> str | None:
        """Name of the owner of the token that came along, if one did."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.server.users:
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return self.server.users.get(token)

    def admit(self, access: str, repo: str | None) -> None:
        """Refuse what the token does not allow, in the words of the Hub.

        Args:
            access: "anyone" needs no token, "user" needs one; "visitor" may see a repository, "reader" may see its
                files and "writer" may change it.
            repo: The repository, for the last three.
        """
        if access == "anyone":
            return
        user = self.user
        at_home = repo is None or user in (USER, repo.split("/")[1])
        if user is None and access in ("user", "writer") or repo in self.server.private and not at_home:
            raise HubError(401, repo and "RepoNotFound", "Invalid username or password.")
        if repo in self.server.gated and access in ("reader", "writer"):
            sentence = f"Access to {repo} is restricted and you are not in the authorized list."
            raise HubError(403 if user else 401, "GatedRepo", sentence)
        if access == "writer" and not at_home:
            raise HubError(403, None, "Forbidden: you don't have the rights to write to this repository")

    def drop(self) -> None:
        """Read half of the body, or a part that it came in, and hang up."""
        if self.chunked:
            self.read_chunk()
        else:
            self.read(int(self.headers.get("Content-Length", 0)) // 2)
        self.close_connection = True

    @property
    def chunked(self) -> bool:
        return "chunked" in self.headers.get("Transfer-Encoding", "")

    def read_body(self) -> bytes:
        if self.chunked:
            return b"".join(iter(self.read_chunk, b""))
        return self.read(int(self.headers.get("Content-Length", 0)))

    def read_chunk(self) -> bytes:
        size = self.rfile.readline()
        if not size:
            raise ConnectionError("The client hung up between the parts of its request.")
        data = self.read(int(size, 16))
        self.rfile.readline()
        return data

    def read(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionError("The client hung up in the middle of its request.")
        return data

    def send(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.fault == "truncate":
            data, self.close_connection = data[: len(data) // 2], True
        if self.command != "HEAD":
            self.wfile.write(data)

    def whoami(self) -> None:
        self.send({"type": "user", "name": self.user, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def validate_yaml(self) -> None:
        self.send({"errors": [], "warnings": []})

    def create_repo(self) -> None:
        wanted = json.loads(self.body)
        kind, owner = wanted.get("type") or "model", wanted.get("organization") or self.user
        if self.user not in (USER, owner):
            raise HubError(403, None, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
        key = f"{kind}s/{owner}/{wanted['name']}"
        answer = {"url": self.server.page(key)}
        if key in self.server.commits:
            return self.send(answer | {"error": f"You already created this {kind} repo"}, 409)
        self.server.commits[key] = [(_sha1(key.encode()), {})]
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.server.private.add(key)
        self.send(answer)

    def create_branch(self, repo: str, branch: str) -> None:
        if branch.startswith("refs/"):
            raise HubError(400, None, f"Invalid reference for a branch: {branch}")
        if branch in self.server.branches(repo):
            raise HubError(409, None, f"Reference already exists: refs/heads/{branch}")
        first = json.loads(self.body).get("startingPoint")
        self.server.refs.setdefault(repo, {})[branch] = self.up_to(repo, first)
        self.send({})

    def up_to(self, repo: str, revision: str | None) -> list[Commit]:
        """A copy of the commits that lead to a revision."""
        commit = self.server.files(repo, revision)
        history = next(history for history in self.server.branches(repo).values() if commit in history)
        return history[: history.index(commit) + 1]

    def list_refs(self, repo: str) -> None:
        found: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
        for name, history in self.server.branches(repo).items():
            kind, ref = ("pullRequests", name) if name.startswith("refs/") else ("branches", f"refs/heads/{name}")
            found[kind].append({"name": ref.split("/", 2)[2], "ref": ref, "targetCommit": history[-1][0]})
        if self.query.get("include_prs") != ["1"]:
            del found["pullRequests"]
        self.send(found)

    def preupload(self, repo: str, rev: str) -> None:
        present = self.server.branch(repo, rev)[-1][1]
        answers = []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if b"\0" in base64.b64decode(file["sample"]) else "regular"
            oid = _oid(present[file["path"]], self.server.stored) if file["path"] in present else None
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send({"files": answers})

    def lfs_batch(self, repo: str) -> None:
        self.server.branches(repo)
        objects, url = [], f"{self.server.endpoint}/lfs"
        for wanted in json.loads(self.body)["objects"]:
            actions = {"upload": {"href": f"{url}/{wanted['oid']}"}, "verify": {"href": f"{url}/verify"}}
            objects.append(wanted if wanted["oid"] in self.server.stored else wanted | {"actions": actions})
        self.send({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "BadRequest", f"The content that arrived does not have the sha256 {oid}.")
        self.server.stored[oid] = self.body
        self.send(b"")

    def lfs_verify(self) -> None:
        wanted = json.loads(self.body)
        if len(self.server.stored.get(wanted["oid"], b"")) != wanted["size"]:
            raise HubError(404, "EntryNotFound", f"{wanted['oid']} has not arrived in full.")
        self.send({})

    def commit(self, repo: str, rev: str) -> None:
        history = self.server.branch(repo, rev)
        parent, files = history[-1][0], dict(history[-1][1])
        for line in self.body.splitlines():
            self.apply(parent, files, **json.loads(line))
        sha = _sha1(parent.encode() + self.body)
        page = self.server.page(repo)
        answer = {"success": True, "commitOid": sha, "commitUrl": f"{page}/commit/{sha}", "hookOutput": ""}
        if self.query.get("create_pr") == ["1"]:
            refs = self.server.refs.setdefault(repo, {})
            number = 1 + sum(name.startswith("refs/pr/") for name in refs)
            answer["pullRequestUrl"] = f"{page}/discussions/{number}"
            history = history[:]
            refs[f"refs/pr/{number}"] = history
        history.append((sha, files))
        self.send(answer)

    def apply(self, parent: str, files: dict[str, bytes], key: str, value: dict[str, Any]) -> None:
        """Do one line of a commit to the files."""
        path = value.get("path")
        if key == "header":
            if not parent.startswith(value.get("parentCommit", "").lower()):
                raise HubError(412, None, "A commit has happened since. Please refresh and try again.")
        elif key == "file":
            files[path] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            if value["oid"] not in self.server.stored:
                raise HubError(400, "BadRequest", f"{path} was committed but never uploaded.")
            files[path] = self.server.stored[value["oid"]]
        elif key == "deletedFile":
            if path not in files:
                raise HubError(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
            del files[path]
        else:
            raise HubError(400, "BadRequest", f"The stand-in does not know the operation {key}.")

    def info(self, repo: str, rev: str | None) -> None:
        sha, files = self.server.files(repo, rev)
        name = repo.split("/", 1)[1]
        siblings = [{"rfilename": path} for path in sorted(files)]
        self.send({"_id": sha[:24], "id": name, "modelId": name, "sha": sha, "private": repo in self.server.private,
                   "gated": "manual" if repo in self.server.gated else False, "tags": [], "downloads": 0, "likes": 0,
                   "siblings": siblings})  # fmt: skip

    def tree(self, repo: str, rev: str, path: str) -> None:
        _, files = self.server.files(repo, rev)
        inside = [name for name in sorted(files) if not path or name.startswith(f"{path}/")]
        if path and not inside:
            raise HubError(404, "EntryNotFound", f"{repo} has no folder {path}.")
        start = len(path) + 1 if path else 0
        folders = {
            str(parent) for name in inside for parent in PurePosixPath(name).parents if len(str(parent)) > start
        }
        entries = [
            {"type": "directory", "path": name, "size": 0, "oid": _sha1(name.encode())} for name in folders - {"."}
        ]
        entries += [self.entry(name, files[name]) for name in inside]
        if self.query.get("recursive", ["false"])[0].lower() == "false":
            entries = [entry for entry in entries if "/" not in entry["path"][start:]]
        self.send(sorted(entries, key=lambda entry: entry["path"]))

    def entry(self, path: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _git_oid(content)}
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 in self.server.stored:
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
        return entry

    def resolve(self, repo: str, rev: str, path: str) -> None:
        sha, files = self.server.files(repo, rev)
        if path not in files:
            raise HubError(404, "EntryNotFound", f"{repo} has no file {path} at {rev}.")
        content = files[path]
        oid = _oid(content, self.server.stored)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{oid}"', "Accept-Ranges": "bytes"}
        if oid in self.server.stored:
            headers |= {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return self.send(content, 200, headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.send(content[first : last + 1], 206, headers)


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _git_oid(content: bytes) -> str:
    return _sha1(b"blob %d\0" % len(content) + content)


def _oid(content: bytes, stored: dict[str, bytes]) -> str:
    """The id that the Hub shows for a file: sha256 in large file storage, git's blob id otherwise."""
    sha256 = hashlib.sha256(content).hexdigest()
    return sha256 if sha256 in stored else _git_oid(content)


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    """A stand-in on a free port, shared by the tests of one file."""
    server = LoopbackHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
