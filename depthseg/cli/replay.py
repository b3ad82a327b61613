"""`depthseg replay`."""

from __future__ import annotations

import argparse

from ..engine.command import one_sentence_errors


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `replay`."""
    parser.add_argument("bundle", help="RUN_DIR/bad_steps/step_N: a step whose loss or gradient was not finite")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU even where there is a GPU")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the step again and print where values stop being finite."""
    from ..engine.replay import replay

    with one_sentence_errors():
        found = replay(options.bundle, options.cpu)
    for sentence in found.sentences():
        print(sentence)
