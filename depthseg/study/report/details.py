"""The numbers of a report that explain a score: classes, measures, rates, curves, pre-training and cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..rates import select_rate
from ..results import Setting, StudyResults
from ..stored import CellRecord

Row = dict[str, Any]

NO_SCORES = ("step", "lr", "images", "images_without_depth", "images_without_flow", "images_with_holes")
NO_SCORES += ("min_depth", "max_depth")
"""Entries among the scores of a pre-training that describe the evaluation and are not scores."""

BRING_A_DECODER = ("depth", "segmentation")
"""Tasks whose decoder is transferred to a segmenter; the decoders of other tasks are not transferred."""


def rates(results: StudyResults, arm: str, setting: Setting) -> Row | None:
    """Learning-rate sensitivity of an arm, the chosen rate and the rates that its runs used."""
    table = results.rate_table(arm, setting)
    if not table:
        return None
    choice = select_rate(table)
    return {
        "architecture": setting.architecture,
        "mode": setting.mode,
        "budget": results.study["rates"]["budget"],
        "arm": arm,
        "scores": {f"{rate:g}": 100 * _mean(scores) for rate, scores in table.items()},
        "seeds": {f"{rate:g}": len(scores) for rate, scores in table.items()},
        "chosen": choice.rate,
        "at_edge": choice.at_edge,
        "sentence": choice.sentence,
        "used": sorted({record["lr"] for parts in results.runs(arm, setting).values() for record in parts}),
        "records": keys_of(record for parts in results.rate_records(arm, setting).values() for record in parts),
    }


def per_class(results: StudyResults, arm: str, setting: Setting) -> Row | None:
    """IoU of each class over all test images, mean over runs; None for a class without any pixel."""
    found = results.arm_results(arm, setting)
    if found is None:
        return None
    records = results.used_records([arm], setting)
    counts = found.confusion.sum(2).reshape(-1, *found.confusion.shape[3:])
    right = np.diagonal(counts, axis1=1, axis2=2)
    union = counts.sum(1) + counts.sum(2) - right
    iou = {}
    for place, name in enumerate(records[0]["classes"]):
        shown = union[:, place] > 0
        iou[name] = 100 * float((right[shown, place] / union[shown, place]).mean()) if shown.any() else None
    return {**asdict(setting), "arm": arm, "iou": iou, "records": keys_of(records)}


def measures(results: StudyResults, arm: str, setting: Setting) -> Row | None:
    """Mean and spread of each measure over the records (runs and folds) that have a value."""
    found = results.measures(arm, setting)
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
    return {**asdict(setting), "arm": arm, "values": values, "records": keys_of(results.used_records([arm], setting))}


def curves(results: StudyResults, arm: str, setting: Setting) -> Row | None:
    """Learning curve of an arm, at the steps that all of its runs evaluated."""
    found = [{point["step"]: point["mean_iou"] for point in curve} for curve in results.curves(arm, setting)]
    if not found:
        return None
    steps = sorted(set.intersection(*map(set, found)))
    heights = np.array([[100 * curve[step] for step in steps] for curve in found])
    return {
        **asdict(setting),
        "arm": arm,
        "steps": steps,
        "mean": heights.mean(0).tolist(),
        "lowest": heights.min(0).tolist(),
        "highest": heights.max(0).tolist(),
        "records": keys_of(results.used_records([arm], setting)),
    }


def starts(results: StudyResults) -> list[Row]:
    """The initialisation of each arm, from the record of its first pre-training."""
    found = []
    for arm in results.arms:
        row: Row = {"arm": arm, "start": results.start(arm), "after": results.arms[arm].get("after"), "records": []}
        for record in results.pretraining(arm)[:1]:
            config = record["config"]
            row |= {
                "task": config["task"],
                "supervision": config["pretext"]["supervision"] if config["task"] == "depth" else None,
                "data": config["data"]["name"] or config["data"]["video"],
                "samples": config["data"]["train_options"].get("count"),
                "steps": config["schedule"]["steps"],
                "batch_size": config["optim"]["batch_size"],
                "decoder": config["task"] in BRING_A_DECODER,
                "records": [record["key"]],
            }
        found.append(row)
    return found


def finetuning(results: StudyResults) -> list[Row]:
    """Steps, batch size and image size of the reported fine-tunings, each combination once."""
    found = []
    for record in results.records:
        if record["kind"] == "finetune" and record["role"] == "main":
            config = record["config"]
            row = {"steps": config["schedule"]["steps"], "batch_size": config["optim"]["batch_size"]}
            row["size"] = list(config["data"]["size"])
            if row not in found:
                found.append(row)
    return found


def pretraining(results: StudyResults) -> list[Row]:
    """Scores and seconds of each pre-training cell."""
    return [
        {
            "arm": arm,
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
        for arm in results.arms
        for record in results.pretraining(arm)
    ]


def cost(results: StudyResults) -> Row:
    """Cells and seconds by arm and kind, with hardware and versions."""
    rows = []
    for arm in results.arms:
        row: Row = {"arm": arm}
        for kind in ("pretrain", "finetune"):
            cells = [record for record in results.records if (record["arm"], record["kind"]) == (arm, kind)]
            row[kind] = {"cells": len(cells), "seconds": sum(record["seconds"] for record in cells)}
        rows.append(row)
    contents = [record.content for record in results.records]
    # Of this study: pre-trainings may come from another one.
    own = [content.get("command") for content in contents if content.get("study") == results.study["name"]]
    versions: dict[str, dict[str, None]] = {}
    for content in contents:
        for name, version in (content.get("versions") or {}).items():
            versions.setdefault(name, {})[str(version)] = None
    return {
        "arms": rows,
        "cells": len(contents),
        "seconds": sum(content["seconds"] for content in contents),
        "hardware": list(dict.fromkeys(filter(None, (content.get("hardware") for content in contents)))),
        "versions": {name: list(found) for name, found in versions.items()},
        "command": next(filter(None, own), None),
    }


def keys_of(records: Iterable[CellRecord]) -> list[str]:
    """The keys of records."""
    return [record["key"] for record in records]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _summary(numbers: Sequence[float]) -> Row | None:
    if not numbers:
        return None
    return {"mean": _mean(numbers), "spread": (min(numbers), max(numbers)), "count": len(numbers)}
