"""What breaks a run from outside, as one sentence that says what broke, what is kept, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS = ("No space left", "Disk quota exceeded", "File too large")


class RunFault(RuntimeError):
    """A fault that is no mistake in the options; its message is for the user, and is shown without a traceback."""


@contextmanager
def told_of_writing(what: str, folder: Path, kept: str) -> Iterator[None]:
    """Turn an error of the disk into a sentence.

    Args:
        what: What is written, such as "the checkpoint of step 8".
        folder: Where it goes.
        kept: A sentence on what is there all the same, and what to do.

    Raises:
        RunFault: The disk is full, read-only or broken, or the user may not write there.
    """
    # Not at the top: reading the command line imports this file and must not import the library of tensors.
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        opening = _opening(error, folder)
        if opening is None:
            raise
        raise RunFault(f"{opening}, so {what} could not be written. {kept}") from error


def _opening(error: Exception, folder: Path) -> str | None:
    """What is wrong with the disk; None where it is something else, such as a file of the data."""
    number = getattr(error, "errno", None)
    # The library of tensors has errors of its own, with the words of the system.
    if number in _FULL or (number is None and any(text in str(error) for text in _FULL_TEXTS)):
        return f"The disk of {folder} is full"
    if number == errno.EROFS:
        return f"The file system of {folder} is read-only"
    name = str(getattr(error, "filename", None))
    is_ours = name.startswith(str(folder)) or str(folder).startswith(name)
    if number in (errno.EACCES, errno.EPERM) and is_ours:
        return f"This user may not write to {folder}"
    return f"Writing to {folder} failed ({error})" if number == errno.EIO and is_ours else None
