"""Several protocols from one pass over a data set, and the files that hold what each image added to them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..metrics.stamp import IMAGE_MEAN
from .atomic import atomic_path
from .batches import target_of
from .evaluation import add_up, evaluation_mode, in_order, json_scores, shared_out
from .inference import Predictor
from .records import write_json

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from ..data import SampleDataset
    from ..metrics import CalibrationError, DepthErrors, Meter
    from ..metrics.boundaries import BoundaryIou
    from .protocols import Rules

logger = logging.getLogger(__name__)

SCORES_FILE, IMAGES_FILE = "scores.json", "per_image.npz"


@dataclass(frozen=True, eq=False)
class OnePass:
    """What one pass over a data set found.

    Attributes:
        scores: By protocol, with the `stamp` of each; NaN where a class is absent.
        depth: Scores of depth; empty where it was not evaluated.
        matrices: By protocol int64 `(N, I, I)`, one of each image, rows = truth, columns = prediction; only of the
            protocols that were asked for them.
    """

    scores: Mapping[str, dict[str, Any]]
    depth: dict[str, Any]
    matrices: Mapping[str, np.ndarray]


def evaluate_protocols(
    model: nn.Module,
    processor: Any,
    dataset: SampleDataset,
    rules: Mapping[str, Rules],
    accelerator: Accelerator | None = None,
    *,
    depth_errors: DepthErrors | None = None,
    boundary: BoundaryIou | None = None,
    calibration: CalibrationError | None = None,
    keep_matrices: bool = False,
) -> OnePass:
    """Evaluate a segmenter by several protocols, with each image read once.

    What the network sees is computed once for each image, however many protocols show it the same. Scores are the same
    to the last bit however many processes share the images.

    Args:
        model: Segmenter; at the end in the mode it came in.
        processor: Its image processor.
        dataset: What to evaluate on.
        rules: By protocol, from `rules_of`.
        accelerator: Shares the images out over its processes; all of them get the result.
        depth_errors: Measures the depth that the segmenter also predicts; None = not evaluated.
        boundary: Measures boundaries at the size of the protocol `standard`; None = not evaluated.
        calibration: Measures the probabilities of the protocol `standard`; None = not evaluated.
        keep_matrices: Whether the matrices of the images are returned.

    Raises:
        ValueError: An empty data set, a sample without labels, or no pixel that counts.
    """
    kept = [name for name, row in rules.items() if keep_matrices or row.stamp.reduction == IMAGE_MEAN]
    meters: dict[str, Meter] = {name: copy(row.meter) for name, row in rules.items() if name not in kept}
    also = {"boundary": boundary, "calibration": calibration, "depth": depth_errors}
    meters |= {name: meter for name, meter in also.items() if meter is not None}
    images: list[dict[str, torch.Tensor]] = []

    def states() -> Iterator[dict[str, torch.Tensor]]:
        for image in _states(model, processor, dataset, rules, accelerator, meters):
            images.append({name: image[name] for name in kept})
            yield image

    add_up(meters, states(), accelerator)
    whole = in_order(images, accelerator)
    matrices = {name: torch.stack([image[name] for image in whole]) for name in kept}
    scores: dict[str, dict[str, Any]] = {}
    for name, row in rules.items():
        counts = matrices[name] if name in kept else meters[name].state
        scores[name] = row.scores(counts) | {"stamp": row.stamp.to_dict()}
        if math.isnan(scores[name]["pixel_accuracy"]):
            logger.warning(
                "%s divides by the labelled pixels of each image, and %d of the images have none: the pixel accuracy "
                "is not defined.",
                *(name, scores[name]["images_without_labels"]),
            )
    if boundary is not None:
        scores["standard"]["boundary_iou"] = boundary.compute()["all"]
    if calibration is not None:
        scores["standard"] |= calibration.compute()
    depth = {} if depth_errors is None else depth_errors.compute()
    return OnePass(scores, depth, {name: matrices[name].numpy() for name in kept} if keep_matrices else {})


def _states(
    model: nn.Module,
    processor: Any,
    dataset: SampleDataset,
    rules: Mapping[str, Rules],
    accelerator: Accelerator | None,
    meters: Mapping[str, Meter],
) -> Iterator[dict[str, torch.Tensor]]:
    """Of each image the matrix of every protocol, and the states of the meters of something else."""
    with evaluation_mode(model):
        for sample in shared_out(dataset, accelerator):
            target_of(sample, "labels")  # refuses a sample without
            predictor, states = Predictor(model, processor, sample.image), {}
            for name, row in rules.items():
                try:
                    pair = row.compared(predictor, sample)
                    states[name] = row.meter.state_of(*pair)
                except ValueError as error:
                    raise ValueError(f"Image {sample.name!r}, protocol {name}: {error}") from error
                if name == "standard" and "boundary" in meters:
                    states["boundary"] = meters["boundary"].state_of(*pair)
                if name == "standard" and "calibration" in meters:
                    confidence = predictor.confidence(row.how, pair[1].shape)
                    states["calibration"] = meters["calibration"].state_of(*pair, confidence)
            if "depth" in meters:
                depth = None if sample.depth is None else predictor.maps()[1]
                states["depth"] = meters["depth"].state_of(depth, sample.depth)
            yield states


def write_pass(
    folder: Path, found: OnePass, rules: Mapping[str, Rules], names: Sequence[str], about: Mapping[str, Any]
) -> None:
    """Write `scores.json` and `per_image.npz`, each whole or not at all.

    From the matrices `depthseg.metrics.scores_of_images` computes the scores again: it takes the `classes`, the
    `evaluated` classes and the reduction of the stamp that `scores.json` names.

    Args:
        folder: Made where it is missing.
        found: With matrices.
        rules: By protocol.
        names: Of the images.
        about: What else `scores.json` tells.
    """
    with atomic_path(folder / IMAGES_FILE) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, names=np.array(names), **found.matrices)
    protocols = {
        name: json_scores(scores) | {"classes": list(rules[name].classes), "evaluated": list(rules[name].evaluated)}
        for name, scores in found.scores.items()
    }
    write_json(folder / SCORES_FILE, {**about, "protocols": protocols, **json_scores(found.depth)})


def read_pass(folder: Path) -> tuple[dict[str, Any], list[str], dict[str, np.ndarray]]:
    """What `write_pass` wrote: the content of `scores.json`, the names of the images, and their matrices by protocol.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The files are of two evaluations.
    """
    scores = json.loads((folder / SCORES_FILE).read_text(encoding="utf-8"))
    with np.load(folder / IMAGES_FILE, allow_pickle=False) as arrays:
        matrices = dict(arrays)
    names = matrices.pop("names").tolist()
    if set(matrices) != set(scores["protocols"]) or any(len(array) != len(names) for array in matrices.values()):
        raise ValueError(f"{SCORES_FILE} and {IMAGES_FILE} in {folder} are of two evaluations; evaluate again.")
    return scores, names, matrices
