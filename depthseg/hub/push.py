"""Pushing a prepared folder to the Hub in one commit, so that a publication is never partial.

`HfApi.upload_folder` does not promise that: with hf_xet it commits a large folder, or one whose commit failed, in
several parts, and leaves an empty pull request if the commit fails.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..engine.fingerprint import hashes_of
from .bundle import MANIFEST

logger = logging.getLogger(__name__)

TRIES = 5
FIRST_WAIT = 1.0
"""Seconds before the second try; each further wait is twice as long."""

XET_FAILURES = ("CAS service error", "Data processing error", "Network error")
"""Prefixes of errors of hf_xet, which uploads large files, that have no type of their own."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Published:
    """A commit on the Hub.

    Attributes:
        repo_id: Repository.
        revision: The commit.
        url: Of the commit, or of the pull request.
    """

    repo_id: str
    revision: str
    url: str


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    pull_request: bool = False,
    token: str | None = None,
) -> Published:
    """Publish a folder that `prepare` wrote, in one commit.

    Large files are uploaded first. Files that are already there are not uploaded again, so a second call resumes an
    interrupted one. Files of an earlier publication that are not in this one are deleted, others are kept. Finally the
    files of the commit are compared with those of the folder.

    Args:
        folder: The folder.
        repo_id: `owner/name`; created if it does not exist.
        private: Whether a new repository is private.
        revision: Branch, created if it does not exist; None = main.
        pull_request: Open a pull request instead of changing the branch.
        token: Access token; None = the one of `hf auth login` or HF_TOKEN.

    Raises:
        ValueError: The folder was changed after it was prepared, or the files on the Hub differ.
        PermissionError: No token, or a token without write access.
        FileNotFoundError: No such branch to open a pull request against.
        ConnectionError: The Hub did not respond after several attempts.
    """
    folder = Path(folder)
    hashes, manifest = hashes_of(folder), json.loads((folder / MANIFEST).read_text())
    changed = sorted(dict(hashes.items() ^ manifest.items()).keys() - {MANIFEST})
    if changed:
        raise ValueError(f"{folder} was changed after it was prepared: {', '.join(changed[:5])}. Prepare it again.")
    api = HfApi(token=token or get_token())
    if not api.token:
        raise PermissionError(
            f"No access token was found for {repo_id} on {api.endpoint}: run `hf auth login`, or set HF_TOKEN."
        )
    retry = partial(with_retries, where=f"{repo_id} on {api.endpoint}")
    retry(lambda: api.create_repo(repo_id, private=private, exist_ok=True))
    if revision is not None and not pull_request:
        retry(lambda: api.create_branch(repo_id, branch=revision, exist_ok=True))
    commit = retry(
        lambda: api.create_commit(
            repo_id,
            # Computed for each attempt: a commit whose response was lost may have changed the repository already.
            [CommitOperationAdd(path, str(folder / path)) for path in hashes]
            + [CommitOperationDelete(path) for path in _left_over(api, repo_id, revision, manifest)],
            commit_message=f"Publish {repo_id.rpartition('/')[2]}",
            revision=revision,
            create_pr=pull_request,
        ),
        # A commit whose response was lost may have succeeded; a second attempt would open a second pull request.
        tries=1 if pull_request else TRIES,
    )
    where = commit.pr_revision if pull_request else commit.oid
    retry(lambda: _check_stored(api, repo_id, where, folder, hashes))
    return Published(repo_id, commit.oid, commit.pr_url if pull_request else commit.commit_url)


def _left_over(api: HfApi, repo_id: str, revision: str | None, manifest: dict[str, str]) -> list[str]:
    """Files of the previous publication that are not in this one."""
    there = set(api.list_repo_files(repo_id, revision=revision))
    if MANIFEST not in there:
        return []
    path = hf_hub_download(repo_id, MANIFEST, revision=revision, token=api.token)
    before = json.loads(Path(path).read_text())
    return sorted((set(before) - set(manifest)) & there)


def _check_stored(api: HfApi, repo_id: str, revision: str, folder: Path, hashes: dict[str, str]) -> None:
    """Compare the files on the Hub with those of the folder."""
    stored = {entry.path: entry for entry in api.list_repo_tree(repo_id, recursive=True, revision=revision)}
    wrong = []
    for path, value in hashes.items():
        entry, size = stored.get(path), (folder / path).stat().st_size
        if entry is None or entry.size != size or (entry.lfs and entry.lfs.sha256 != value):
            wrong.append(path)
    if wrong:
        raise ValueError(f"Files on the Hub differ from those uploaded: {', '.join(wrong[:5])}. Publish again.")


def with_retries(call: Callable[[], _Answer], where: str, tries: int = TRIES) -> _Answer:
    """Call the Hub, repeat the call after a temporary failure, and raise an error with advice after any other.

    Args:
        call: The call; it must be safe to repeat.
        where: Repository and endpoint, for error messages.
        tries: Maximum number of attempts.
    """
    for number in itertools.count(1):
        try:
            return call()
        except Exception as error:
            failure = _failure(error)
            if failure is None:
                raise
            if not _may_pass(failure):
                raise _with_advice(failure, where) from error
            # The client itself has tried several times to upload each large file.
            if number == tries or failure is not error:
                raise ConnectionError(
                    f"{where} failed repeatedly ({_short(failure)}). The repository was not partially changed; the "
                    "same command resumes the upload."
                ) from error
            wait = FIRST_WAIT * 2 ** (number - 1)
            logger.info("%s; trying again in %.0f s", _short(failure), wait)
        time.sleep(wait)


def _with_advice(error: Exception, where: str) -> Exception:
    if isinstance(error, GatedRepoError):
        return PermissionError(f"{where} is gated, and this token has no access: request access on its page.")
    if isinstance(error, RevisionNotFoundError):
        return FileNotFoundError(f"{where} has no such branch: {_short(error)}")
    if isinstance(error, (RepositoryNotFoundError, PermissionError)) or _status(error) in (401, 403):
        return PermissionError(
            f"This token has no write access to {where}: {_short(error)} Give a token with write access to `hf auth "
            "login` or HF_TOKEN, and check the name of the owner."
        )
    return ValueError(f"The Hub refused {where}: {_short(error)}")


def _failure(error: Exception) -> Exception | None:
    """The cause of a failed call to the Hub: an error response, a lost connection, or the cause of a client error."""
    if isinstance(error, (RuntimeError, LocalEntryNotFoundError)) and isinstance(error.__cause__, Exception):
        return _failure(error.__cause__)
    known = isinstance(error, (HfHubHTTPError, EntryNotFoundError, PermissionError))
    return error if known or _is_lost_connection(error) else None


def _may_pass(failure: Exception) -> bool:
    """Whether the same call may succeed a moment later."""
    status = _status(failure)
    return _is_lost_connection(failure) or (status is not None and (status >= 500 or status in (408, 412, 429)))


def _is_lost_connection(error: Exception) -> bool:
    """By class name for the client (huggingface_hub 1 uses httpx, 2 uses httpx2), by type or text for hf_xet."""
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    from_xet = isinstance(error, RuntimeError) and any(words in str(error) for words in XET_FAILURES)
    return from_xet or any(base.__name__ == "TransportError" for base in type(error).__mro__)


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def _short(error: Exception) -> str:
    """The message of an error of the Hub, without the request."""
    text = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:300]
