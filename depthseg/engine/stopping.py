"""Leaving a run that was asked to stop, so that a scheduler knows that it is to be queued again."""

from __future__ import annotations

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
