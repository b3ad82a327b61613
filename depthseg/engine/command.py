"""Training and scoring as commands, for `depthseg ...` and for the scripts in training/."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tqdm.contrib.logging import logging_redirect_tqdm
from transformers.utils import logging as transformers_logging

from ..data import DATASETS, load_dataset
from ..metrics import ALIGNMENTS, CROPS, DepthErrors
from ..models import DepthSegForSemanticSegmentation
from ..reading import read_pairs
from .config import load_config
from .evaluation import default_depth_errors, evaluate_model, json_scores
from .predict import load_model
from .run import RunResult, train

if TYPE_CHECKING:
    import argparse

USER_ERRORS = (
    *(ValueError, FileNotFoundError, FileExistsError, FloatingPointError, ImportError),
    *(ConnectionError, PermissionError),
)
"""Errors whose message tells the user what to do; they end a command without a traceback."""


@contextlib.contextmanager
def one_sentence_errors() -> Iterator[None]:
    """Show the message of a user's error alone and end with exit code 1."""
    try:
        yield
    except USER_ERRORS as error:
        logging.getLogger("depthseg").debug("where it happened", exc_info=True)
        raise SystemExit(f"error: {error}") from error


def show_progress() -> None:
    """Let the package's messages through to stderr; of several processes only the first one speaks."""
    transformers_logging.disable_progress_bar()  # one for every file saved would tear ours apart
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    first = os.environ.get("RANK", "0") == "0"
    logging.getLogger("depthseg").setLevel(logging.INFO if first else logging.WARNING)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser `--config FILE` and overrides."""
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the run")
    parser.add_argument("overrides", nargs="*", metavar="SECTION.OPTION=VALUE", help="such as optim.lr=1e-4")


def run_training(tasks: Sequence[str], arguments: argparse.Namespace) -> RunResult:
    """Train as the command line says.

    Args:
        tasks: The tasks that this command trains.
        arguments: Parsed options of `add_training_options`.

    Raises:
        SystemExit: With a sentence where the user has to change something, or after an interruption.
    """
    show_progress()
    with one_sentence_errors(), logging_redirect_tqdm():
        config = load_config(arguments.config, arguments.overrides)
        if config.task not in tasks:
            raise ValueError(
                f"{arguments.config} has task: {config.task}, and this command trains task: {', '.join(tasks)}."
            )
        return train(config)


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `run_evaluation`."""
    parser.add_argument("--model", required=True, help="directory or Hub id of a depthseg model")
    parser.add_argument("--revision", help="commit, tag or branch of a Hub id")
    parser.add_argument("--dataset", required=True, help=f"one of {', '.join(DATASETS)}")
    parser.add_argument("--root", required=True, help="folder of the data")
    parser.add_argument("--split", default="val", help="default: val")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="option of the data set")
    parser.add_argument("--protocol", choices=ALIGNMENTS, help="how depth is aligned; default: as its type asks")
    parser.add_argument("--factor", type=float, help="the factor of --protocol fixed")
    parser.add_argument(
        "--crop", choices=CROPS, default="none", help="part of the picture where depth is scored; default: all of it"
    )
    parser.add_argument("--min-depth", type=float, help="metres; default: the model's")
    parser.add_argument("--max-depth", type=float, help="metres; default: the model's")


def run_evaluation(arguments: argparse.Namespace) -> dict[str, Any]:
    """Score a model as the command line says, by the code that scores it in training.

    Args:
        arguments: Parsed options of `add_evaluation_options`.

    Returns:
        The scores, ready for JSON.

    Raises:
        SystemExit: With a sentence where the user has to change something.
    """
    show_progress()
    with one_sentence_errors():
        options = read_pairs(arguments.option, "--option", "frames=[-1,1]")
        dataset = load_dataset(arguments.dataset, arguments.root, arguments.split, **options)
        model, processor = load_model(arguments.model, arguments.revision)
        if isinstance(model, DepthSegForSemanticSegmentation):
            return json_scores(evaluate_model(model, processor, dataset, "segmentation"))
        errors = _depth_errors(arguments, default_depth_errors(model))
        return json_scores(evaluate_model(model, processor, dataset, "depth", depth_errors=errors))


def _depth_errors(arguments: argparse.Namespace, default: DepthErrors) -> DepthErrors:
    return DepthErrors(
        alignment=arguments.protocol or default.alignment,
        factor=arguments.factor,
        crop=arguments.crop,
        min_depth=arguments.min_depth or default.min_depth,
        max_depth=arguments.max_depth or default.max_depth,
        inverse=default.inverse,
        relative=default.relative,
    )


def scores_text(scores: dict[str, Any]) -> str:
    """Scores as indented JSON, for a terminal."""
    return json.dumps(scores, indent=2)
