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
    number, name = getattr(error, "errno", None), getattr(error, "filename", None)
    is_ours = name is None or str(name).startswith(str(folder)) or str(folder).startswith(str(name))
    # The library of tensors has errors of its own, with the words of the system.
    if number in _FULL or (number is None and any(text in str(error) for text in _FULL_TEXTS)):
        return f"The disk of {folder if is_ours else name} is full"
    if number == errno.EROFS:
        return f"The file system of {folder if is_ours else name} is read-only"
    if name is None or not is_ours:
        return None
    if number in (errno.EACCES, errno.EPERM):
        return f"This user may not write to {folder}"
    return f"Writing to {folder} failed ({error})" if number == errno.EIO else None
