"""`depthseg bench`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..bench import CASES, DEFAULT_CASES, bench, environment
from ..engine.command import one_sentence_errors, show_progress


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of the comparison."""
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all but the tiny ones"
    )
    parser.add_argument(
        "--repeats", type=int, default=20, help="runs of each side, fewer where one takes long; default: %(default)s"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch; default: %(default)s")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write every single time as JSON, too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print both sides of each comparison as it is done."""
    done = []
    with one_sentence_errors():
        comparisons = bench(tuple(options.cases) or DEFAULT_CASES, options.repeats, options.threads)
        show_progress()
        for comparison in comparisons:
            print(comparison, flush=True)
            done.append(comparison.to_dict())
    if options.output:
        from ..engine.records import write_json

        write_json(options.output, environment(options.threads) | {"comparisons": done})
