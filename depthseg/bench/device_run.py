"""Parts of a benchmark of a device, each a process with a budget of time; what is done is kept and not done again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..engine.records import write_json

TOTAL_SECONDS = 480

Command = Callable[[str, Path], Sequence[str]]
"""Name of a part and the file for its rows -> the command that runs it."""


def run_parts(
    budgets: Mapping[str, float],
    command: Command,
    output: Path,
    header: Mapping[str, Any],
    again: bool = False,
    say: Callable[[str], object] = print,
    total_seconds: float = TOTAL_SECONDS,
) -> dict[str, Any]:
    """Run parts one after the other, and write what they found after each.

    A part that is done is not run again while the header is the same. One that failed or ran out of time is, and
    keeps the rows that it had.

    Args:
        budgets: Part -> its most seconds.
        command: How a part is run; its rows are appended to the file, one JSON object a line.
        output: The JSON file of all results.
        header: Device, versions and code.
        again: Run parts that are done, too.
        say: Takes the lines for the user.
        total_seconds: After these no part begins.

    Returns:
        The content of the file.

    Raises:
        ValueError: The file is there and is not one of these.
    """
    content = {**header, "parts": _done_before(output, header, say)}
    ends = time.monotonic() + total_seconds
    for name, budget in budgets.items():
        before = content["parts"].get(name, {})
        if before.get("status") == "done" and not again:
            say(f"{name:<14} done before")
            continue
        left = ends - time.monotonic()
        if left <= 0:
            say(f"{name:<14} not begun: {total_seconds} seconds are over; the same command resumes here")
            continue
        content["parts"][name] = part = run_part(command, name, min(budget, left), output.with_suffix(".rows"))
        write_json(output, content)
        say("\n    ".join([f"{name:<14} {part['status']} in {part['seconds']:.0f} s", *_lines(part)]))
    return content


def _done_before(output: Path, header: Mapping[str, Any], say: Callable[[str], object]) -> dict[str, Any]:
    """The parts of an earlier call under the same header; results under another one are moved aside."""
    if not output.is_file():
        return {}
    try:
        content = json.loads(output.read_text(encoding="utf-8"))
        parts = dict(content.pop("parts"))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{output} is no result of this benchmark: move it away, or take another --output."
        ) from error
    if content == json.loads(json.dumps(header)):
        return parts
    aside = output.with_name(f"{output.stem}_{str(content.get('commit'))[:8]}{output.suffix}")
    output.replace(aside)
    say(f"{output} was of another device, version or commit: it is {aside.name} now, and all parts are run.")
    return {}


def run_part(command: Command, name: str, seconds: float, rows_file: Path) -> dict[str, Any]:
    """Run one part as a process group that ends with its budget.

    Returns:
        `status` (`done`, `failed` or `out of time`), `seconds`, `rows`, and `error`, the end of what it said, of one
        that is not done.
    """
    rows_file.parent.mkdir(parents=True, exist_ok=True)
    rows_file.unlink(missing_ok=True)
    started = time.monotonic()
    process = subprocess.Popen(
        command(name, rows_file), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, said = process.communicate(timeout=seconds)
        status = "failed" if process.returncode else "done"
    except subprocess.TimeoutExpired:
        status = "out of time"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if status == "out of time":
        _, said = process.communicate()
    text = rows_file.read_text(encoding="utf-8") if rows_file.is_file() else ""
    rows_file.unlink(missing_ok=True)
    # The last line of a part that was killed may be half of one.
    rows = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    part = {"status": status, "seconds": round(time.monotonic() - started, 1), "rows": rows}
    return part if status == "done" else part | {"error": said.strip()[-500:]}


def _lines(part: Mapping[str, Any]) -> list[str]:
    shown = [json.dumps(row) for row in part["rows"]]
    return [*shown, part["error"].splitlines()[-1]] if part.get("error") else shown
