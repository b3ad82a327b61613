"""Which samples a run began with, so that it does not resume on others unnoticed."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .records import RUN_RECORD, read_run_record, write_json

if TYPE_CHECKING:
    from ..data import Sample, SampleDataset

logger = logging.getLogger(__name__)

_WHAT = {"train": "training set", "val": "set to evaluate on"}


def describe_data(train_set: SampleDataset, val_set: SampleDataset, first: Sample) -> dict[str, Any]:
    """Number and SHA-256 of the names of both sets, and SHA-256 of the first training sample."""
    described: dict[str, Any] = {}
    for key, samples in (("train", train_set), ("val", val_set)):
        names = "".join(f"{name}\n" for name in samples.names)
        described[key] = {"samples": len(samples), "sha256_of_names": hashlib.sha256(names.encode()).hexdigest()}
    digest = hashlib.sha256()
    for values in (first.image, first.labels, first.depth):
        if values is not None:
            digest.update(np.ascontiguousarray(values).data)
    return described | {"sha256_of_first_sample": digest.hexdigest()}


def require_same_data(run_dir: Path, found: dict[str, Any]) -> None:
    """Compare the data of a run that resumes with those that it began with.

    Args:
        run_dir: Run directory.
        found: `describe_data` now.

    Raises:
        ValueError: Samples came, went, or have other names or another order.
    """
    began = read_run_record(run_dir / RUN_RECORD).get("data")
    if began is None:  # a run of a version that did not write it down
        return
    for key, what in _WHAT.items():
        if began[key] != found[key]:
            then, now = began[key]["samples"], found[key]["samples"]
            difference = f"{then} samples then, {now} now" if then != now else "their names or order differ"
            raise ValueError(
                f"The {what} is not the one that the run in {run_dir} began with ({difference}), so it cannot be "
                "resumed as the same run. Put the data back, or train anew with another run.output_dir or "
                "run.overwrite=true; model.pretrained can take the weights in model/."
            )
    if began["sha256_of_first_sample"] != found["sha256_of_first_sample"]:
        logger.warning(
            "The first training sample is not what it was when the run in %s began: files were changed. The results "
            "are not those of an uninterrupted run.",
            run_dir,
        )


def record_data(run_dir: Path, found: dict[str, Any]) -> None:
    """Write `describe_data` into `run.json`, where it is not yet."""
    record = read_run_record(run_dir / RUN_RECORD)
    if "data" not in record:
        write_json(run_dir / RUN_RECORD, record | {"data": found})
