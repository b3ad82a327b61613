"""`depthseg quickstart`."""

from __future__ import annotations

import argparse

from ..engine.command import one_sentence_errors, show_progress


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of the quickstart."""
    parser.add_argument("--output-dir", default="depthseg-quickstart", help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier quickstart")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the quickstart and print its table."""
    from ..quickstart import quickstart

    show_progress()
    with one_sentence_errors():
        print(quickstart(options.output_dir, overwrite=options.overwrite))
