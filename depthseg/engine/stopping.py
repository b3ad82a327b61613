"""Leaving a run that was asked to stop, so that a scheduler knows that it is to be queued again."""

from __future__ import annotations

import signal

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

    It ends with the run, which tells it to, or when the run is no more.

    Args:
        worker: Its number, which `DataLoader` gives; not used.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
