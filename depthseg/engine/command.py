"""Training and scoring as commands, for `depthseg ...` and for the scripts in training/.

What a command needs is imported when it runs: reading the command line, and saying what is wrong with it or with a
configuration, imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..choices import ALIGNMENTS, CROPS

if TYPE_CHECKING:
    import argparse

    from .run import RunResult

logger = logging.getLogger(__name__)

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
    except BrokenPipeError:  # nobody reads on, which is no mistake
        raise
    except USER_ERRORS as error:
        logging.getLogger("depthseg").debug("where it happened", exc_info=True)
        raise SystemExit(f"error: {error}") from error


def show_progress() -> None:
    """Let the package's messages through to stderr; of several processes only the first one speaks."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # one for every file saved would tear ours apart
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    first = os.environ.get("RANK", "0") == "0"
    logging.getLogger("depthseg").setLevel(logging.INFO if first else logging.WARNING)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser `--config NAME|FILE` and overrides."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="NAME|FILE",
        help="recipe (`depthseg recipes` lists them, `depthseg recipes NAME` prints one), or YAML file of the run",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="SECTION.OPTION=VALUE",
        help="such as optim.lr=1e-4; `depthseg recipes --options` explains every option",
    )


def run_training(tasks: Sequence[str], arguments: argparse.Namespace) -> RunResult:
    """Train as the command line says.

    Args:
        tasks: The tasks that this command trains.
        arguments: Parsed options of `add_training_options`.

    Raises:
        SystemExit: With a sentence where the user has to change something, or after an interruption.
    """
    from .config import load_config

    with one_sentence_errors():
        config = load_config(arguments.config, arguments.overrides)
        if config.task not in tasks:
            raise ValueError(
                f"The options have task: {config.task}, and this command trains task: {', '.join(tasks)}. "
                "`depthseg pretrain` trains every task."
            )
    from tqdm.contrib.logging import logging_redirect_tqdm

    from .run import train

    show_progress()
    with one_sentence_errors(), logging_redirect_tqdm():
        return train(config)


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `run_evaluation`."""
    from ..data import DATASETS

    parser.add_argument("--model", required=True, help="directory or Hub id of a depthseg model")
    parser.add_argument("--revision", help="commit, tag or branch of a Hub id")
    parser.add_argument(
        "--dataset", required=True, choices=list(DATASETS), metavar="NAME", help=f"one of {', '.join(DATASETS)}"
    )
    parser.add_argument("--root", required=True, help="folder of the data")
    parser.add_argument("--split", default="val", help="default: val")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="option of the data set")
    parser.add_argument("--protocol", choices=ALIGNMENTS, help="how depth is aligned; default: as its type asks")
    parser.add_argument("--factor", type=float, help="the factor of --protocol fixed")
    parser.add_argument(
        "--crop", choices=CROPS, default="none", help="part of the image where depth is evaluated; default: all of it"
    )
    parser.add_argument("--min-depth", type=float, help="metres; default: the model's")
    parser.add_argument("--max-depth", type=float, help="metres; default: the model's")
    parser.add_argument("--json", action="store_true", help="print JSON with all digits")


def run_evaluation(arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluate a model as the command line says, by the code that evaluates it in training.

    A segmenter that also predicts depth is evaluated on both, where the data set has depth.

    Args:
        arguments: Parsed options of `add_evaluation_options`.

    Returns:
        `dataset`, `split`, number of `images`, and the scores, ready for JSON.

    Raises:
        SystemExit: With a sentence where the user has to change something.
    """
    from ..data import load_dataset
    from ..data.value_range import given_value_range

    show_progress()
    with one_sentence_errors():
        dataset = load_dataset(arguments.dataset, arguments.root, arguments.split, **data_options(arguments.option))
        from .evaluation import evaluate_images, json_scores, meters_of, sum_up
        from .predict import load_model

        model, processor = load_model(arguments.model, arguments.revision)
        given = given_value_range(dataset)
        if given is not None and list(given) != processor.value_range:
            logger.warning(
                "value_range=%s is not used: images are scaled as in training, by %s.", given, processor.value_range
            )
        names = ("factor", "crop", "min_depth", "max_depth")
        protocol = {"alignment": arguments.protocol} | {name: getattr(arguments, name) for name in names}
        meters = meters_of(model, dataset, **protocol)
        states = (states for _, states in evaluate_images(model, processor, dataset, meters))
        scores = {"dataset": arguments.dataset, "split": arguments.split, "images": len(dataset)}
        scores |= json_scores(sum_up(meters, states))
        # Depth may leave out images whose labels are counted all the same.
        return scores | ({"images": len(dataset)} if "segmentation" in meters else {})


def evaluation_text(scores: dict[str, Any], as_json: bool) -> str:
    """What `run_evaluation` returns, for a terminal: as JSON, or as a list with four digits."""
    if as_json:
        return scores_text(scores)
    rest = dict(scores)
    data, split, images = (rest.pop(name) for name in ("dataset", "split", "images"))
    head = f"{data}, split {split}: {images} image{'' if images == 1 else 's'} evaluated"
    return "\n".join([head, *_score_lines(rest)])


def _score_lines(scores: dict[str, Any], indent: str = "  ") -> Iterator[str]:
    width = max(map(len, scores))
    for name, value in scores.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from _score_lines(value, indent + "  ")
            continue
        if isinstance(value, list):
            value = ", ".join(value) or "none"
        text = "absent" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
        yield f"{indent}{name:<{width}}  {text}"


def data_options(words: Sequence[str]) -> dict[str, Any]:
    """Options of a data set from words such as `depth_scale=1000`."""
    from ..reading import read_pairs

    return read_pairs(words, "--option", "depth_scale=1000")


def scores_text(scores: dict[str, Any]) -> str:
    """Scores as indented JSON, for a terminal."""
    return json.dumps(scores, indent=2)
