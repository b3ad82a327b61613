"""The depth benchmark of KITTI: annotated depth maps, with the images of KITTI raw."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ..images import read_image
from ..sample import DepthSample, Sample
from .kitti_drives import ANNOTATED_ARCHIVE, IS_RIGHT, AnnotatedMaps, KittiDrives, read_annotated_map
from .kitti_raw import DEPTH_MAP, IMAGE, KittiRaw
from .kitti_splits import DRIVE, KittiFrame, read_numbered_list, read_split_file
from .layout import Missing, OfficialLayout, advising

INTRINSICS = "file of intrinsics"
SELECTION_ARCHIVE = "data_depth_selection.zip"
_FOLDERS = {
    "val_selection_cropped": "val_selection_cropped",
    "test_completion": "test_depth_completion_anonymous",
    "test_prediction": "test_depth_prediction_anonymous",
}
_SELECTED = re.compile(rf"({DRIVE.pattern})_(?:\w+_)?(\d{{10}})_image_0([23])")


class Selected(NamedTuple):
    """What names the files of one image of the selection alike: drive, number and camera; of a test image a number."""

    drive: str
    number: int
    camera: int

    def stem(self, token: str) -> str:
        """Name of a file without its ending; the official ones of the selection have a token, such as `image`."""
        return str(self).replace("_sync_", f"_sync_{token}_")

    def __str__(self) -> str:
        return f"{self.drive}_{self.number:010d}_image_{self.camera:02d}" if self.drive else f"{self.number:010d}"


class KittiDepth(OfficialLayout):
    """Annotated depth of KITTI (2017).

    ```
    ROOT/train|val/2011_09_26_drive_0001_sync/proj_depth/groundtruth/image_02/0000000005.png    and image_03
    ROOT/train|val/2011_09_26_drive_0001_sync/proj_depth/velodyne_raw/image_02/0000000005.png   optional
    ROOT/depth_selection/val_selection_cropped/{image,groundtruth_depth,velodyne_raw,intrinsics}/
    ROOT/depth_selection/test_depth_completion_anonymous/{image,velodyne_raw,intrinsics}/0000000000.png
    ROOT/depth_selection/test_depth_prediction_anonymous/{image,intrinsics}/0000000000.png
    RAW_ROOT/2011_09_26/...                                     images and calibration, as KITTI raw has them
    ```

    Depth maps are 16-bit PNG of metres x 256, 0 = unknown. The archive brings no images for `train` and `val`: they
    come from KITTI raw. The splits `test_completion` and `test_prediction` have no depth, but for the sweeps
    of the first (`maps=velodyne_raw`).

    The official training part holds 21 of the 28 test drives of Eigen, and the official `val` shares 5 drives with
    Eigen's training list: train and evaluate on lists of one kind. Scores on the 652 improved maps of Eigen's test
    frames take `split_file` and `missing=skip`, since 45 of the 697 have no map.

    Args:
        root: Folder that the archives were unpacked into.
        split: `train`, `val`, `val_selection_cropped`, `test_completion` or `test_prediction`.
        split_file: List of frames as in `KittiRaw`, looked up in train/ and val/ alike, whichever of the two splits
            is asked for; for the test splits a list with lines `image NUMBER`.
        raw_root: Folder of KITTI raw, below `root` or anywhere; None = ROOT/raw if it exists, else `root`.
        side: Cameras of `train` and `val` where there is no list: `left`, `right` or `both`.
        maps: `groundtruth`, or `velodyne_raw` for the single sweeps.
        missing: `refuse`, or `skip` to leave out frames that lack their image or depth map.

    Raises:
        FileNotFoundError: A folder, file or calibration is missing.
        ValueError: An option out of range, or a list or calibration that is damaged.

    Source:
        Uhrig et al. 2017, "Sparsity invariant CNNs" (CC BY-NC-SA 3.0).
    """

    splits = ("train", "val", *_FOLDERS)
    counts = {"train": 85898, "val": 6852, "val_selection_cropped": 1000, "test_completion": 1000}
    counts |= {"test_prediction": 500}

    def __init__(
        self,
        root: str | Path,
        split: str,
        split_file: str | Path | None = None,
        raw_root: str | Path | None = None,
        side: Literal["left", "right", "both"] = "both",
        maps: Literal["groundtruth", "velodyne_raw"] = "groundtruth",
        missing: Missing = "refuse",
    ) -> None:
        self.check_place(root, split)
        self._keys: dict[str, KittiFrame] = {}
        if split in _FOLDERS:
            files, faults = _selected_files(self.folders_of(root, split)[0], split, split_file, maps), []
        else:
            self._drives = _raw_drives(Path(root), raw_root)
            found = AnnotatedMaps(Path(root), maps)
            if split_file is None:
                keys = _annotated_frames(found, self.folders_of(root, split)[0], side)
            else:
                keys = read_split_file(split_file, root)
            faults = self._drives.missing_folders(keys, ())
            absent = {fault.path.name for fault in faults}
            self._keys = {self._drives.name(key): key for key in keys if key.drive not in absent}
            files = {name: dict(self._files_of(found, key)) for name, key in self._keys.items()}
        super().__init__(root, split, files, missing, faults)
        if split_file is not None or (self._keys and side != "both"):
            self.counts = {}
        if self._keys:
            self._rigs = self._drives.rigs(self._keys[name] for name in self.names)

    @classmethod
    def folders_of(cls, root: str | Path, split: str) -> tuple[Path, ...]:
        """The folder of a split."""
        root = Path(root)
        if split in _FOLDERS:
            above = root / "depth_selection"
            return ((above if above.is_dir() else root) / _FOLDERS[split],)
        return (root / split,)

    @classmethod
    def is_root(cls, root: Path, split: str) -> bool:
        """Whether a folder holds the split, whose name is that of folders of other data as well."""
        (folder,) = cls.folders_of(root, split)
        return folder.is_dir() and (split in _FOLDERS or any(folder.glob("*_sync/proj_depth")))

    @classmethod
    def archive_of(cls, what: str, path: Path) -> str | None:
        """The archive of a file of the benchmark, or that of the drive an image is of."""
        if set(path.parts) & set(_FOLDERS.values()):
            return SELECTION_ARCHIVE
        of_drive = None if what == DEPTH_MAP else KittiRaw.archive_of(what, path)
        return of_drive or ANNOTATED_ARCHIVE

    def __getitem__(self, index: int) -> Sample:
        """Image, depth and intrinsics; a test image has no depth.

        Raises:
            ValueError: A file that cannot be read, or a depth map of another size than its image.
        """
        name = self.names[index]
        files, key = self.files[name], self._keys.get(name)
        with advising(f"Unpack {self.archive_of(IMAGE, files[IMAGE])} again."):
            image = read_image(files[IMAGE])
        if key is None:
            intrinsics = read_intrinsics(files[INTRINSICS]) if INTRINSICS in files else None
        else:
            intrinsics = self._rigs[key.date].intrinsics(self._drives.camera(key), image.shape[:2])
        if DEPTH_MAP not in files:
            return Sample(name=name, image=image, intrinsics=intrinsics)
        archive = self.archive_of(DEPTH_MAP, files[DEPTH_MAP])
        depth = read_annotated_map(files[DEPTH_MAP], files[IMAGE], image, archive)
        return DepthSample(name=name, image=image, depth=depth, intrinsics=intrinsics)

    def _files_of(self, maps: AnnotatedMaps, key: KittiFrame) -> Mapping[str, Path]:
        camera = self._drives.camera(key)
        expected = maps.folder(maps.part_of(key.drive), key.drive, camera) / f"{key.number:010d}.png"
        found = maps.find(key.drive, camera, key.number)
        return {IMAGE: self._drives.image(key), DEPTH_MAP: found or expected}


def read_intrinsics(path: str | Path) -> np.ndarray:
    """Intrinsics float64 `(3, 3)` of an image of the selection: nine numbers, row by row.

    Raises:
        ValueError: The file is damaged.
    """
    words = Path(path).read_text(encoding="utf-8-sig", errors="replace").split()
    try:
        matrix = np.array([float(word) for word in words]).reshape(3, 3)
    except ValueError:
        matrix = np.zeros((3, 3))
    if not (np.isfinite(matrix).all() and min(matrix[0, 0], matrix[1, 1]) > 0 and np.allclose(matrix[2], (0, 0, 1))):
        raise ValueError(
            f"{path} is not the matrix of a camera: nine numbers, fx 0 cx 0 fy cy 0 0 1, are expected. Unpack "
            f"{SELECTION_ARCHIVE} again."
        )
    return matrix


def _raw_drives(root: Path, given: str | Path | None) -> KittiDrives:
    if given is None:
        given = root / "raw" if (root / "raw").is_dir() else root
    path = root / given if (root / given).is_dir() else Path(given)
    try:
        return KittiDrives(path)
    except FileNotFoundError as error:
        sentence = "The depth benchmark has no images: say with the option raw_root where KITTI raw is."
        raise FileNotFoundError(f"{error} {sentence}") from None


def _annotated_frames(maps: AnnotatedMaps, part: Path, side: str) -> list[KittiFrame]:
    """All frames with a map in `train/` or `val/`, in order."""
    if not part.is_dir():
        raise FileNotFoundError(f"The folder {part} does not exist. Unpack {ANNOTATED_ARCHIVE} into {part.parent}.")
    keys = []
    for drive in sorted(path.name for path in part.iterdir() if DRIVE.fullmatch(path.name)):
        for right in IS_RIGHT[side]:
            folder = maps.folder(part, drive, 2 + right)
            numbers = sorted(int(path.stem) for path in folder.glob("*.png") if path.stem.isdecimal())
            keys += [KittiFrame(drive, number, right) for number in numbers]
    if not keys:
        raise FileNotFoundError(f"{part} has no depth map. Unpack {ANNOTATED_ARCHIVE} into {part.parent} again.")
    return keys


def _selected_files(folder: Path, split: str, split_file: str | Path | None, maps: str) -> dict[str, dict[str, Path]]:
    """The files of each image of `data_depth_selection.zip`, matched by drive, number and camera."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The folder {folder} does not exist. Unpack {SELECTION_ARCHIVE} into {folder.parent}."
        )
    anonymous = split != "val_selection_cropped"
    parts = {IMAGE: "image", INTRINSICS: "intrinsics"}
    if maps == "velodyne_raw" and split != "test_prediction":
        parts[DEPTH_MAP] = "velodyne_raw"
    elif not anonymous:
        parts[DEPTH_MAP] = "groundtruth_depth"
    if split == "test_prediction" and not (folder / "intrinsics").is_dir():
        del parts[INTRINSICS]
    found = {what: _list_selected(folder / part, anonymous) for what, part in parts.items()}
    keys = sorted(set().union(*found.values()))
    if split_file is not None and anonymous:
        keys = [Selected("", number, 2) for number in read_numbered_list(split_file, folder.parent)]
    elif split_file is not None:
        listed = read_split_file(split_file, folder.parent)
        keys = [Selected(frame.drive, frame.number, 2 + frame.right) for frame in listed]

    def file_of(what: str, key: Selected) -> Path:
        """The file that is there, or the one that should be."""
        token, ending = ("image", ".txt") if what == INTRINSICS else (parts[what], ".png")
        return found[what].get(key, folder / parts[what] / f"{key.stem(token)}{ending}")

    return {f"{folder.name}/{key}": {what: file_of(what, key) for what in parts} for key in keys}


def _list_selected(folder: Path, anonymous: bool) -> dict[Selected, Path]:
    """Files by what they are of; other names do not count."""
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if anonymous and path.stem.isdecimal():
            found[Selected("", int(path.stem), 2)] = path
        elif not anonymous and (match := _SELECTED.match(path.stem)):
            found[Selected(match[1], int(match[2]), int(match[3]))] = path
    return found
