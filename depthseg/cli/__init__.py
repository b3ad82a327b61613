"""The command `depthseg`; one file for the options and the work of each command.

Of these files only that of the command which is named gets imported, and what its work needs is imported when the
work begins: help and a mistyped word need neither torch nor transformers.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib import import_module

from .. import __version__
from .parser import CommandParser

COMMANDS = {
    "quickstart": "the whole path on the procedural world, in minutes",
    "recipes": "list the configurations that come with depthseg, print or copy one",
    "pretrain": "train a depth network, or a baseline of it",
    "finetune": "turn a depth network into a segmenter",
    "replay": "run a step again whose loss or gradient was not a finite number",
    "evaluate": "evaluate a model on a data set",
    "predict": "labels and depth for your images, with overlays",
    "demo": "a web page: labels and depth of images and films that are dropped on it",
    "convert": "published weights of others become a depthseg model",
    "export": "write a model as one file for ONNX or torch.export",
    "datasets": "list, check, import or render data sets; examine a video",
    "study": "compare initialisations: many runs, one report",
    "publish": "put a trained model on the Hub, with its card",
    "bench": "our speed against transformers and plain formulae",
}
"""Command -> what it does; the module of a command has its name."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command.

    Args:
        arguments: Words of the command line; None = those of the process.
    """
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse gives up on words that stand behind a flag where others stood before it.
    wrong = [word for word in rest if word.startswith("-") or "=" not in word or not hasattr(options, "overrides")]
    if wrong:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if rest:
        options.overrides += rest
    try:
        code = options.run(options)
        sys.stdout.flush()
        leave_process_group()
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; Python must not try to flush once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def build_parser() -> CommandParser:
    """Return the parser; each command stores its function as `run`."""
    parser = CommandParser(
        prog="depthseg", description="Turn depth networks into segmentation networks, in the Hugging Face way."
    )
    parser.add_argument("--version", action="version", version=f"depthseg {__version__}")
    commands = parser.add_commands()
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, fill=partial(fill, name))
    return parser


def fill(name: str, parser: CommandParser) -> None:
    """Give the parser of a command its options."""
    import_module(f".{name}", __package__).add_options(parser)


def leave_process_group() -> None:
    """Close the connections between processes of a launcher, whose threads can abort a process that ends with them.

    Only after success: when one process fails, the others may be waiting for it, and so would this call.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
