"""Putting a prepared folder on the Hub: one commit, so that nobody ever meets half of it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
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

from ..engine.fingerprint import files_of, hash_of
from .bundle import MANIFEST, read_manifest

logger = logging.getLogger(__name__)

TRIES = 5
FIRST_WAIT = 1.0
"""Seconds before the second try; each further wait is twice as long."""

XET_FAILURES = ("CAS service error", "Data processing error", "Network error")
"""How errors of hf_xet, which sends large files, begin where they have no type of their own."""

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

    Large files go up first; those that are there already are not sent again, so a second call goes on where the first
    one was cut off. Files of an earlier publication that are not in this one are removed, others stay. In the end the
    files of the commit are compared with those of the folder.

    Args:
        folder: The folder.
        repo_id: `owner/name`; made where it is missing.
        private: Whether a repository that is made is private.
        revision: Branch, made where it is missing; None = main.
        pull_request: Open a pull request, and leave the branch as it is.
        token: Access token; None = the one of `hf auth login` or HF_TOKEN.

    Raises:
        ValueError: The folder was changed since it was prepared, or the Hub stored something else.
        PermissionError: No token, or one that may not write there.
        FileNotFoundError: No such branch to open a pull request against.
        ConnectionError: The Hub did not answer, several times.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    changed = [path for path in files_of(folder) if path != MANIFEST and manifest.get(path) != hash_of(folder / path)]
    changed += [path for path in manifest if not (folder / path).is_file()]
    if changed:
        raise ValueError(f"{folder} was changed since it was prepared: {', '.join(changed[:5])}. Prepare it again.")
    api = HfApi(token=token or get_token())
    if not api.token:
        raise PermissionError(
            f"There is no token to write to {repo_id} on {api.endpoint}: run `hf auth login`, or set HF_TOKEN."
        )
    retry = Retry(repo_id, api.endpoint)
    retry(lambda: api.create_repo(repo_id, private=private, exist_ok=True))
    if revision is not None and not pull_request:
        retry(lambda: api.create_branch(repo_id, branch=revision, exist_ok=True))
    commit = retry(
        lambda: api.create_commit(
            repo_id,
            # Made anew for each try: a commit whose answer was lost has sent some and deleted others already.
            [CommitOperationAdd(path, str(folder / path)) for path in files_of(folder)]
            + [CommitOperationDelete(path) for path in _left_over(api, repo_id, revision, manifest)],
            commit_message=f"Publish {repo_id.rpartition('/')[2]}",
            revision=revision,
            create_pr=pull_request,
        ),
        # An answer that was lost may have been a yes. A branch holds all of it then; a second request would be open.
        tries=1 if pull_request else TRIES,
    )
    where = commit.pr_revision if pull_request else commit.oid
    retry(lambda: _check_stored(api, repo_id, where, folder))
    return Published(repo_id, commit.oid, commit.pr_url if pull_request else commit.commit_url)


def _left_over(api: HfApi, repo_id: str, revision: str | None, manifest: dict[str, str]) -> list[str]:
    """Files of the publication before that are not in this one."""
    there = set(api.list_repo_files(repo_id, revision=revision))
    if MANIFEST not in there:
        return []
    path = hf_hub_download(repo_id, MANIFEST, revision=revision, token=api.token)
    before = json.loads(Path(path).read_text())
    return sorted((set(before) - set(manifest)) & there)


def _check_stored(api: HfApi, repo_id: str, revision: str, folder: Path) -> None:
    """Compare what the Hub says it has with what was sent."""
    stored = {entry.path: entry for entry in api.list_repo_tree(repo_id, recursive=True, revision=revision)}
    wrong = []
    for path in files_of(folder):
        entry, size = stored.get(path), (folder / path).stat().st_size
        if entry is None or entry.size != size or (entry.lfs and entry.lfs.sha256 != hash_of(folder / path)):
            wrong.append(path)
    if wrong:
        raise ValueError(f"The Hub stored something else than was sent: {', '.join(wrong[:5])}. Publish again.")


class Retry:
    """Calls the Hub, again where that may help, and tells in a sentence what to do where it does not.

    Args:
        repo_id: For the sentences.
        endpoint: For the sentences.
    """

    def __init__(self, repo_id: str, endpoint: str) -> None:
        self._repo_id = repo_id
        self._endpoint = endpoint

    def __call__(self, call: Callable[[], _Answer], tries: int = TRIES) -> _Answer:
        """The answer of a call.

        Args:
            call: The call; done again, it must not do anything twice.
            tries: How often it is done at most.
        """
        for number in range(1, tries + 1):
            try:
                return call()
            except Exception as error:
                failure = _failure(error)
                if failure is None:
                    raise
                if not _may_pass(failure):
                    raise self._sentence(failure) from error
                # Of large files the client has tried each several times by itself.
                if number == tries or failure is not error:
                    raise ConnectionError(
                        f"{self._endpoint} goes on failing ({_short(failure)}). Nothing of {self._repo_id} was "
                        "changed by halves; the same command goes on where this one stopped."
                    ) from error
                wait = FIRST_WAIT * 2 ** (number - 1)
                logger.info("%s; trying again in %.0f s", _short(failure), wait)
            time.sleep(wait)
        raise ValueError(f"tries is {tries}; a call is done at least once.")

    def _sentence(self, error: Exception) -> Exception:
        where = f"{self._repo_id} on {self._endpoint}"
        if isinstance(error, GatedRepoError):
            return PermissionError(f"{where} is gated, and this token was not let in: ask for access on its page.")
        if isinstance(error, RevisionNotFoundError):
            return FileNotFoundError(f"{where} has no such branch: {_short(error)}")
        if isinstance(error, (RepositoryNotFoundError, PermissionError)) or _status(error) in (401, 403):
            return PermissionError(
                f"This token may not write to {where}: {_short(error)} Give one that may write there to `hf auth "
                "login` or HF_TOKEN, and check the owner's name."
            )
        return ValueError(f"The Hub refused {where}: {_short(error)}")


def _failure(error: Exception) -> Exception | None:
    """What a call to the Hub failed of: an answer, a lost connection, or that behind an error of the client's own."""
    if isinstance(error, (RuntimeError, LocalEntryNotFoundError)) and isinstance(error.__cause__, Exception):
        return _failure(error.__cause__)
    known = isinstance(error, (HfHubHTTPError, EntryNotFoundError, PermissionError))
    return error if known or _is_lost_connection(error) else None


def _may_pass(failure: Exception) -> bool:
    """Whether the same call may succeed a moment later."""
    status = _status(failure)
    return _is_lost_connection(failure) or (status is not None and (status >= 500 or status in (408, 412, 429)))


def _is_lost_connection(error: Exception) -> bool:
    """Of the client, by name: huggingface_hub 1 talks through httpx, 2 through httpx2; of hf_xet, by type or words."""
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    from_xet = isinstance(error, RuntimeError) and any(words in str(error) for words in XET_FAILURES)
    return from_xet or any(base.__name__ == "TransportError" for base in type(error).__mro__)


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def _short(error: Exception) -> str:
    """The sentence of an error of the Hub, without the request that it was about."""
    text = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:300]
