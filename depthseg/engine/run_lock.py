"""One run at a time in a directory."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..data.file_lock import locked

LOCK_FILE = ".lock"


@contextmanager
def only_run(run_dir: Path) -> Iterator[None]:
    """Hold a run directory, made where it is missing; the system lets go of it when the process ends, however it ends.

    Raises:
        FileExistsError: Another process holds it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / LOCK_FILE
    with ExitStack() as held:
        try:
            descriptor = held.enter_context(locked(path, wait=False))
            if descriptor is not None and not os.fstat(descriptor).st_nlink:
                raise BlockingIOError  # it was opened here, then removed by its holder: others would lock a new one
        except BlockingIOError:
            holder = path.read_text(encoding="utf-8") if path.is_file() else ""
            raise FileExistsError(
                f"{run_dir} is being trained in by {holder or 'another process'}. Wait until it ends, or take another "
                "run.output_dir; nothing was changed."
            ) from None
        held.callback(path.unlink, missing_ok=True)
        if descriptor is not None:
            os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
        yield
