"""Stopping on request: the signals, the agreement of all processes, and the exit code that a scheduler understands."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from datetime import timedelta
from typing import Any, ClassVar

import torch
import torch.distributed

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


class EvaluationStopped(Exception):
    """An evaluation was left because the run was asked to stop; raised in all processes together."""


class StopRequest:
    """Turns SIGTERM, SIGUSR1 and Ctrl-C into a flag that is read between two steps; the second signal ends at once.

    One within another, such as a run within a study, gets the signals of both. In another thread than the main one,
    where Python handles no signals, a run cannot be asked to stop.

    Args:
        what: What stops, and when, for the line that the first process of a launch writes at the first signal.

    Attributes:
        received: Whether a signal came.
    """

    _entered: ClassVar[list[StopRequest]] = []
    _before: ClassVar[dict[int, Any]] = {}

    def __init__(self, what: str) -> None:
        self.received = False
        self._line = f"{what}, and everything is saved; a second signal ends it at once, without saving.\n"
        self._process = os.getpid()

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self.received = any(outer.received for outer in self._entered)
            self._entered.append(self)
            if len(self._entered) == 1:
                self._before.update((number, signal.signal(number, self._receive)) for number in STOP_SIGNALS)
        return self

    def __exit__(self, *exception: object) -> None:
        if self in self._entered:
            self._entered.remove(self)
            if not self._entered:
                self._restore()

    @classmethod
    def _receive(cls, number: int, frame: object) -> None:
        cls._restore()
        for each in cls._entered:
            each.received = True
        cls._entered[-1]._tell()

    def _tell(self) -> None:
        """Write the line past all buffers, which may be in use where the signal came."""
        if os.environ.get("RANK", "0") == "0" and os.getpid() == self._process:
            with contextlib.suppress(OSError):  # nobody may be reading
                os.write(2, (b"\n" if os.isatty(2) else b"") + self._line.encode())

    @classmethod
    def _restore(cls) -> None:
        while cls._before:
            signal.signal(*cls._before.popitem())


class StopVotes:
    """One vote a step among all processes, on their CPUs; a single process decides alone.

    Several processes count the votes of a step at the next one, when they have long arrived, so that nobody waits
    for the slowest. A context: all processes enter and leave it together.

    Args:
        request: Tells whether this process was asked to stop.
        num_processes: How many there are.
        timeout: Seconds that they wait for one that does not vote; None = as PyTorch has it.
    """

    def __init__(self, request: StopRequest, num_processes: int, timeout: float | None = None) -> None:
        self._request = request
        self._together = num_processes > 1
        self._timeout = None if timeout is None else timedelta(seconds=timeout)
        self._group: Any = None
        self._last: tuple[Any, torch.Tensor] | None = None

    def __enter__(self) -> StopVotes:
        if self._together:
            # Apart from the group of the devices: that one runs in order behind everything they have to do.
            self._group = torch.distributed.new_group(backend="gloo", timeout=self._timeout)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        # After an error the others may never come.
        if self._together and (kind is None or kind is Stopped):
            self._count()
            torch.distributed.destroy_process_group(self._group)

    @property
    def received(self) -> bool:
        """Whether this process was asked to stop; the others may not know."""
        return self._request.received

    def cast(self) -> bool:
        """Vote on stopping, once a step.

        Returns:
            Whether to stop after this step: the same in all processes.
        """
        if not self._together:
            return self.received
        stopping = self._count()
        self._vote()
        return stopping

    def agreed(self) -> bool:
        """Vote, and wait for the votes of all: whether any process was asked to stop, the same in all of them."""
        if not self._together:
            return self.received
        earlier = self._count()
        self._vote()
        return self._count() or earlier

    def _vote(self) -> None:
        votes = torch.tensor([float(self.received)])
        self._last = torch.distributed.all_reduce(votes, group=self._group, async_op=True), votes

    def _count(self) -> bool:
        if self._last is None:
            return False
        work, votes = self._last
        self._last = None
        work.wait()
        return votes.item() > 0


def leave_stopping_to_the_run() -> None:
    """Let a reading process live on while its run saves: schedulers and terminals signal all processes of a job.

    What the training process itself sends ends it, as does the end of that process.
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
