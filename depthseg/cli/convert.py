"""`depthseg convert`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..engine.command import one_sentence_errors, show_progress


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of a conversion."""
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="SRC", help="file of weights (.pth, .safetensors, ...), or a folder"
    )
    parser.add_argument("--output-dir", type=Path, required=True, metavar="FOLDER", help="new folder of the model")
    parser.add_argument(
        "--from", dest="kind", metavar="KIND", help="layout, such as depth-anything-2; default: found from the names"
    )
    parser.add_argument(
        "--max-depth", type=float, metavar="METRES", help="range of a metric network, which its file does not say"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Convert, and print the report."""
    with one_sentence_errors():
        from ..convert.converted import ConvertOptions
        from ..convert.saving import convert

        show_progress()
        chosen = ConvertOptions(max_depth=options.max_depth)
        print(convert(options.sources, options.output_dir, options.kind, chosen))
