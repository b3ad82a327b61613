"""How each data set that is on disk is looked through."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .. import DATASETS
from ..calibration import read_calibration
from ..clips import ImageFrames, find_clips, natural_order
from ..folder import read_folder_depth, read_list, unlisted_names
from ..folder_files import split_folders, split_of_word
from ..folder_labels import FolderLabels
from ..image_folders import DEPTH_SUFFIXES, IMAGE_SUFFIXES, LABEL_SUFFIXES, MapFiles
from ..images import KITTI_DEPTH_SCALE, check_same_size, read_depth, read_disparity, read_image
from ..importing.detect import tool_of
from ..label_spaces import LabelSpace
from ..layout import misplaced_images, misplaced_maps
from ..sequences import looks_like_sequence
from .depth import examine_unit
from .labels import examine_classes, explain_ids, explain_sizes
from .official import check_official
from .report import DatasetReport
from .scan import Finding, Scan, count
from .tables import check_tables


def check_dataset(name: str, root: str | Path, **options: Any) -> DatasetReport:
    """Read every file of a data set and collect what is wrong instead of stopping at the first fault.

    Args:
        name: A data set in an official layout, `folder`, `hub`, `stereo` or `video`.
        root: Folder of the data; for `video` also a video file, for `nyuv2` also its .mat file, for `hub` also an id
            or a pattern of files.
        **options: Those of the data set; for `folder`: those of `FolderDataset` but `truth` and `value_range`; for
            `video`: `clips`, `depth`, `depth_scale` and `depth_format` as in `VideoSequences`.

    Raises:
        ValueError: This data set cannot be checked, or has no such option.
    """
    known = check_options(name)
    if known is None:
        checkable = sorted(other for other in DATASETS if check_options(other) is not None)
        raise ValueError(
            f"{name!r} data sets cannot be checked, only {', '.join(checkable)}: the frames of synthetic data sets "
            "are rendered by depthseg as they are needed, and others without an official layout have no check."
        )
    for key in options:
        if key not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{key!r} is no option of checking {name!r} data sets; {has}.")
    report = DatasetReport(name=name, root=Path(root))
    if not (name == "hub" or report.root.exists()):
        report.problem(f"The folder {root} does not exist.")
        return report
    if name in _CHECKS:
        _CHECKS[name](report, **options)
    elif name == "hub":
        check_tables(report, root=str(root), **options)
    else:
        check_official(report, entry=DATASETS[name], **options)
    return report


def check_options(name: str) -> list[str] | None:
    """Options that `check_dataset` takes for a data set; None = it cannot be checked."""
    if not (name in _CHECKS or name == "hub" or (name in DATASETS and DATASETS[name].is_official)):
        return None
    own = _CHECKS[name] if name in _CHECKS else DATASETS[name].load
    return [key for key in inspect.signature(own).parameters if key not in ("root", "split", "report")]


def _check_folder(
    report: DatasetReport,
    val_fraction: float = 0.2,
    seed: int = 0,
    depth_scale: float = KITTI_DEPTH_SCALE,
    focal_times_baseline: float | None = None,
    disparity_format: str = "kitti",
    split_by: str = "auto",
    depth_format: str = "scaled",
    label_map: dict[str, str] | None = None,
    label_colours: dict[str, Any] | str | None = None,
    label_channel: str | None = None,
    label_suffix: str = "",
    exif: str = "apply",
) -> None:
    root = report.root
    if not (root / "images").is_dir():
        _report_places(report, [f"The folder {root / 'images'} does not exist.", *misplaced_images(root)])
        return
    subfolders = split_folders(root)
    labels = _labels_of(report, label_map, label_colours, label_channel, subfolders)
    space = report.label_space = labels.space if labels else None
    scan = Scan(
        report,
        len(space.classes) if space else 0,
        labels.read if labels and space else None,
        label_end=str(label_suffix),
        label_values=labels.values if labels else None,
        read_depth=lambda path: read_folder_depth(
            path, depth_scale, focal_times_baseline, disparity_format, depth_format
        ),
        depth_scale=None if focal_times_baseline or depth_format != "scaled" else depth_scale,
        upright=exif != "ignore",
    )
    depth = root / ("disparity" if focal_times_baseline else "depth")
    findings = _scan_folders(scan, root, depth, subfolders)
    whole = report.splits["all"] = count(findings.values(), scan.num_ids)
    if not findings:
        _report_places(report, misplaced_images(root))
        return
    for split, names in _folder_splits(report, findings, subfolders, val_fraction, seed, split_by).items():
        report.splits[split] = count([findings[name] for name in names], scan.num_ids)
    _report_misplaced(report, depth, findings, scan, subfolders)
    if space is not None:
        examine_classes(report, space, whole, bool(label_map or label_colours))
    _explain(report, scan, space)
    if depth_format == "scaled":
        examine_unit(report, whole.depth, next(iter(MapFiles(depth, subfolders=subfolders)), None), depth_scale)


def _scan_folders(scan: Scan, root: Path, depth: Path, subfolders: Sequence[str]) -> dict[str, Finding]:
    """Findings by name."""
    if not subfolders:
        return scan.run(root / "images", root / "labels", depth, IMAGE_SUFFIXES)
    return {
        f"{below}/{stem}": finding
        for below in subfolders
        for stem, finding in scan.run(
            root / "images" / below, root / "labels" / below, depth / below, IMAGE_SUFFIXES
        ).items()
    }


def _labels_of(report: DatasetReport, *options: Any) -> FolderLabels | None:
    try:
        return FolderLabels(report.root, *options)
    except (ValueError, OSError) as error:
        report.problem(str(error))
        return None


def _report_places(report: DatasetReport, sentences: Sequence[str]) -> None:
    for sentence in sentences:
        report.problem(sentence)


def _report_misplaced(
    report: DatasetReport, depth: Path, findings: dict[str, Finding], scan: Scan, subfolders: Sequence[str]
) -> None:
    """Report maps in folders that are not read, for a truth of which no file is where it should be."""
    root = report.root
    labels = MapFiles(root / "labels", LABEL_SUFFIXES, scan.label_end, subfolders)
    depths = MapFiles(depth, DEPTH_SUFFIXES, subfolders=subfolders)
    for truth, files in (("labels", labels), ("depth", depths if depth.name == "depth" else None)):
        if files is not None and not any(name in files for name in findings):
            _report_places(report, misplaced_maps(root, truth, findings))
    if depth.name == "depth" and not depth.is_dir() and (root / "disparity").is_dir():
        report.note(f"{root / 'disparity'} is not read: to make depth of it, give the option focal_times_baseline.")


def _report_without_truth(report: DatasetReport) -> None:
    try:
        tool = tool_of(report.root)
    except (ValueError, OSError):  # a file that no annotation tool wrote, or a broken link
        tool = None
    if tool is None:
        report.note("No image has a label or depth map that can be used: the folder serves for prediction only.")
    else:
        report.problem(
            f"{report.root} holds what {tool} exports, which is not read here: no image has a label map. "
            f"`depthseg datasets import {report.root} --out FOLDER` makes a data folder of it."
        )


def _explain(report: DatasetReport, scan: Scan, space: LabelSpace | None) -> None:
    """Add the likely reason of ids and sizes that were refused."""
    common = 2 * scan.refused > scan.maps
    reasons = (explain_ids(scan.ids, space) if common and space else None, explain_sizes(scan.other_sizes, scan.maps))
    _report_places(report, [reason for reason in reasons if reason])


def _folder_splits(
    report: DatasetReport,
    findings: dict[str, Finding],
    subfolders: Sequence[str],
    val_fraction: float,
    seed: int,
    split_by: str,
) -> dict[str, list[str]]:
    """Names of the splits that can be used: labelled images, or those with depth where nothing is labelled."""
    labelled = [name for name, finding in findings.items() if finding.pixels is not None]
    ready = labelled or [name for name, finding in findings.items() if finding.depth is not None]
    truth = "label map" if labelled else "depth map"
    if not ready:
        _report_without_truth(report)
    elif len(ready) < len(findings):
        report.note(f"{len(findings) - len(ready)} of {len(findings)} images have no readable {truth}.")
    files = {name: findings[name].path for name in ready}
    has_test = (report.root / "test.txt").is_file() or "test" in map(split_of_word, subfolders)
    splits: dict[str, list[str]] = {}
    for split in ("train", "val", *["test"] * has_test):
        try:
            listed = read_list(report.root, split)
        except (ValueError, OSError) as error:
            report.problem(str(error))
            continue
        if listed is None:
            splits[split], sentence = unlisted_names(
                report.root, files, subfolders, split, val_fraction, seed, split_by
            )
            if sentence and split == "val":
                report.note(sentence[0].upper() + sentence[1:])
            continue
        _report_listed(report, listed, split, findings, files, truth)
        splits[split] = [name for name in listed if name in files]
        if split == "val":
            _compare_lists(report, splits, files)
    return splits


def _report_listed(
    report: DatasetReport,
    listed: Sequence[str],
    split: str,
    findings: dict[str, Finding],
    files: dict[str, Path],
    truth: str,
) -> None:
    for name in (name for name in listed if name not in files):
        lacks = truth if name in findings else "image"
        hint = " Lists hold names without ending." if Path(name).stem in findings and lacks == "image" else ""
        sentence = f"{report.root / split}.txt lists {name!r}, which has no readable {lacks}.{hint}"
        report.problem(sentence, Path(name), (split, lacks))


def _compare_lists(report: DatasetReport, splits: dict[str, list[str]], files: dict[str, Path]) -> None:
    """Report images of both splits, and neighbours in a sequence that are on both sides."""
    train, val = (set(splits.get(split, ())) for split in ("train", "val"))
    if common := sorted(train & val):
        number = "1 image is" if len(common) == 1 else f"{len(common)} images are"
        report.problem(f"{number} in train.txt and in val.txt, the first is {common[0]!r}.")
    order = sorted(train | val, key=natural_order)
    beside = {name for pair in pairwise(order) for name in pair if name in val and train & {*pair} - {name}}
    if len(beside) > len(val) / 2 and len(val) > 1 and looks_like_sequence(tuple(files[name] for name in order)):
        report.note(
            f"Neighbouring images look like frames of one sequence, and {len(beside)} of {len(val)} images of val are "
            "beside one of train: scores on val are too good. List whole parts of the sequence for val."
        )


def _check_stereo(report: DatasetReport) -> None:
    report.what, report.depth_unit = "pairs", "disparity in pixels"
    sides = {side: report.root / side for side in ("left", "right")}
    missing = [folder for folder in sides.values() if not folder.is_dir()]
    for folder in missing:
        report.problem(f"The folder {folder} does not exist; pairs are read from left/ and right/.")
    if missing:
        return
    scan = Scan(report, read_depth=read_disparity, depth_scale=256)
    left = scan.run(sides["left"], None, report.root / "disparity", IMAGE_SUFFIXES)
    right = scan.list(sides["right"], IMAGE_SUFFIXES)
    for name in sorted(left.keys() ^ right.keys()):
        path, other = (left[name].path, "right") if name in left else (right[name], "left")
        sentence = f"{path} has no partner of the same name in {sides[other]}."
        report.problem(sentence, path, ("partner", other))
    pairs = {name: left[name] for name in left if name in right}
    for name, finding in pairs.items():
        image = scan.attempt(partial(read_image, right[name]), right[name])
        if image is not None and finding.size:
            scan.attempt(
                partial(check_same_size, finding.path, np.empty(finding.size), right[name], image), right[name]
            )
    report.splits["all"] = count(pairs.values())
    _check_calibration(report, report.root / "calib.txt", "depth is in units of the distance of the cameras")


def _check_video(
    report: DatasetReport,
    depth: str | None = None,
    depth_scale: float = KITTI_DEPTH_SCALE,
    depth_format: str = "scaled",
    clips: Sequence[str] | None = None,
) -> None:
    report.what = "frames"
    inside = report.root / depth if depth else None
    depth_folder = Path(depth) if depth and inside and not inside.is_dir() else inside
    scan = Scan(
        report,
        read_depth=partial(read_depth, scale=depth_scale, depth_format=depth_format),
        depth_scale=depth_scale if depth_format == "scaled" else None,
    )
    try:
        found_clips = find_clips(report.root, [depth_folder] if depth_folder else [], clips)
    except (ValueError, OSError, ImportError) as error:
        report.problem(str(error))
        return
    findings: list[Finding] = []
    for clip in found_clips:
        if isinstance(clip.frames, ImageFrames):
            folder = depth_folder and (depth_folder / clip.name if len(found_clips) > 1 else depth_folder)
            found = list(scan.run(clip.path, None, folder, IMAGE_SUFFIXES).values())
            readable = [finding for finding in found if finding.size]
            for finding in (finding for finding in readable if finding.size != readable[0].size):
                sentence = (
                    f"{finding.path} has another size than the first frame of its clip, {readable[0].path.name}."
                )
                report.problem(sentence, finding.path, ("size", clip.path))
        else:
            found = [Finding(clip.path) for _ in range(len(clip.frames))]
            scan.attempt(partial(deque, clip.frames.up_to(len(clip.frames) - 1), maxlen=0), clip.path)
        report.splits[clip.name] = count(found)
        findings += found
    if len(found_clips) > 1:
        report.splits["all"] = count(findings)
    for calibration in sorted({clip.nearest("calib.txt", report.root) or Path("calib.txt") for clip in found_clips}):
        _check_calibration(report, calibration, "the focal length must be given or trained")
    report.note(f"`depthseg datasets doctor {report.root}` reports whether the camera moves enough to train depth on.")


def _check_calibration(report: DatasetReport, path: Path, otherwise: str) -> None:
    if not path.is_file():
        report.note(f"There is no calib.txt: {otherwise}.")
        return
    try:
        read_calibration(path)
    except (ValueError, OSError) as error:
        report.problem(str(error))


_CHECKS: dict[str, Callable[..., None]] = {
    "folder": _check_folder,
    "stereo": _check_stereo,
    "video": _check_video,
}
