"""`depthseg evaluate`, and the script in training/: a model on a data set, by one protocol or several.

What the evaluation needs is imported when it runs, as in `command`.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..choices import ALIGNMENTS, CROPS, PROTOCOLS
from .command import data_options, one_sentence_errors, scores_text, show_progress

if TYPE_CHECKING:
    import argparse

    from accelerate import Accelerator
    from torch import nn

    from ..data import SampleDataset
    from .inference import Inference

_FEW_CLASSES = 12
_OF_TRAINING = ("frames", "stride", "stereo", "intrinsics")  # what only a loss compares
_OF_NETWORKS = ("window", "stride", "scales", "flip", "boundary", "calibration", "output_dir")
_OF_DEPTH = ("alignment", "factor", "min_depth", "max_depth")
logger = logging.getLogger(__name__)

COLUMNS = ("mean_iou", "pixel_accuracy", "mean_accuracy", "boundary_iou")
"""Scores in the table of several protocols."""


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `run_evaluation`."""
    from ..data import DATASETS
    from ..data.corruptions import CORRUPTIONS

    evaluated = parser.add_mutually_exclusive_group(required=True)
    evaluated.add_argument("--model", help="directory or Hub id of a depthseg model")
    evaluated.add_argument(
        "--predictions",
        metavar="FOLDER",
        help="in place of a model: label maps of any program, a PNG of class ids with the name of each image",
    )
    parser.add_argument("--revision", help="commit, tag or branch of a Hub id")
    parser.add_argument(
        "--dataset", required=True, choices=list(DATASETS), metavar="NAME", help=f"one of {', '.join(DATASETS)}"
    )
    parser.add_argument("--root", required=True, help="folder of the data")
    parser.add_argument("--split", default="val", help="default: val")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="option of the data set")
    parser.add_argument(
        "--protocol",
        default="standard",
        metavar="NAME[,NAME]",
        help=f"protocols of segmentation, from one pass: {', '.join(PROTOCOLS)}; default: standard",
    )
    pixels = {"nargs": 2, "type": int, "metavar": ("HEIGHT", "WIDTH")}
    parser.add_argument(
        "--window", **pixels, help="standard: predict in windows of the image at its own size, and average the logits"
    )
    parser.add_argument("--stride", **pixels, help="from one window to the next; default: the window")
    parser.add_argument(
        "--scales", nargs="+", type=float, metavar="FACTOR", help="standard: average predictions at these sizes"
    )
    parser.add_argument("--flip", action="store_true", help="standard: average in those of the mirrored image")
    parser.add_argument("--boundary", action="store_true", help="standard: also the boundary IoU")
    parser.add_argument(
        "--calibration", action="store_true", help="standard: also the expected calibration error of the probabilities"
    )
    parser.add_argument(
        "--baseline",
        nargs="?",
        const="train",
        metavar="SPLIT",
        help="also what a constant reaches: the most frequent class, the median depth of this split; default: train",
    )
    parser.add_argument("--alignment", choices=ALIGNMENTS, help="how depth is aligned; default: as its type asks")
    parser.add_argument("--factor", type=float, help="the factor of --alignment fixed")
    parser.add_argument(
        "--crop", choices=CROPS, default="none", help="part of the image where depth is evaluated; default: all of it"
    )
    parser.add_argument("--min-depth", type=float, help="metres; default: the model's")
    parser.add_argument("--max-depth", type=float, help="metres; default: the model's")
    parser.add_argument(
        "--corruption",
        metavar="KIND:STRENGTH",
        help=f"corrupt the images first: {', '.join(CORRUPTIONS)}, at strength 1 to 3, such as fog:2",
    )
    parser.add_argument("--json", action="store_true", help="print JSON with all digits")
    parser.add_argument(
        "--output-dir", help="write scores.json and per_image.npz, the confusion matrix of every image, there"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace these files")


def run_evaluation(arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluate a model, or label maps, as the command line says, by the code that evaluates it in training.

    A segmenter that also predicts depth is evaluated on both, where the data set has depth. Of several processes, as
    `accelerate launch` or `torchrun` starts them, each evaluates its share of the images.

    Args:
        arguments: Parsed options of `add_evaluation_options`.

    Returns:
        `dataset`, `split`, number of `images`, their `corruption` if any, and the scores, ready for JSON. Of a
        segmenter, the scores of one protocol with its name as `protocol` and its `stamp`; of several, all of this by
        name under `protocols`.

    Raises:
        SystemExit: With a sentence where the user has to change something.
    """
    from ..data import load_dataset
    from ..data.corruptions import CorruptedImages, read_corruption
    from .inference import Inference

    show_progress()
    with one_sentence_errors():
        names = _protocols(arguments)
        given = {name: tuple(value) for name in ("window", "stride", "scales") if (value := getattr(arguments, name))}
        how, folder = Inference(**given, flip=arguments.flip), _output_folder(arguments)
        for flag, what in (("boundary", "The boundary IoU"), ("calibration", "The calibration error")):
            if getattr(arguments, flag) and "standard" not in names:
                raise ValueError(f"{what} belongs to the protocol standard: add it to --protocol.")
        corruption = read_corruption(arguments.corruption) if arguments.corruption else None
        dataset = load_dataset(arguments.dataset, arguments.root, arguments.split, **data_options(arguments.option))
        if corruption:
            dataset = CorruptedImages(dataset, *corruption)
        about = {"dataset": arguments.dataset, "split": arguments.split, "images": len(dataset)}
        about |= {"corruption": arguments.corruption} if corruption else {}
        if arguments.predictions is not None:
            scores = _scores_of_files(arguments, names, dataset)
            return about | scores | _baselines(arguments, scores, dataset)
        from accelerate import Accelerator

        from .predict import load_model

        accelerator = Accelerator() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
        device = str(accelerator.device) if accelerator else None
        model, processor = load_model(arguments.model, arguments.revision, device)
        _compare_with_run(arguments)
        _require_depth(arguments, model, dataset)
        _warn_of_range(dataset, processor)
        scores = _scores(arguments, names, how, folder, about, model, processor, dataset, accelerator)
        return about | scores | _baselines(arguments, scores, dataset)


def print_evaluation(arguments: argparse.Namespace) -> None:
    """Evaluate, and print the scores; of several processes the first one prints."""
    scores = run_evaluation(arguments)
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(evaluation_text(scores, arguments.json) + "\n")


def _scores(
    arguments: argparse.Namespace,
    names: list[str],
    how: Inference,
    folder: Path | None,
    about: Mapping[str, Any],
    model: nn.Module,
    processor: Any,
    dataset: SampleDataset,
    accelerator: Accelerator | None,
) -> dict[str, Any]:
    from ..metrics import CalibrationError
    from ..metrics.boundaries import BoundaryIou
    from ..models import DepthSegForSemanticSegmentation
    from .evaluation import depth_meter, evaluate_model, json_scores
    from .one_pass import evaluate_protocols, write_pass
    from .protocols import rules_of

    options = {name: getattr(arguments, name) for name in ("alignment", "factor", "crop", "min_depth", "max_depth")}
    if not isinstance(model, DepthSegForSemanticSegmentation):
        if given := _given(arguments, names, _OF_NETWORKS):
            raise ValueError(
                f"{arguments.model} is a depth model, and {', '.join(given)} belong{'s' * (len(given) == 1)} to "
                "segmentation: leave out what does. How depth is aligned is --alignment."
            )
        depth_errors = depth_meter(model, dataset, **options)
        return json_scores(evaluate_model(model, processor, dataset, "depth", accelerator, depth_errors))
    rules = rules_of(names, model, dataset, how)
    if arguments.corruption:
        stamps = {name: replace(row.stamp, corruption=arguments.corruption) for name, row in rules.items()}
        rules = {name: replace(row, stamp=stamps[name]) for name, row in rules.items()}
    meter = rules["standard"].meter if arguments.boundary else None
    found = evaluate_protocols(
        *(model, processor, dataset, rules, accelerator),
        depth_errors=depth_meter(model, dataset, **options),
        boundary=BoundaryIou(meter.num_classes, meter.ignore_index) if meter else None,
        calibration=CalibrationError(dataset.label_space.ignore_index) if arguments.calibration else None,
        keep_matrices=folder is not None,
    )
    if folder is not None and (accelerator is None or accelerator.is_main_process):
        write_pass(folder, found, rules, dataset.names, about)
    scores: dict[str, Any] = {"protocols": dict(found.scores)}
    if len(found.scores) == 1:
        ((name, of_protocol),) = found.scores.items()
        scores = {"protocol": name, **of_protocol}
    return json_scores(scores | found.depth) | {"images": about["images"]}


def _compare_with_run(arguments: argparse.Namespace) -> None:
    """Say what the run of a model had otherwise: options of the data, and depth that has no scale.

    The run is known by the `config.yaml` beside its `model/`; a published or copied model has none.
    """
    record = Path(arguments.model).parent / "config.yaml"
    if not record.is_file():
        return
    from ..data import DATASETS
    from .config import load_config
    from .tasks import is_self_supervised

    try:
        config = load_config(record, is_record=True)
    except (ValueError, OSError):  # some other file of that name
        return
    given = data_options(arguments.option)
    trained = config.data.options | config.data.val_options if config.data.name == arguments.dataset else {}
    declared = inspect.signature(DATASETS[arguments.dataset].load).parameters
    unless_given = {key: declared[key].default for key in trained if key in declared}
    used = {key: str((unless_given | given).get(key)) for key in trained}
    differing = [key for key in trained if used[key] != str(trained[key])]
    if differing := [key for key in differing if key not in _OF_TRAINING]:
        words = " ".join(f'--option "{key}={trained[key]}"' for key in differing)
        logger.warning("The run of this model evaluated its data with other options; to do the same: %s", words)
    scaleless = is_self_supervised(config) and "stereo" not in config.pretext.supervision
    if scaleless and arguments.alignment is None:
        arguments.alignment = "median"
        logger.warning("Depth from video has no scale, so it is aligned by the median of each image (--alignment).")


def _require_depth(arguments: argparse.Namespace, model: nn.Module, dataset: SampleDataset) -> None:
    """Refuse to evaluate a depth model on a data set that was opened without depth, and name the option."""
    from ..data import DATASETS, declared_options
    from ..models import DepthSegForDepthEstimation

    if not isinstance(model, DepthSegForDepthEstimation) or not len(dataset):
        return
    known = getattr(dataset, "has_depth", None)
    found = any(map(known, range(len(dataset)))) if known else dataset[0].depth is not None
    options = [name for name in declared_options(DATASETS[arguments.dataset].load) if "depth" in name]
    if not found:
        raise ValueError(
            f"{arguments.dataset} was opened without depth, which a depth model is evaluated by. Give its option "
            f"as --option NAME=VALUE; those of depth are {', '.join(options) or 'none: take another data set'}."
        )


def _baselines(arguments: argparse.Namespace, scores: Mapping[str, Any], dataset: SampleDataset) -> dict[str, Any]:
    """What predictors that see no image reach on the same data, fitted on another split of it."""
    if arguments.baseline is None:
        return {}
    from ..data import load_dataset
    from .before_after import constant_scores

    known = load_dataset(arguments.dataset, arguments.root, arguments.baseline, **data_options(arguments.option))
    if "mean_iou" in scores:
        evaluated, named = len(scores["per_class_iou"]), known.label_space.num_labels
        if evaluated != named:
            raise ValueError(
                f"--baseline counts the {named} classes of the data set, and the scores are of {evaluated}: open the "
                f"data set with these {evaluated} (--option classes={evaluated}), or leave --baseline out."
            )
    constants = constant_scores(scores, known, dataset)
    found = {
        f"{constant}: {name}": errors[name]
        for constant, errors in constants.items()
        for name in ("mean_iou", "abs_rel", "delta1", "alignment")
        if name in errors
    }
    if not found:
        raise ValueError("--baseline is for the protocol standard alone, and for depth: leave out one of the two.")
    return {"baselines": found}


def _protocols(arguments: argparse.Namespace) -> list[str]:
    """The protocols that are named; a depth alignment, which `--protocol` was for, becomes that."""
    names = [name.strip() for name in arguments.protocol.split(",") if name.strip()]
    if len(names) == 1 and names[0] in ALIGNMENTS:
        if arguments.alignment not in (None, names[0]):
            raise ValueError(f"--protocol {names[0]} is called --alignment now, and both are given: leave it out.")
        logger.warning(
            "--protocol %s is called --alignment %s now; the old name goes with the next version.", *names * 2
        )
        arguments.alignment = names[0]
        return ["standard"]
    if misplaced := next((name for name in names if name in ALIGNMENTS), None):
        raise ValueError(f"{misplaced} is a value of --alignment; --protocol takes {', '.join(PROTOCOLS)}.")
    from .protocols import check_names

    check_names(names)
    return names


def _scores_of_files(arguments: argparse.Namespace, names: list[str], dataset: SampleDataset) -> dict[str, Any]:
    """Scores of the label maps in a folder, for which no network runs."""
    from .evaluation import json_scores
    from .label_files import scores_of_label_files

    if given := _given(arguments, names, (*_OF_NETWORKS, *_OF_DEPTH, "corruption", "revision")):
        raise ValueError(
            f"--predictions evaluates label maps as they are, and {', '.join(given)} need{'s' * (len(given) == 1)} a "
            "model: leave out what does."
        )
    return {"protocol": "standard", **json_scores(scores_of_label_files(arguments.predictions, dataset))}


def _given(arguments: argparse.Namespace, names: list[str], flags: Sequence[str]) -> list[str]:
    """The options among some, and `--protocol`, that the user gave."""
    given = [f"--{name.replace('_', '-')}" for name in flags if getattr(arguments, name)]
    return given + ["--protocol"] * (names != ["standard"])


def _output_folder(arguments: argparse.Namespace) -> Path | None:
    if arguments.output_dir is None:
        return None
    from .one_pass import IMAGES_FILE, SCORES_FILE

    folder = Path(arguments.output_dir)
    for name in (SCORES_FILE, IMAGES_FILE):
        if (folder / name).exists() and not arguments.overwrite:
            raise FileExistsError(f"{folder / name} exists already; choose another --output-dir, or add --overwrite.")
    return folder


def _warn_of_range(dataset: SampleDataset, processor: Any) -> None:
    from ..data.value_range import given_value_range

    given = given_value_range(dataset)
    if given is not None and list(given) != processor.value_range:
        logger.warning(
            "value_range=%s is not used: images are scaled as in training, by %s.", given, processor.value_range
        )


def evaluation_text(scores: dict[str, Any], as_json: bool) -> str:
    """What `run_evaluation` returns, for a terminal: as JSON, or as a list with four digits."""
    if as_json:
        return scores_text(scores)
    from ..metrics import Stamp

    rest = dict(scores)
    data, split, images = (rest.pop(name) for name in ("dataset", "split", "images"))
    corrupted = f", {rest.pop('corruption')}" if "corruption" in rest else ""
    head = f"{data}, split {split}{corrupted}: {images} image{'' if images == 1 else 's'} evaluated"
    protocols, name, stamp = (rest.pop(key, None) for key in ("protocols", "protocol", "stamp"))
    if protocols is None:
        stamps = [f"{name}: {Stamp.from_dict(stamp)}"] if stamp else []
        return "\n".join([head, *_score_lines(rest), *stamps])
    stamps = []
    for name, found in protocols.items():
        averaged = [each for each, value in found["per_class_iou"].items() if value is not None]
        names = f" ({', '.join(averaged)})" if len(averaged) <= _FEW_CLASSES else ""
        stamps.append(f"{name}: mean over {len(averaged)} classes{names}; {Stamp.from_dict(found['stamp'])}")
    hint = "What changes the number: training/guides/is_this_iou_right.md"
    return "\n".join([head, *_table(protocols), *_score_lines(rest), *stamps, hint])


def _table(protocols: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Scores of several protocols side by side; they are not comparable with one another, as their stamps say."""
    columns = [name for name in COLUMNS if any(name in scores for scores in protocols.values())]
    width = max(map(len, protocols))
    yield "  ".join([f"  {'protocol':<{width}}", *columns, "stamp"])
    for protocol, scores in protocols.items():
        cells = ["-" if scores.get(name) is None else f"{scores[name]:.4g}" for name in columns]
        cells = [f"{cell:<{len(name)}}" for cell, name in zip(cells, columns, strict=True)]
        yield "  ".join([f"  {protocol:<{width}}", *cells, scores["stamp"]["digest"]])


def _score_lines(scores: dict[str, Any], indent: str = "  ") -> Iterator[str]:
    width = max(map(len, scores), default=0)
    for name, value in scores.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from _score_lines(value, indent + "  ")
            continue
        if isinstance(value, list):
            value = ", ".join(value) or "none"
        text = "absent" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
        yield f"{indent}{name:<{width}}  {text}"
