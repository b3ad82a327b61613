"""The numbers of a report that explain a score: classes, measures, rates, curves, pre-training and cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..places import weights_from
from ..results import Setting, StudyResults
from ..statistics import select_rate
from ..stored import TrialRecord, config_of

Row = dict[str, Any]

NO_SCORES = ("step", "lr", "images", "images_without_depth", "images_without_flow", "images_with_holes")
NO_SCORES += ("min_depth", "max_depth")
"""Entries among the scores of a pre-training that describe the evaluation and are not scores."""

TRANSFER_A_DECODER = ("depth", "segmentation")
"""Tasks whose decoder is transferred to a segmenter; the decoders of other tasks are not transferred."""


def rates(results: StudyResults, init: str, setting: Setting) -> Row | None:
    """Learning-rate sensitivity of an initialisation, the chosen rate and the rates that its runs used."""
    table = results.rate_table(init, setting)
    if not table:
        return None
    choice = select_rate(table)
    return {
        "architecture": setting.architecture,
        "mode": setting.mode,
        "num_labelled": results.study["rates"]["num_labelled"],
        "initialisation": init,
        "scores": {f"{rate:g}": 100 * _mean(scores) for rate, scores in table.items()},
        "seeds": {f"{rate:g}": len(scores) for rate, scores in table.items()},
        "chosen": choice.rate,
        "at_edge": choice.at_edge,
        "sentence": choice.sentence,
        "used": sorted({record["lr"] for parts in results.runs(init, setting).values() for record in parts}),
        "records": keys_of(record for parts in results.rate_records(init, setting).values() for record in parts),
    }


def per_class(results: StudyResults, init: str, setting: Setting) -> Row | None:
    """IoU of each class over all test images, mean over runs; None for a class without any pixel."""
    found = results.initialisation_results(init, setting)
    if found is None:
        return None
    records = results.used_records([init], setting)
    counts = found.confusion.sum(2).reshape(-1, *found.confusion.shape[3:])
    right = np.diagonal(counts, axis1=1, axis2=2)
    union = counts.sum(1) + counts.sum(2) - right
    iou = {}
    for place, name in enumerate(records[0]["classes"]):
        shown = union[:, place] > 0
        iou[name] = 100 * float((right[shown, place] / union[shown, place]).mean()) if shown.any() else None
    return {**asdict(setting), "initialisation": init, "iou": iou, "records": keys_of(records)}


def measures(results: StudyResults, init: str, setting: Setting) -> Row | None:
    """Mean and spread of each measure over the records (runs and folds) that have a value."""
    records = results.used_records([init], setting)
    found = [record["measures"] for record in records]
    if not any(found):
        return None
    values = {}
    for name in dict.fromkeys(name for part in found for name in part):
        groups: dict[str, list[float]] = {}
        for part in found:
            measure = part.get(name)
            for group, value in (measure if isinstance(measure, dict) else {"": measure}).items():
                groups.setdefault(group, []).extend([] if value is None else [value])
        if len(groups) > 1:  # one record without any number does not make a group of its own
            groups.pop("", None)
        values[name] = {group: _summary(numbers) for group, numbers in groups.items()}
    return {**asdict(setting), "initialisation": init, "values": values, "records": keys_of(records)}


def curves(results: StudyResults, init: str, setting: Setting) -> Row | None:
    """Learning curve of an initialisation, at the steps that all of its runs evaluated."""
    found = [{point["step"]: point["mean_iou"] for point in curve} for curve in results.curves(init, setting)]
    if not found:
        return None
    steps = sorted(set.intersection(*map(set, found)))
    heights = np.array([[100 * curve[step] for step in steps] for curve in found])
    return {
        **asdict(setting),
        "initialisation": init,
        "steps": steps,
        "mean": heights.mean(0).tolist(),
        "lowest": heights.min(0).tolist(),
        "highest": heights.max(0).tolist(),
        "records": keys_of(results.used_records([init], setting)),
    }


def origins(results: StudyResults) -> list[Row]:
    """The origin of the weights of each initialisation, from the record of its first pre-training."""
    found = []
    for init, entry in results.initialisations.items():
        row: Row = {"initialisation": init, "origin": results.origin(init), "after": entry.get("after"), "records": []}
        head_init = entry.get("finetune", {}).get("model", {}).get("head_init")
        for record in results.pretraining(weights_from(results.initialisations, init))[:1]:
            config = config_of(record)
            row |= {
                "task": config.task,
                "supervision": config.pretext.supervision if config.task == "depth" else None,
                "data": config.data.name or config.data.video,
                "samples": config.data.train_options.get("count"),
                "steps": config.schedule.steps,
                "batch_size": config.optim.batch_size,
                "decoder": config.task in TRANSFER_A_DECODER and head_init != "random",
                "records": [record["key"]],
            }
        found.append(row)
    return found


def finetuning(results: StudyResults) -> list[Row]:
    """Steps, batch size and image size of the reported fine-tunings, each combination once."""
    main = [record for record in results.records if record["kind"] == "finetune" and record["role"] == "main"]
    used = dict.fromkeys((c.schedule.steps, c.optim.batch_size, *c.data.size) for c in map(config_of, main))
    return [{"steps": steps, "batch_size": batch_size, "size": size} for steps, batch_size, *size in used]


def pretraining(results: StudyResults) -> list[Row]:
    """Scores and seconds of each pre-training trial."""
    return [
        {
            "initialisation": init,
            "pretrain_seed": record["pretrain_seed"],
            "scores": {
                name: value
                for name, value in record["scores"].items()
                if isinstance(value, int | float) and name not in NO_SCORES
            },
            "alignment": record["scores"].get("alignment"),
            "seconds": record["seconds"],
            "records": [record["key"]],
        }
        for init in results.initialisations
        for record in results.pretraining(init)
    ]


def cost(results: StudyResults) -> Row:
    """Trials and seconds by initialisation and kind, with hardware and versions."""
    rows = []
    for init in results.initialisations:
        row: Row = {"initialisation": init}
        for kind in ("pretrain", "finetune"):
            trials = [r for r in results.records if (r["initialisation"], r["kind"]) == (init, kind)]
            row[kind] = {"trials": len(trials), "seconds": sum(record["seconds"] for record in trials)}
        rows.append(row)
    contents = [record.content for record in results.records]
    # Of this study: pre-trainings may come from another one.
    own = [content.get("command") for content in contents if content.get("study") == results.study["name"]]
    versions: dict[str, dict[str, None]] = {}
    for content in contents:
        for name, version in (content.get("versions") or {}).items():
            versions.setdefault(name, {})[str(version)] = None
    return {
        "initialisations": rows,
        "trials": len(contents),
        "seconds": sum(content["seconds"] for content in contents),
        "hardware": list(dict.fromkeys(filter(None, (content.get("hardware") for content in contents)))),
        "versions": {name: list(found) for name, found in versions.items()},
        "command": next(filter(None, own), None),
    }


def keys_of(records: Iterable[TrialRecord]) -> list[str]:
    """The keys of records."""
    return [record["key"] for record in records]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _summary(numbers: Sequence[float]) -> Row | None:
    if not numbers:
        return None
    return {"mean": _mean(numbers), "spread": (min(numbers), max(numbers)), "count": len(numbers)}
