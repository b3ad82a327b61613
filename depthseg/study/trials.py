"""Running one trial of a study, and the record that it writes."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import time
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accelerate
import numpy as np
import torch
import transformers

from ..data.subsets import few_shot_subset
from ..engine.analysis import measure_model
from ..engine.atomic import atomic_path
from ..engine.build import build_datasets, source_of
from ..engine.checkpoint import FOLDER as CHECKPOINTS
from ..engine.config import RunConfig, compose_config
from ..engine.evaluation import class_meter, evaluate_images, json_scores
from ..engine.options import DataOptions
from ..engine.predict import load_model
from ..engine.records import METRICS_FILE, RUN_RECORD, read_lines, read_run_record, write_json
from ..engine.run import RunResult, train
from ..metrics.baselines import MajorityClass, PositionPrior, score_segmentation_baseline
from ..metrics.blocks import blocks_of
from .defects.matrix import switches_of
from .defects.runs import as_trained, reported, run_arguments
from .options import PRESETS, load_study
from .stored import RUNS, STUDY_FILE, read_record, record_path, weights_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..data import SampleDataset
    from .matrix import Trial
    from .options import StudyOptions

logger = logging.getLogger(__name__)

BASELINES = {"majority_class": MajorityClass, "position_prior": PositionPrior}
CURVE = ("step", "mean_iou", "train_loss")


def run_trial(study: StudyOptions, trial: Trial, out: Path) -> None:
    """Run a trial; an interrupted one resumes from its last checkpoint.

    The record is written last, so a trial with a record is complete. Files that are no longer needed are then removed:
    the checkpoints of a pre-training, the whole run directory of a fine-tuning. The trial that it is initialised from
    must have ended.

    Raises:
        Stopped: Training was asked to stop; a checkpoint was saved.
    """
    path = record_path(out, trial.key)
    films = films_of(study, trial)  # before training: what is wrong with them is said at once
    start, cpu_start = time.perf_counter(), cpu_seconds()
    run_dir = out / RUNS / trial.key
    result = train(located(trial, out), **run_arguments(trial))
    launch = read_run_record(run_dir / RUN_RECORD)["launches"][-1]
    curve = [{name: line[name] for name in CURVE if name in line} for line in read_lines(run_dir / METRICS_FILE)]
    record = {"kind": trial.kind, "key": trial.key, "study": study.name, **trial.labels, "parent_key": trial.parent}
    record |= {"scores": result.scores, "curve": curve}
    if is_examined(trial):
        record |= examine(study, trial, result, path, films)
    record |= {
        "config": trial.config.to_dict(),
        "seconds": round(launch["seconds_before"] + time.perf_counter() - start, 1),
        # Of a resumed trial it is known for the last launch alone.
        "cpu_seconds": None
        if launch["first_step"] or torch.cuda.is_available()
        else round(cpu_seconds() - cpu_start, 1),
        "hardware": hardware(),
        "versions": {part.__name__: part.__version__ for part in (torch, transformers, accelerate, np)},
        "command": command_of(study),
    }
    write_json(path, record)
    shutil.rmtree(run_dir if trial.kind == "finetune" else run_dir / CHECKPOINTS, ignore_errors=True)


def command_of(study: StudyOptions) -> str:
    """What runs a study again: its name, if it is one of depthseg as it comes, else the file with all its options."""
    if (PRESETS / f"{study.name}.yaml").is_file() and load_study(study.name, study.scale) == study:
        return f"depthseg study {study.name}" + ("" if study.is_full else f" --scale {study.scale}")
    return f"depthseg study {STUDY_FILE}"


def cpu_seconds() -> float:
    """CPU time of this process and its ended children, which other work on the machine does not change."""
    return sum(os.times()[:4])


def repeat_pretraining(trial: Trial, out: Path) -> None:
    """Train a pre-training again whose record exists, but whose weights do not. The record is not changed.

    Other hardware or other versions may give other scores with the same seed. A warning reports this, because
    fine-tunings are then initialised with weights that differ slightly from those of the record. The weights that it
    is initialised from itself must exist.
    """
    now = train(located(trial, out), **run_arguments(trial)).scores
    then = read_record(record_path(out, trial.key))["scores"]
    differing = [f"{name} was {then[name]}, is {now.get(name)}" for name in then if then[name] != now.get(name)]
    if differing:
        logger.warning("Trial %s was trained again, and its scores differ: %s.", trial.key, "; ".join(differing))
    shutil.rmtree(out / RUNS / trial.key / CHECKPOINTS, ignore_errors=True)


def has_weights(out: Path, key: str) -> bool:
    """Whether a pre-training has ended; before, `model/` may hold the weights of an earlier step."""
    return weights_path(out, key).is_dir() and not (out / RUNS / key / CHECKPOINTS).is_dir()


def located(trial: Trial, out: Path) -> RunConfig:
    """The options of a trial, with its folders in the output directory of the study."""
    config = replace(trial.config, run=replace(trial.config.run, output_dir=str(out / RUNS / trial.key)))
    if trial.parent is None:
        return config
    return replace(config, model=replace(config.model, pretrained=str(weights_path(out, trial.parent))))


def is_examined(trial: Trial) -> bool:
    """Whether a trial is reported, so that its model is examined after training."""
    return trial.kind == "finetune" and trial.labels["role"] != "rate"


def measures_of(study: StudyOptions, trial: Trial) -> Sequence[str]:
    """The measures of a trial; runs at the fixed rate and those with switches are used for their scores only."""
    return study.measures if trial.labels.get("role") == "main" and not switches_of(trial.labels) else ()


def films_of(study: StudyOptions, trial: Trial) -> dict[str, SampleDataset]:
    """Open the other films that a trial is evaluated on.

    Raises:
        ValueError: Some of their images are training or test images.
        FileNotFoundError: Missing data.
    """
    if "robustness" not in measures_of(study, trial) or not study.robustness.films:
        return {}
    films, known = {}, trial.config.data
    pool, test_set = build_datasets(replace(known, subset_size=0))
    for name, sections in study.robustness.films.items():
        data = compose_config([("finetune", trial.config.to_dict()), (f"robustness.films.{name}", sections)]).data
        _, film = build_datasets(replace(data, subset_size=0), train_set=pool)
        for what, split, images in (("training", known.train_split, pool), ("test", known.val_split, test_set)):
            same = (source_of(data), data.val_split) == (source_of(known), split)
            if shared := sorted(set(film.names) & set(images.names)) if same else []:
                raise ValueError(
                    f"robustness.films.{name} has {len(shared)} of the {what} images, such as {shared[0]!r}: leave "
                    f"them out of the {what} images or of the film, for example by exclude_sequences in the options "
                    "of the data."
                )
        films[name] = film
    return films


def examine(
    study: StudyOptions,
    trial: Trial,
    result: RunResult,
    path: Path,
    films: Mapping[str, SampleDataset] | None = None,
) -> dict[str, Any]:
    """Measures and baselines of a fine-tuned model; writes its confusion matrices next to `path`."""
    train_set, test_set = build_datasets(trial.config.data)
    # Where it was trained and scored: another device rounds in another way, and single pixels change their class.
    model, processor = load_model(result.model_dir, device="cpu" if trial.config.run.cpu else None)
    test_set = as_trained(trial, test_set, model, processor)
    meters = {"segmentation": class_meter(model, test_set)}
    predictions, states = zip(*evaluate_images(model, processor, test_set, meters), strict=True)
    names, options, kept = measures_of(study, trial), {"training_images": {"images": train_set}}, {}
    if "robustness" in names:
        chosen = {name: getattr(study.robustness, name) for name in ("corruptions", "strengths", "every")}
        options["robustness"] = chosen | {"others": films}
    measures = measure_model(model, processor, test_set, names, predictions, options, kept) if names else {}
    with atomic_path(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            confusion=torch.stack([image["segmentation"] for image in states]).numpy(),
            names=np.array(test_set.names),
            blocks=np.array(blocks_of(test_set.names, study.block_length)),
            **kept,
        )
    return {
        "measures": json_scores(measures),
        "classes": list(test_set.label_space.classes),
        **reported(study, trial, model, processor),
        "baselines": baselines_of(trial.config.data),
    }


def baselines_of(data: DataOptions) -> dict[str, float]:
    """Mean IoU of baselines that use the training labels but not the test image, the same for all initialisations."""
    return _baseline_scores(json.dumps(asdict(data)))


@lru_cache(maxsize=256)
def _baseline_scores(data: str) -> dict[str, float]:
    options = DataOptions(**json.loads(data))
    train_set, test_set = build_datasets(options)
    labelled = train_set if options.subset_size else few_shot_subset(train_set, len(train_set), 0)
    return {
        name: score_segmentation_baseline(baseline(labelled), test_set)["mean_iou"]
        for name, baseline in BASELINES.items()
    }


def hardware() -> str:
    """The hardware of this machine, for the record."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"
