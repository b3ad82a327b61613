"""Training as a command, and what all commands have in common, for `depthseg ...` and for the scripts in training/.

What a command needs is imported when it runs: reading the command line, and saying what is wrong with it or with a
configuration, imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .run_fault import RunFault

if TYPE_CHECKING:
    import argparse

    from .run import RunResult

USER_ERRORS = (
    *(ValueError, FileNotFoundError, FileExistsError, FloatingPointError, ImportError),
    *(ConnectionError, PermissionError, RunFault),
)
"""Errors whose message tells the user what to do; they end a command without a traceback."""


INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended, as shells have it."""


@contextlib.contextmanager
def one_sentence_errors() -> Iterator[None]:
    """Show the message of a user's error alone and end with exit code 1."""
    try:
        yield
    except BrokenPipeError:  # nobody reads on, which is no mistake
        raise
    except USER_ERRORS as error:
        logging.getLogger("depthseg").debug("where it happened", exc_info=True)
        raise SystemExit(f"error: {error}") from error


@contextlib.contextmanager
def ended_at_once() -> Iterator[None]:
    """Say what the second Ctrl-C of a run did, and end; the first one saves."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(
            "Stopped at once: the steps since the last checkpoint are lost, what is saved is whole. To resume: the "
            "same command with run.resume=true.\n"
        )
        raise SystemExit(INTERRUPTED) from interrupt


def show_progress() -> None:
    """Let the package's messages through to stderr; of several processes only the first one speaks."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # one for every file saved would tear ours apart
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    first = os.environ.get("RANK", "0") == "0"
    logging.getLogger("depthseg").setLevel(logging.INFO if first else logging.WARNING)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser `--config NAME|FILE` and overrides."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="NAME|FILE",
        help="recipe (`depthseg recipes` lists them, `depthseg recipes NAME` prints one), or YAML file of the run",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="SECTION.OPTION=VALUE",
        help="such as optim.lr=1e-4; `depthseg recipes --options` explains every option",
    )


def run_training(tasks: Sequence[str], arguments: argparse.Namespace) -> RunResult:
    """Train as the command line says.

    Args:
        tasks: The tasks that this command trains.
        arguments: Parsed options of `add_training_options`.

    Raises:
        SystemExit: With a sentence where the user has to change something, or after an interruption.
    """
    from .config import load_config

    with one_sentence_errors():
        config = load_config(arguments.config, arguments.overrides)
        if config.task not in tasks:
            raise ValueError(
                f"The options have task: {config.task}, and this command trains task: {', '.join(tasks)}. "
                "`depthseg pretrain` trains every task."
            )
    from tqdm.contrib.logging import logging_redirect_tqdm

    from .run import train

    show_progress()
    with ended_at_once(), one_sentence_errors(), logging_redirect_tqdm():
        return train(config)


def data_options(words: Sequence[str]) -> dict[str, Any]:
    """Options of a data set from words such as `depth_scale=1000`."""
    from ..reading import read_pairs

    return read_pairs(words, "--option", "depth_scale=1000")


def scores_text(scores: dict[str, Any]) -> str:
    """Scores as indented JSON, for a terminal."""
    return json.dumps(scores, indent=2)
