"""The scores of a run as the released code computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data.label_encoding import IGNORED
from ...engine.evaluation import evaluation_mode, json_scores
from ...engine.predict import predict_maps
from ...metrics.reductions import image_mean_scores, matrix_scores
from .data import scored_set
from .switches import SWITCHES, Switched

if TYPE_CHECKING:
    from torch import nn

    from ...data import SampleDataset
    from ...engine.options import DataOptions

VOID = "no label"

PLAIN = "plain"
"""Scores of a run as without switches, where those of its record count further classes."""


def reported_scores(
    data: DataOptions, switched: Switched, on_offer: Switched, model: nn.Module, processor: Any
) -> dict[str, dict[str, Any]]:
    """Scores of a fine-tuned model by the scorer of the released code.

    Args:
        data: Of its run.
        switched: The switches of its run.
        on_offer: Switches of the study that apply to it. Those that touch the score alone have no run of their own:
            they are what a run without switches is scored by, too.
        model: As its run left it.
        processor: Its image processor.

    Returns:
        By `scoring_name`: `mean_iou` and `pixel_accuracy`, from 0 to 1; empty where a run is scored as without
        switches.
    """
    alone: list[Switched] = [
        {name: settings} for name, settings in on_offer.items() if SWITCHES[name].stage == "score"
    ]
    if 1 < len(alone) == len(on_offer):
        alone.append(on_offer)
    chosen = {scoring_name(each): each for each in ([switched] if switched else alone) if scoring_name(each)}
    if "num_outputs" in switched:
        chosen[PLAIN] = {}
    found = {}
    for name, scoring in chosen.items():
        dataset = scored_set(data, scoring)
        scores = scores_by(count_pixels(model, processor, dataset), dataset.label_space.classes, scoring)
        found[name] = json_scores({score: scores[score] for score in ("mean_iou", "pixel_accuracy")})
    return found


def scoring_name(switched: Switched) -> str:
    """The switches that change how a run is scored, joined by "+"; empty if there is none."""
    return "+".join(name for name in switched if SWITCHES[name].rescores)


def count_pixels(model: nn.Module, processor: Any, dataset: SampleDataset) -> np.ndarray:
    """Pixels of each image by truth and prediction, int64 `(N, K + 2, K + 2)`, of K classes.

    Rows are the truth, columns the prediction. Id K means no label; a network with further outputs may predict that,
    or no class at all, K + 1.
    """
    count = len(dataset.label_space.classes)
    side, found = count + 2, []
    with evaluation_mode(model):
        for index in range(len(dataset)):
            sample = dataset[index]
            predicted, _ = predict_maps(model, processor, sample.image)
            truth = np.where(sample.labels == IGNORED, count, sample.labels).astype(np.int64)
            pairs = truth * side + np.minimum(predicted, count + 1)
            found.append(np.bincount(pairs.ravel(), minlength=side * side).reshape(side, side))
    return np.stack(found)


def scores_by(matrices: np.ndarray, classes: Sequence[str], scoring: Switched) -> dict[str, Any]:
    """Scores from the counts of `count_pixels`, by `metric` if it is on.

    Raises:
        ValueError: `metric` names a class that is none of the data set.
    """
    count = len(classes)
    if "metric" not in scoring:
        labelled = np.pad(matrices[:, :count, : count + 1], ((0, 0), (0, 1), (0, 0)))
        labelled[:, :count, count] += matrices[:, :count, count + 1]
        return matrix_scores(labelled, classes)
    evaluated = scoring["metric"]["classes"]
    if unknown := [name for name in evaluated if name not in classes]:
        raise ValueError(
            f"defects.metric.settings.classes names {', '.join(unknown)}; the classes are {', '.join(classes)}."
        )
    return image_mean_scores(matrices, [*classes, VOID, "no class"], evaluated, void=count)
