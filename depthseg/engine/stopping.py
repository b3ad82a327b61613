"""Leaving a run that was asked to stop, so that a scheduler knows that it is to be queued again."""

from __future__ import annotations

import os
import signal
import threading

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)]
"""Signals that ask a run to save and leave; Windows has no SIGUSR1."""

REQUEUE_CODE = 75
"""Exit code of what was stopped on request and is saved: EX_TEMPFAIL of sysexits.h, "try again later"."""


class Stopped(SystemExit):
    """A run or study was stopped on request; everything is saved, and the same command with a resume goes on.

    Args:
        sentence: What was stopped and how it resumes. Not printed by the interpreter, as the exit code is a number.

    Attributes:
        code: `REQUEUE_CODE`.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.code = REQUEUE_CODE


def leave_stopping_to_the_run(worker: int = 0) -> None:
    """Let a reading process live on while its run saves: schedulers and terminals signal all processes of a job.

    What the training process itself sends ends it, as does the end of that process.

    Args:
        worker: Its number, which `DataLoader` gives; not used.
    """
    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        # Threads that are made from here on do not get the signal either: it waits for the one that asks for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_trainer, name="signals", daemon=True).start()


def _end_with_trainer() -> None:
    # Ignoring it would be too much: after an error the training process ends its reading processes by it.
    trainer = os.getppid()
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)
