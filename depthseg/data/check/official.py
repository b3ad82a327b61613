"""How data sets in their official layout are looked through: by the code that trains on them, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from .. import DatasetEntry, SampleDataset, load_dataset
from ..faults import fault_of
from ..official.layout import OfficialLayout
from .depth import examine_depth
from .labels import examine_classes
from .report import DatasetReport, SplitCount
from .scan import Finding, count


def _layout_of(entry: DatasetEntry) -> type[OfficialLayout]:
    """The class that reads an official layout."""
    return cast("type[OfficialLayout]", entry.load)


def check_official(report: DatasetReport, entry: DatasetEntry, **options: Any) -> None:
    """Read every sample of every split that is there.

    Args:
        report: Takes the counts and what is wrong.
        entry: The row of the data set.
        **options: Its options.
    """
    layout = _layout_of(entry)
    options = {"missing": "skip"} | layout.options_for(report.root) | options
    seen: dict[tuple[str, ...], Finding] = {}
    absent: dict[str, Path] = {}
    for split in layout.checked_splits or entry.splits:
        dataset = _open(report, entry, split, options, absent)
        if dataset is not None:
            report.splits[split] = _look_through(report, dataset, split, seen)
    if absent and not report.splits and not report.faults:
        expected = ", ".join(dict.fromkeys(map(str, absent.values())))
        hint = next(filter(None, (layout.root_hint(report.root, split) for split in absent)), "")
        archives = (layout.archive_of("image", folder) for folder in absent.values())
        if not hint and (archive := next(filter(None, archives), None)):
            hint = f" Unpack {archive} there, or correct the root."
        report.problem(f"{report.root} is not in the layout of {report.name}: none of {expected} exists.{hint}")
    elif absent:
        report.note(f"Not there, and needed for these splits only: {', '.join(absent)}.")
    if report.label_space is not None:
        examine_classes(report, report.label_space, count(seen.values(), len(report.label_space.classes)))


def _open(
    report: DatasetReport, entry: DatasetEntry, split: str, options: dict[str, Any], absent: dict[str, Path]
) -> OfficialLayout | None:
    """A split, or None where it cannot be opened: `absent` takes its folder, if it is not there at all."""
    try:
        return cast("OfficialLayout", load_dataset(report.name, report.root, split, **options))
    except FileNotFoundError as error:
        folders = _layout_of(entry).folders_of(report.root, split)
        if any(folder.exists() for folder in folders):
            _report_once(report, str(error))
        else:
            absent[split] = folders[0]
    except (ValueError, ImportError) as error:
        _report_once(report, str(error))
    return None


def _report_once(report: DatasetReport, sentence: str) -> None:
    """Report what keeps several splits from being opened."""
    if sentence not in report.problems:
        report.problem(sentence)


def _look_through(
    report: DatasetReport, dataset: OfficialLayout, split: str, seen: dict[tuple[str, ...], Finding]
) -> SplitCount:
    """What a split holds; `seen` has the samples that other splits hold as well."""
    report.label_space = dataset.label_space
    report.faults += [fault for fault in dataset.missing if fault not in report.faults]
    for remark in dataset.remarks:
        report.note(remark)
    _compare_count(report, dataset, split)
    num_ids = len(dataset.label_space.classes) if dataset.label_space else 0
    keys = [(name, *map(str, dataset.files[name].values())) for name in dataset.names]
    for index, key in enumerate(keys):
        if key not in seen:
            seen[key] = look(report, cast("SampleDataset", dataset), index, _paths(dataset, index), num_ids)
    return count([seen[key] for key in keys], num_ids)


def look(report: DatasetReport, dataset: SampleDataset, index: int, paths: Sequence[Path], num_ids: int) -> Finding:
    """Read a sample.

    Args:
        report: Takes what is wrong.
        dataset: The data set.
        index: Which sample.
        paths: Its files, the image first and the depth map, where there is one, last.
        num_ids: Number of class ids.
    """
    try:
        sample = dataset[index]
    except (ValueError, OSError) as error:
        # The message names the file; of several, that is the one to group it by.
        named = next((path for path in paths if str(path) in str(error)), paths[0])
        report.faults.append(fault_of(error, named))
        return Finding(paths[0])
    finding = Finding(paths[0], sample.image.shape[:2])
    if sample.labels is not None:
        ids = np.minimum(sample.labels, num_ids)
        finding.pixels = np.bincount(ids.ravel(), minlength=num_ids + 1)
    if sample.depth is not None:
        finding.depth = examine_depth(report, paths[-1], sample.depth, None)
    return finding


def _paths(dataset: OfficialLayout, index: int) -> list[Path]:
    return list(dataset.files[dataset.names[index]].values())


def _compare_count(report: DatasetReport, dataset: OfficialLayout, split: str) -> None:
    official = dataset.counts.get(split)
    if official is not None and dataset.num_found != official:
        report.note(f"{split} has {dataset.num_found} samples; the official split has {official}.")
