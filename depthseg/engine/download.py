"""Whether a checkpoint can be had, told in a sentence before anything else is tried."""

from __future__ import annotations

import os

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def check_available(name: str | os.PathLike, revision: str | None = None) -> None:
    """Refuse a checkpoint that is neither a folder, nor in the cache, nor on the Hub.

    Args:
        name: Folder or Hub id.
        revision: Commit, tag or branch of a Hub id.

    Raises:
        ValueError: The name is none.
        FileNotFoundError: No such repository, revision or checkpoint.
        PermissionError: A gated repository, or a token that is not valid.
        ConnectionError: The Hub does not answer, and the cache has it not.
    """
    name = os.fspath(name)
    if os.path.isdir(name):
        return
    where = f"{name} on {constants.ENDPOINT}"
    try:
        hf_hub_download(name, "config.json", revision=revision)
    except HFValidationError as error:
        raise ValueError(f"{name} is no folder, and no Hub id either, which look like owner/name.") from error
    except GatedRepoError as error:
        raise PermissionError(
            f"{where} is gated: ask for access on its page, then `hf auth login`, or set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"There is no {where}, and no folder of this name. If it is private, `hf auth login` or set HF_TOKEN; "
            "otherwise check the spelling."
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{where} has no revision {revision!r}: give a commit, tag or branch.") from error
    except LocalEntryNotFoundError as error:
        at = f" at revision {revision}" if revision else ""
        raise ConnectionError(
            f"{name}{at} is not in the cache, and {constants.ENDPOINT} does not answer or HF_HUB_OFFLINE is set. "
            "Download it once with a connection; then it loads without."
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"{where} holds no checkpoint: it has no config.json.") from error
    except HfHubHTTPError as error:
        if error.response.status_code != 401:
            raise ConnectionError(f"{constants.ENDPOINT} does not give out {name}: {error}") from error
        # The Hub turns a bad token away even from what everybody may read.
        raise PermissionError(
            f"{constants.ENDPOINT} does not know the access token: `hf auth login` again, or set HF_TOKEN anew. What "
            "is public needs none."
        ) from error
