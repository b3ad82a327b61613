"""Where the files of KITTI raw and of its depth benchmark are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ..faults import Fault
from ..images import check_same_size, read_depth
from .kitti_calibration import KittiRig, read_rig
from .kitti_splits import DRIVE, KittiFrame
from .layout import advising, nearby_root

CAMERAS = {"colour": (2, 3), "grey": (0, 1)}
"""Numbers of the left and the right camera."""

IS_RIGHT = {"left": (False,), "right": (True,), "both": (False, True)}
"""The option `side` -> for each camera that it asks for, whether it is the right one."""

ANNOTATED_ARCHIVE = "data_depth_annotated.zip"
_IMAGE_SUFFIXES = (".png", ".jpg")


class KittiDrives:
    """Folders and files of KITTI raw; every folder is listed once.

    Args:
        root: Folder that holds the folders of the dates.
        pair: Numbers of the left and the right camera.

    Raises:
        FileNotFoundError: It holds no drive.
    """

    def __init__(self, root: str | Path, pair: tuple[int, int] = CAMERAS["colour"]) -> None:
        self.root, self._pair = Path(root), pair
        self._listings: dict[Path, dict[int, Path]] = {}
        if not self.root.is_dir():
            raise FileNotFoundError(f"The folder {root} of KITTI raw does not exist; check its path.")
        self._known = _drives_in(self.root)
        if not self._known:
            raise FileNotFoundError(
                f"{root} has no drive of KITTI raw, such as 2011_09_26/2011_09_26_drive_0001_sync."
                f"{nearby_root(root, _drives_in)} The archives of the drives (DATE_drive_NUMBER_sync.zip) are all "
                "unpacked into one folder."
            )

    def choose(self, wanted: Sequence[str]) -> list[str]:
        """The drives that were asked for, all if none was.

        Raises:
            ValueError: An unknown one.
        """
        for drive in wanted:
            if drive not in self._known:
                raise ValueError(
                    f"{self.root} has no drive {drive!r}; it has {', '.join(self._known)}. Check the option drives, "
                    "or unpack the archive of that drive."
                )
        return [drive for drive in self._known if drive in wanted or not wanted]

    def below_root(self, path: str | Path) -> Path:
        """A folder below the root if there is one, else as the path says."""
        return self.root / path if (self.root / path).is_dir() else Path(path)

    def folder(self, drive: str) -> Path:
        """Folder of a drive."""
        return self.root / KittiFrame(drive, 0, False).date / drive

    def camera(self, key: KittiFrame) -> int:
        """Number of the camera of a frame."""
        return self._pair[key.right]

    def name(self, key: KittiFrame) -> str:
        """Name of the sample: drive and camera, then the number."""
        return f"{key.drive}/image_{self.camera(key):02d}/{key.number:010d}"

    def image(self, key: KittiFrame) -> Path:
        """The image of a frame, or the one that should be there."""
        folder = self._images(key)
        return self._list(folder, _IMAGE_SUFFIXES).get(key.number, folder / f"{key.number:010d}.png")

    def sweep(self, key: KittiFrame) -> Path | None:
        """The laser sweep with the number of a frame."""
        return self._list(self.folder(key.drive) / "velodyne_points" / "data", (".bin",)).get(key.number)

    def packet(self, drive: str, number: int) -> Path | None:
        """The navigation packet of a frame."""
        return self._packets(drive).get(number)

    def first_packet(self, drive: str) -> Path | None:
        """The first navigation packet of a drive."""
        packets = self._packets(drive)
        return packets[min(packets)] if packets else None

    def frames(self, drive: str, right: bool, both: bool) -> list[KittiFrame]:
        """Frames from the first to the last that a camera, or `both` of a pair, has; what is between must be there."""
        keys = [KittiFrame(drive, 0, side) for side in ((False, True) if both else (right,))]
        numbers = [number for key in keys for number in self._list(self._images(key), _IMAGE_SUFFIXES)]
        span = range(min(numbers), max(numbers) + 1) if numbers else range(1)
        return [KittiFrame(drive, number, right) for number in span]

    def has_neighbours(self, key: KittiFrame, steps: Iterable[int]) -> bool:
        """Whether a camera has images at all these offsets from a frame."""
        there = self._list(self._images(key), _IMAGE_SUFFIXES)
        return all(key.number + step in there for step in steps)

    def missing_folders(self, keys: Sequence[KittiFrame], parts: Sequence[str]) -> list[Fault]:
        """A fault for each drive that frames are of and that is not there, or has no folder of one of these names."""
        faults = []
        for drive in dict.fromkeys(key.drive for key in keys):
            folder = self.folder(drive)
            if not folder.is_dir():
                sentence = f"The folder {folder} is missing. Unpack {drive}.zip into {self.root}."
                faults.append(Fault(folder, sentence, "missing drive"))
                continue
            for part in parts:
                if not (folder / part / "data").is_dir():
                    sentence = f"The folder {folder / part / 'data'} is missing. Unpack {drive}.zip again."
                    faults.append(Fault(folder, sentence, ("missing folder", part)))
        return faults

    def rigs(self, keys: Iterable[KittiFrame]) -> dict[str, KittiRig]:
        """Calibrations by date."""
        return {date: read_rig(self.root / date) for date in sorted({key.date for key in keys})}

    def _images(self, key: KittiFrame) -> Path:
        return self.folder(key.drive) / f"image_{self.camera(key):02d}" / "data"

    def _packets(self, drive: str) -> dict[int, Path]:
        return self._list(self.folder(drive) / "oxts" / "data", (".txt",))

    def _list(self, folder: Path, suffixes: Sequence[str]) -> dict[int, Path]:
        """Files by their number; of two of one number that with the first ending."""
        if folder not in self._listings:
            names = os.listdir(folder) if folder.is_dir() else []
            found: dict[int, Path] = {}
            for suffix in reversed(suffixes):
                numbered = [(name[: -len(suffix)], name) for name in names if name.lower().endswith(suffix)]
                found |= {int(stem): folder / name for stem, name in numbered if stem.isdecimal()}
            self._listings[folder] = found
        return self._listings[folder]


class AnnotatedMaps:
    """Depth maps of the depth benchmark, in `train/` or `val/` of a folder.

    Args:
        root: That folder.
        kind: `groundtruth`, or `velodyne_raw` for the single sweeps.

    Raises:
        FileNotFoundError: It has neither.
    """

    def __init__(self, root: Path, kind: Literal["groundtruth", "velodyne_raw"] = "groundtruth") -> None:
        self.parts = [root / part for part in ("train", "val") if (root / part).is_dir()]
        self._kind = kind
        if not self.parts:
            raise FileNotFoundError(
                f"{root} has neither train nor val with annotated depth maps. Unpack {ANNOTATED_ARCHIVE} there, or "
                "give the folder that it was unpacked into."
            )

    def folder(self, part: Path, drive: str, camera: int) -> Path:
        """Folder of the maps of a camera."""
        return part / drive / "proj_depth" / self._kind / f"image_{camera:02d}"

    def find(self, drive: str, camera: int, number: int) -> Path | None:
        """The map of a frame; None if there is none, such as for the first and the last five of a drive."""
        paths = (self.folder(part, drive, camera) / f"{number:010d}.png" for part in self.parts)
        return next((path for path in paths if path.is_file()), None)

    def part_of(self, drive: str) -> Path:
        """`train` or `val`, whichever has a drive; the first one where none has."""
        return next((part for part in self.parts if (part / drive).is_dir()), self.parts[0])

    def describe(self) -> str:
        """The folders in words."""
        return " and ".join(map(str, self.parts))


def _drives_in(root: Path) -> list[str]:
    """Names of the drives; depth maps have folders of the same names, in `train/` and `val/`."""
    paths = [path for path in root.glob("*/*_sync") if DRIVE.fullmatch(path.name)]
    return sorted(path.name for path in paths if path.parent.name == KittiFrame(path.name, 0, False).date)


def read_annotated_map(
    path: Path, image_path: Path, image: np.ndarray, archive: str | None = ANNOTATED_ARCHIVE
) -> np.ndarray:
    """Depth of a map of the depth benchmark, float32 `(H, W)`, metres, 0 = unknown.

    Raises:
        ValueError: The file is damaged, has 8 bits, or another size than its image.
    """
    with advising(f"Unpack {archive} again; programs that save images with 8 bits destroy depth maps."):
        depth = read_depth(path)
        check_same_size(image_path, image, path, depth)
    return depth
