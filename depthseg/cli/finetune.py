"""`depthseg finetune`."""

from __future__ import annotations

import argparse

from ..engine.command import add_training_options
from .pretrain import print_run


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of a run that trains a segmenter."""
    add_training_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train a segmenter."""
    print_run(("segmentation",), options)
