"""`depthseg pretrain`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..engine.command import add_training_options, run_training, scores_text


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of a run of any task."""
    add_training_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train on any task."""
    from ..engine.options import TASK_NAMES

    print_run(TASK_NAMES, options)


def print_run(tasks: Sequence[str], options: argparse.Namespace) -> None:
    """Train, then print where the model is and its scores."""
    result = run_training(tasks, options)
    if result.is_main_process:
        print(f"{result.model_dir}\n{scores_text(result.scores)}")
