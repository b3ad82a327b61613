"""Which process of a launch the others wait for: each tells its step, so that a stalled exchange can name it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import threading
import time
import traceback
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from torch.distributed import DistError, TCPStore

from .run_fault import RunFault

if TYPE_CHECKING:
    from types import TracebackType

    from accelerate import Accelerator

logger = logging.getLogger(__name__)

USUAL_TIMEOUT = {"cpu": 1800.0}
USUAL_TIMEOUT_ON_GPUS = 600.0
"""Seconds that PyTorch waits in an exchange."""

SILENT_BEATS = 4
"""Beats that a process misses before it counts as silent."""

_BACKENDS = (
    *("gloo", "NCCL", "ProcessGroup"),
    *("Connection closed by peer", "Connection reset by peer", "Application timeout caused pair closure"),
)
_EXCHANGING = ("torch.distributed.", "torch.nn.parallel.distributed.")


class Heartbeat:
    """Publishes the step of this process from a thread, and reads those of the others when an exchange stalls.

    The thread runs while the process waits in an exchange, whatever the backend. Of one process it does nothing.

    Args:
        accelerator: The processes.
        seconds: How long processes wait for one that does not answer; None = as PyTorch has it.
    """

    def __init__(self, accelerator: Accelerator, seconds: float | None) -> None:
        usual = USUAL_TIMEOUT.get(accelerator.device.type, USUAL_TIMEOUT_ON_GPUS)
        self._seconds = usual if seconds is None else seconds
        self._rank, self._count = accelerator.process_index, accelerator.num_processes
        self._interval = min(2.0, self._seconds / 20)
        self._step, self._since = 0, time.monotonic()
        self._beats = 0
        self._heard: dict[int, tuple[str, float]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._store: TCPStore | None = None

    def at(self, step: int) -> None:
        """Note the step that this process has come to."""
        self._step, self._since = step, time.monotonic()

    def __enter__(self) -> Heartbeat:
        if self._count > 1:
            # A connection of its own: that of the process group is busy while it waits.
            address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            self._store = TCPStore(*address, is_master=False, timeout=timedelta(seconds=self._seconds))
            self._beat()  # who stops right after the start is known by its process id
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is None:
            return
        said = self._said_of(error) if _is_of_exchange(error) else None
        self._over.set()
        self._thread.join(SILENT_BEATS * self._interval)  # without its store it may be waiting for a dead machine
        if said is not None:
            raise RunFault(f"{said} The exchange ended with: {str(error).splitlines()[0]}.") from error

    def _said_of(self, error: BaseException) -> str:
        # Who has just ended is not silent yet, and a launcher ends this process soon: there is no time to look.
        if any(word in str(error) for word in ("Timed out", "timeout")):
            with contextlib.suppress(RuntimeError):  # the store ended with the process that kept it
                return self._sentence(self._missing())
        return (
            f"Another process of the launch ended while process {self._rank} was in step {self._step}; the launcher "
            "says which one and why. The last checkpoint is as it was: resume with run.resume=true."
        )

    def _run(self) -> None:
        told_at = None
        while not self._over.wait(self._interval):
            try:
                self._beat()
                waited = time.monotonic() - self._since
                if waited > 0.5 * self._seconds:
                    self._look()
                # Where nobody is missing, all are at a long piece of work, such as an evaluation.
                if waited > 0.9 * self._seconds and told_at != self._step and (missing := self._missing()):
                    told_at = self._step
                    logger.error("%s", self._sentence(missing))
            except RuntimeError as error:  # the store is gone, and with it the process that keeps it
                logger.debug("The heartbeat of process %d ended: %s", self._rank, error)
                return

    def _beat(self) -> None:
        self._beats += 1
        told = {"beat": self._beats, "step": self._step, "host": platform.node(), "pid": os.getpid()}
        self._store.set(f"depthseg/heartbeat/{self._rank}", json.dumps(told))

    def _look(self) -> None:
        """Read what the others tell, and since when they tell nothing new."""
        for rank in range(self._count):
            key = f"depthseg/heartbeat/{rank}"
            told = self._store.get(key).decode() if self._store.check([key]) else ""
            if rank not in self._heard or self._heard[rank][0] != told:
                self._heard[rank] = told, time.monotonic()

    def _missing(self) -> list[str]:
        """Which processes are silent or at an earlier step, in words."""
        self._look()
        now = time.monotonic()
        missing = []
        for rank, (told, since) in sorted(self._heard.items()):
            facts: dict[str, Any] = json.loads(told) if told else {}
            silent = now - since > SILENT_BEATS * self._interval
            if rank == self._rank or (not silent and facts.get("step", 0) >= self._step):
                continue
            where = f" (process id {facts['pid']} on {facts['host']})" if facts else ""
            state = "does not answer" if silent or not facts else f"is still at step {facts['step']}"
            missing.append(f"process {rank}{where} {state}")
        return missing

    def _sentence(self, missing: list[str]) -> str:
        seconds = time.monotonic() - self._since
        waited = f"Process {self._rank} has waited for others in step {self._step} for {seconds:.0f} s"
        if not missing:
            return f"{waited}; all of them answer and are in this step (run.timeout={self._seconds:g})."
        return (
            f"{waited}: {', '.join(missing)}. The last checkpoint is as it was: look at that process, its machine and "
            "the network, then resume with run.resume=true."
        )


def _is_of_exchange(error: BaseException | None) -> bool:
    """Whether an error is one of the exchange between processes; some have no class of their own."""
    if not isinstance(error, RuntimeError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = frames[-1].f_globals.get("__name__", "") if frames else ""
    # Raised by the exchange itself; or by autograd, which exchanges gradients, and only the text tells.
    return (
        isinstance(error, DistError)
        or f"{module}.".startswith(_EXCHANGING)
        or any(name in str(error) for name in _BACKENDS)
    )
