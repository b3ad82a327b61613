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
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
USER = "tester"
REPO = r"(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("POST", r"/api/repos/create", "create_repo"),
    ("POST", rf"/api/{REPO}/preupload/(?P<rev>.+)", "preupload"),
    ("POST", rf"/api/{REPO}/commit/(?P<rev>.+)", "commit"),
    ("GET", rf"/api/{REPO}/tree/(?P<rev>[^/]+)/?(?P<path>.*)", "tree"),
    ("GET", rf"/api/{REPO}(/revision/(?P<rev>.+))?", "info"),
    ("POST", r"/(datasets/|spaces/)?(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_upload"),
    ("POST", r"/lfs/verify", "lfs_verify"),
    ("HEAD|GET", r"/((?P<kind>datasets|spaces)/)?(?P<repo>\w+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
]


class HubError(Exception):
    """An answer other than success: HTTP status, the code that the client turns into an exception, and a sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class LoopbackHub(ThreadingHTTPServer):
    """The server and all that it stores.

    Attributes:
        commits: Repository ("models/owner/name") -> its commits, oldest first: (sha, {path: content}).
        stored: Content of large files by sha256.
        requests: Every request so far, as "METHOD /path".
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, repo: str, revision: str | None = None) -> tuple[str, dict[str, bytes]]:
        """The commit that a revision names ("main" or a sha), as (sha, {path: content})."""
        if repo not in self.commits:
            raise HubError(404, "RepoNotFound", f"Repository {repo} is not here.")
        history = self.commits[repo]
        if revision in (None, "main"):
            return history[-1]
        for sha, files in history:
            if sha == revision:
                return sha, files
        raise HubError(404, "RevisionNotFound", f"{repo} has no revision {revision}.")

    def client_env(self, home: Path) -> dict[str, str]:
        """Environment of a client process: this process's, pointed at this server, with caches under `home`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
        return kept | {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_MODULES_CACHE": str(home / "modules"),
            "HF_TOKEN": "hf_loopback",
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
        self.body = self.read_body()
        with self.server.lock:
            self.server.requests.append(f"{self.command} {unquote(url.path)}")
            try:
                self.answer(unquote(url.path))
            except HubError as error:
                codes = {"X-Error-Code": error.code, "X-Error-Message": str(error)}
                self.send({"error": str(error)}, error.status, codes)

    do_GET = do_HEAD = do_POST = do_PUT = dispatch

    def answer(self, path: str) -> None:
        for methods, pattern, name in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in methods.split("|"):
                arguments = found.groupdict()
                if "kind" in arguments:
                    arguments["repo"] = f"{arguments.pop('kind') or 'models'}/{arguments['repo']}"
                return getattr(self, name)(**arguments)
        raise HubError(404, "EntryNotFound", f"The stand-in does not know {self.command} {path}.")

    def read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def send(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def whoami(self) -> None:
        self.send({"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def validate_yaml(self) -> None:
        self.send({"errors": [], "warnings": []})

    def create_repo(self) -> None:
        wanted = json.loads(self.body)
        repo = f"{wanted.get('organization') or USER}/{wanted['name']}"
        key = f"{wanted.get('type') or 'model'}s/{repo}"
        exists = key in self.server.commits
        if not exists:
            self.server.commits[key] = [(_sha1(key.encode()), {})]
        self.send({"url": f"{self.server.endpoint}/{repo}"}, 409 if exists else 200)

    def preupload(self, repo: str, rev: str) -> None:
        present = self.server.files(repo, rev)[1]
        answers = []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if b"\0" in base64.b64decode(file["sample"]) else "regular"
            oid = _oid(present[file["path"]], self.server.stored) if file["path"] in present else None
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send({"files": answers})

    def lfs_batch(self, repo: str) -> None:
        del repo
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
        parent, files = self.server.files(repo, rev)
        files = dict(files)
        for line in self.body.splitlines():
            key, value = (entry := json.loads(line))["key"], entry["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.server.stored:
                    raise HubError(400, "BadRequest", f"{value['path']} was committed but never uploaded.")
                files[value["path"]] = self.server.stored[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            elif key != "header":
                raise HubError(400, "BadRequest", f"The stand-in does not know the operation {key}.")
        sha = _sha1(parent.encode() + self.body)
        self.server.commits[repo].append((sha, files))
        self.send({"success": True, "commitOid": sha, "commitUrl": f"{self.server.endpoint}/{repo}/commit/{sha}"})

    def info(self, repo: str, rev: str | None) -> None:
        sha, files = self.server.files(repo, rev)
        name = repo.split("/", 1)[1]
        siblings = [{"rfilename": path} for path in sorted(files)]
        self.send({"_id": sha[:24], "id": name, "modelId": name, "sha": sha, "private": False, "tags": [],
                   "downloads": 0, "likes": 0, "siblings": siblings})  # fmt: skip

    def tree(self, repo: str, rev: str, path: str) -> None:
        _, files = self.server.files(repo, rev)
        inside = [name for name in sorted(files) if not path or name.startswith(f"{path}/")]
        if path and not inside:
            raise HubError(404, "EntryNotFound", f"{repo} has no folder {path}.")
        self.send([self.entry(name, files[name]) for name in inside])

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


WITHOUT_DEPTHSEG = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "depthseg":
            raise ImportError("depthseg is not installed in this process")
sys.meta_path.insert(0, Absent())
"""


def run_client(hub: LoopbackHub, home: Path, code: str, *, depthseg: bool = False, **arguments: Any) -> Any:
    """Run Python in a process whose Hub is the stand-in and that cannot import depthseg unless told so.

    Args:
        hub: The stand-in.
        home: Folder of the caches and of the working directory.
        code: The program; it finds the arguments in the dict `arg` and leaves its answer in the dict `result`.
        depthseg: Whether the process may import depthseg from this working tree.
        **arguments: JSON values.

    Returns:
        The `result` of the program.
    """
    home.mkdir(parents=True, exist_ok=True)
    parts = [
        f"import sys; sys.path.insert(0, {str(ROOT)!r})" if depthseg else WITHOUT_DEPTHSEG,
        "import json; arg, result = json.loads(sys.argv[1]), {}",
        textwrap.dedent(code),
        "" if depthseg else "assert not [name for name in sys.modules if name.partition('.')[0] == 'depthseg']",
        "open('result.json', 'w').write(json.dumps(result))",
    ]
    command = [sys.executable, "-I", "-c", "\n".join(parts), json.dumps(arguments)]
    done = subprocess.run(command, cwd=home, env=hub.client_env(home), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads((home / "result.json").read_text())


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
