"""What training gained: the scores of a model before its first step and after the last, beside those of a constant."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..metrics.baselines import ConstantDepth, MajorityClass, score_depth_baseline, score_segmentation_baseline
from ..metrics.stamp import Stamp
from .atomic import atomic_path
from .evaluation import json_scores
from .records import RUN_RECORD, read_run_record, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

    from ..data import SampleDataset
    from .scoring import Scorer
    from .tasks import Score

logger = logging.getLogger(__name__)

TABLE_FILE = "before_after.md"
BEFORE, CONSTANTS = "scores_before", "constant_scores"
PROTOCOL = ("min_depth", "max_depth", "crop")


def constant_scores(
    scores: Mapping[str, Any], known: SampleDataset, dataset: SampleDataset
) -> dict[str, dict[str, Any]]:
    """Scores of predictors that see no image, by the protocol of the scores of a model on the same data.

    Args:
        scores: Of the model: `mean_iou` asks for the most frequent class, `abs_rel` for the median depth.
        known: What the constants are fitted on.
        dataset: What the model was evaluated on.

    Returns:
        By constant its scores, with their stamp; empty where there is no constant for the scores.

    Raises:
        ValueError: `known` lacks what a constant is fitted on.
    """
    found = {}
    if "mean_iou" in scores:
        found["majority class"] = score_segmentation_baseline(MajorityClass(known), dataset)
    if "abs_rel" in scores:
        # What is aligned has no unit of its own; a constant that is aligned by its median is the best it can be.
        alignment = "none" if scores["alignment"] == "none" else "median"
        protocol = {name: scores[name] for name in PROTOCOL}
        found["constant depth"] = score_depth_baseline(ConstantDepth(known), dataset, alignment=alignment, **protocol)
    return found


def record_scores_before(
    path: Path, accelerator: Accelerator, scorer: Scorer, train_set: SampleDataset, val_set: SampleDataset
) -> None:
    """Evaluate the weights that a run begins with, and the constants, into its run.json; called by all processes.

    A run that is resumed has them already.

    Args:
        path: The run.json.
        accelerator: Shares the images out.
        scorer: Evaluates the objective, which is on its device, by the protocol of the run.
        train_set: What the constants are fitted on. Without depth there, as of a video, there is no constant.
        val_set: What is evaluated.
    """
    record = read_run_record(path)
    # All read the file before the first one writes it.
    accelerator.wait_for_everyone()
    if BEFORE in record:
        return
    before = json_scores(scorer())
    # Every process reads all of it: one that read for the others would let them wait for longer than they may.
    try:
        constants = constant_scores(before, train_set, val_set)
    except ValueError as error:
        logger.warning("The model is not compared with a constant: %s", error)
        constants = {}
    if accelerator.is_main_process:
        constants = {name: json_scores(scores) for name, scores in constants.items()}
        write_json(path, record | {BEFORE: before, CONSTANTS: constants})
    accelerator.wait_for_everyone()


def write_before_after(run_dir: Path, task_scores: Sequence[Score], after: Mapping[str, Any]) -> None:
    """Write what training gained as a Markdown table into the report of a run, and log it.

    Args:
        run_dir: Run directory, whose run.json has what `record_scores_before` wrote.
        task_scores: What the table shows.
        after: The scores of the weights in `model/`.
    """
    found = read_run_record(run_dir / RUN_RECORD)
    constants = found.get(CONSTANTS, {})
    columns = {**constants, "before training": found[BEFORE], "after training": after}
    shown = [score for score in task_scores if None not in (found[BEFORE].get(score.name), after.get(score.name))]
    lines = [
        f"| | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
        *(f"| {score.label} | {' | '.join(_cell(score, scores) for scores in columns.values())} |" for score in shown),
        "",
        *_stamp_lines(columns),
    ]
    text = "\n".join(lines) + "\n"
    with atomic_path(run_dir / "report" / TABLE_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    logger.info("What training gained:\n%s", text)


def _cell(score: Score, scores: Mapping[str, Any]) -> str:
    value = scores.get(score.name)
    return "-" if value is None else f"{score.text(value)}{score.unit}"


def _stamp_lines(columns: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """How the scores of every column were computed, which differs in the alignment alone."""
    after = columns["after training"]
    if "stamp" in after:
        yield f"Labels: {Stamp.from_dict(after['stamp'])}."
    if "alignment" in after:
        aligned = {name: scores["alignment"] for name, scores in columns.items() if "alignment" in scores}
        yield (
            f"Depth: alignment {', '.join(f'{kind} ({name})' for name, kind in aligned.items())}; true depth between "
            f"{after['min_depth']:g} and {after['max_depth']:g} m; crop {after['crop']}; {after['images']} images."
        )
