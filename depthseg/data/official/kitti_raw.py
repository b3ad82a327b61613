"""KITTI raw: synchronised and rectified drives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from ..images import check_same_size, read_image
from ..neighbours import steps_of
from ..sample import VideoSample
from .kitti_drives import CAMERAS, IS_RIGHT, AnnotatedMaps, KittiDrives, read_annotated_map
from .kitti_poses import imu_pose, read_oxts
from .kitti_splits import DRIVE, KittiFrame, divide_drives, read_split_file
from .layout import Missing, OfficialLayout, advising
from .velodyne import SweepDepth, project_velodyne, read_velodyne

RawDepth = Literal["none", "velodyne", "annotated"]
"""Where the depth of a sample comes from: nowhere, the sweep of the laser scanner, or the annotated depth maps."""

IMAGE, OTHER_IMAGE, SWEEP, DEPTH_MAP = "image", "image of the other camera", "laser sweep", "depth map"


class KittiRaw(OfficialLayout):
    """KITTI raw: video of a car, left and right, with laser sweeps and navigation.

    ```
    ROOT/2011_09_26/calib_cam_to_cam.txt                        and calib_velo_to_cam.txt, calib_imu_to_velo.txt
    ROOT/2011_09_26/2011_09_26_drive_0001_sync/
        image_02/data/0000000000.png                            left colour camera; .jpg will do
        image_03/data/0000000000.png                            right; image_00 and image_01 are the grey ones
        velodyne_points/data/0000000000.bin                     for depth=velodyne; some frames have none
        oxts/data/0000000000.txt                                for `poses`
    DEPTH_ROOT/train|val/2011_09_26_drive_0001_sync/proj_depth/groundtruth/image_02/0000000005.png
                                                                for depth=annotated
    ```

    Without `split_file`, whole drives are divided into `train` and `val`, see `divide_drives`; with it, every split
    is exactly the list, but for frames that lack a neighbour. Those are left out and counted in `left_out`.

    The lists of Eigen, of the depth benchmark and of KITTI 2015 share drives: 21 of the 28 Eigen test drives are in
    the official training part of the depth benchmark, so training on one and evaluating on the other leaks. The 200
    images of KITTI 2015, which have the semantic labels, come from 28 drives, 15 of which are in Eigen's training
    list as Zhou chose it: evaluate on them what a list without those drives has trained, or say that it saw them.

    Args:
        root: Folder that holds the folders of the dates.
        split: `train`, `val` or `all`.
        split_file: List of frames as Monodepth2 has them (`FOLDER NUMBER l|r`), below `root` or anywhere.
        drives: Drives to keep, such as `2011_09_26_drive_0001_sync`; empty = all.
        frames: Offsets of neighbours in time, such as [-1, 1].
        stereo: Whether samples bring the image of the other camera.
        side: Camera of the samples where there is no list: `left`, `right` or `both`.
        camera: `colour` or `grey`.
        depth: `none`, `velodyne` = the projected sweep, or `annotated` = the maps of the depth benchmark.
        depth_root: Folder of the annotated maps, below `root` or anywhere; None = `root`.
        sweep_depth: How a sweep becomes depth: `camera`, or `eigen` as the evaluation of Eigen's test frames has it.
        val_fraction: Share of the drives that are `val`.
        seed: Of the division.
        missing: `refuse`, or `skip` to leave out samples that lack a file.

    Attributes:
        is_continuous: Whether its samples are whole stretches of video, in order.
        left_out: Number of frames that lack a neighbour.
        poses: float64 `(N, 4, 4)`, camera to world, of the samples; x east, y north, z up from the first packet of
            the drive, in metres. None where navigation packets are missing.

    Raises:
        FileNotFoundError: A folder, file or calibration is missing, or no frame has the depth asked for.
        ValueError: An option out of range, an unknown drive, or a list or calibration that is damaged.

    Source:
        Geiger et al. 2013 (CC BY-NC-SA 3.0).
    """

    splits = ("train", "val", "all")
    checked_splits = ("all",)

    def __init__(
        self,
        root: str | Path,
        split: str,
        split_file: str | Path | None = None,
        drives: Sequence[str] = (),
        frames: Sequence[int] = (),
        stereo: bool = False,
        side: Literal["left", "right", "both"] = "left",
        camera: Literal["colour", "grey"] = "colour",
        depth: RawDepth = "none",
        depth_root: str | Path | None = None,
        sweep_depth: SweepDepth = "camera",
        val_fraction: float = 0.1,
        seed: int = 0,
        missing: Missing = "refuse",
    ) -> None:
        self.check_split(split)
        self._drives = KittiDrives(root, CAMERAS[camera])
        self._steps, self._stereo, self._depth, self._sweep_depth = steps_of(frames, 1), stereo, depth, sweep_depth
        self._maps = AnnotatedMaps(self._drives.below_root(depth_root or root)) if depth == "annotated" else None
        if split_file is None:
            chosen = divide_drives(self._drives.choose(drives), split, val_fraction, seed)
            sides = [(drive, right) for drive in chosen for right in IS_RIGHT[side]]
            keys = [key for drive, right in sides for key in self._drives.frames(drive, right, stereo)]
        else:
            keys = read_split_file(split_file, root)
            if drives:
                wanted = self._drives.choose(drives)
                keys = [key for key in keys if key.drive in wanted]
        faults = self._drives.missing_folders(keys, ("velodyne_points",) if depth == "velodyne" else ())
        absent = {fault.path.name for fault in faults}
        keys = [key for key in keys if key.drive not in absent]
        complete = [key for key in keys if self._drives.has_neighbours(key, self._steps.values())]
        self.left_out = len(keys) - len(complete)
        self._keys = {self._drives.name(key): key for key in complete}
        super().__init__(root, split, {name: self._files_of(key) for name, key in self._keys.items()}, missing, faults)
        self._rigs = self._drives.rigs(self._keys[name] for name in self.names)
        self._check_rigs()
        self._check_depth()

    @classmethod
    def folders_of(cls, root: str | Path, split: str) -> tuple[Path, ...]:
        """The root: splits are no folders of KITTI raw."""
        return (Path(root),)

    @classmethod
    def archive_of(cls, what: str, path: Path) -> str | None:
        """The archive of the drive that a file belongs to."""
        drive = DRIVE.search(str(path))
        return f"{drive[0]}.zip" if drive else None

    def has_depth(self, index: int) -> bool:
        """Whether a sample has a sweep or a depth map, without reading it."""
        return bool({SWEEP, DEPTH_MAP} & self.files[self.names[index]].keys())

    @property
    def is_continuous(self) -> bool:
        """Whether the samples of a drive and camera follow one another frame by frame, so that motions can be joined.

        Lists for training are shuffled.
        """
        keys = [self._keys[name] for name in self.names]
        runs = 1 + sum(after != before._replace(number=before.number + 1) for before, after in pairwise(keys))
        return runs == len({(key.drive, key.right) for key in keys})

    @cached_property
    def poses(self) -> np.ndarray | None:
        """Poses of the N samples, `(N, 4, 4)`, camera to world in metres; None where there are none."""
        keys = [self._keys[name] for name in self.names]
        from_camera = {key: self._rigs[key.date].camera_to_imu(self._drives.camera(key)) for key in keys}
        packets = {key: self._drives.packet(key.drive, key.number) for key in keys}
        first = {drive: self._drives.first_packet(drive) for drive in {key.drive for key in keys}}
        if None in packets.values() or any(pose is None for pose in from_camera.values()):
            return None
        origins = {drive: read_oxts(path) for drive, path in first.items() if path is not None}
        oxts = {key: read_oxts(path) for key, path in packets.items() if path is not None}
        return np.stack([imu_pose(oxts[key], origins[key.drive]) @ from_camera[key] for key in keys])

    def __getitem__(self, index: int) -> VideoSample:
        """Image and intrinsics, with the neighbours, the other image and the depth that were asked for.

        Raises:
            ValueError: A file that cannot be read, or of another size than its image.
        """
        name = self.names[index]
        key, files = self._keys[name], self.files[name]
        image = self._read_image(key, files, IMAGE)
        camera, rig = self._drives.camera(key), self._rigs[key.date]
        intrinsics = rig.intrinsics(camera, image.shape[:2])
        other = self._drives.camera(key._replace(right=not key.right))
        return VideoSample(
            name=name,
            image=image,
            depth=self._read_depth(key, image),
            frames={step: self._read_image(key, files, _neighbour(step), image) for step in self._steps},
            stereo=self._read_image(key, files, OTHER_IMAGE, image) if self._stereo else None,
            stereo_x=rig.stereo_x(camera, other) if self._stereo else None,
            intrinsics=intrinsics,
        )

    def _files_of(self, key: KittiFrame) -> dict[str, Path]:
        files = {IMAGE: self._drives.image(key)}
        files |= {_neighbour(step): self._drives.image(key._replace(number=key.number + step)) for step in self._steps}
        if self._stereo:
            files[OTHER_IMAGE] = self._drives.image(key._replace(right=not key.right))
        depth = None
        if self._depth == "velodyne":
            depth = self._drives.sweep(key)
        elif self._maps is not None:
            depth = self._maps.find(key.drive, self._drives.camera(key), key.number)
        return files | ({SWEEP if self._maps is None else DEPTH_MAP: depth} if depth else {})

    def _read_image(
        self, key: KittiFrame, files: Mapping[str, Path], what: str, image: np.ndarray | None = None
    ) -> np.ndarray:
        with advising(f"Unpack {key.drive}.zip again."):
            found = read_image(files[what])
            if image is not None:
                check_same_size(files[IMAGE], image, files[what], found)
        return found

    def _read_depth(self, key: KittiFrame, image: np.ndarray) -> np.ndarray | None:
        files = self.files[self._drives.name(key)]
        if SWEEP in files:
            with advising(f"Unpack {key.drive}.zip again."):
                points = read_velodyne(files[SWEEP])
            projection = self._rigs[key.date].velodyne_projection(self._drives.camera(key))
            return project_velodyne(points, projection, image.shape[:2], self._sweep_depth)
        if DEPTH_MAP in files:
            return read_annotated_map(files[DEPTH_MAP], files[IMAGE], image)
        return None

    def _check_rigs(self) -> None:
        """Refuse calibrations that lack what is needed before anything is trained on them."""
        for key in {key.date: key for key in self._keys.values() if key.date in self._rigs}.values():
            camera, other = (self._drives.camera(key._replace(right=right)) for right in (key.right, not key.right))
            self._rigs[key.date].stereo_x(camera, other if self._stereo else camera)
            if self._depth == "velodyne":
                self._rigs[key.date].velodyne_projection(camera)

    def _check_depth(self) -> None:
        if self.left_out:
            self.remarks.append(f"{self.left_out} frames are left out, since they lack a neighbour in time.")
        if self._depth == "none":
            return
        without = [name for index, name in enumerate(self.names) if not self.has_depth(index)]
        if len(without) == len(self):
            searched = self._maps.describe() if self._maps else f"velodyne_points of the drives in {self.root}"
            raise FileNotFoundError(f"No frame has depth, such as {without[0]}: nothing is in {searched}.")
        if without:
            self.remarks.append(f"{len(without)} frames have no {self._depth} depth, such as {without[0]}.")


def _neighbour(step: int) -> str:
    return f"image of frame {step:+d}"
