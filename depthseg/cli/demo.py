"""`depthseg demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..engine.command import one_sentence_errors

HOST = "127.0.0.1"
PORT = 7860


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `demo`."""
    parser.add_argument("model", help="directory or Hub id of a depthseg model")
    parser.add_argument("model2", nargs="?", help="another one, to compare: a slider shows both overlays")
    parser.add_argument(
        "--host", default=HOST, help=f"address to listen at; 0.0.0.0 = all networks of this machine (default: {HOST})"
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"port to listen at (default: {PORT})")
    parser.add_argument(
        "--space",
        type=Path,
        metavar="DIR",
        help="write the page as a Hugging Face Space into a new folder and do not open it; models of directories are "
        "copied into it",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Open the page, or write a Space."""
    models = [name for name in (options.model, options.model2) if name is not None]
    with one_sentence_errors():
        if options.space is not None:
            from ..engine.demo_space import write_space

            print(write_space(options.space, models))
            return
        from ..engine.demo_page import serve

        serve(models, options.host, options.port)
