"""`depthseg evaluate`."""

from __future__ import annotations

import argparse

from ..engine.evaluation_command import add_evaluation_options, print_evaluation


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of an evaluation."""
    add_evaluation_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Evaluate, and print the scores."""
    print_evaluation(options)
