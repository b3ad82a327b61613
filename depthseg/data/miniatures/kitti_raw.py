"""KITTI raw, in small: drives of the procedural world with calibration, laser sweeps and navigation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..official.kitti_calibration import KittiRig, read_rig
from ..official.kitti_poses import EARTH_RADIUS, OXTS_NUMBERS
from ..synthetic.rendering import render
from ..synthetic.world import WORLD, WorldParameters
from .scenes import save, write_bytes

# The cameras of a date are one rig, so that all drives of the miniature have one focal length and one baseline.
RIG_WORLD: WorldParameters = replace(
    WORLD, focal=(0.75, 0.75), principal_shift=(0.01, 0.01), baseline=(0.54, 0.54), standing_share=0.0
)
_SEED = 26
_LATITUDE, _LONGITUDE, _ALTITUDE = 49.015, 8.434, 116.4
_BEHIND = 16  # points of every sweep that are behind the car
# Camera 0 is the first of the grey pair; the colour pair is to its sides and a little in front of it.
_CAMERA_X = {0: 0.0, 1: 0.54, 2: -0.06, 3: 0.48}
_CAMERA_Z = 2.745884e-03


@dataclass(frozen=True)
class MiniatureDrive:
    """A drive: its name, the scene of the world, and the moment of its first frame."""

    name: str
    scene: int
    part: str

    @property
    def date(self) -> str:
        """Date of the drive."""
        return self.name[:10]


DRIVES = (
    MiniatureDrive("2011_09_26_drive_0001_sync", 0, "train"),
    MiniatureDrive("2011_09_26_drive_0009_sync", 1, "train"),
    MiniatureDrive("2011_10_03_drive_0027_sync", 2, "val"),
)
"""The drives, and the part of the depth benchmark that they belong to."""


def size_of(date: str, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the images of a date: dates differ by some pixels, as the genuine ones do."""
    return size if date == "2011_09_26" else (size[0] + 1, size[1] - 1)


def drive_frame(
    drive: MiniatureDrive, number: int, size: tuple[int, int], outputs: tuple[str, ...], right: bool = False
) -> dict[str, np.ndarray]:
    """Outputs of the world for a frame of a drive; see `synthetic.rendering.render`."""
    size = size_of(drive.date, size)
    view = "right" if right else "left"
    return render(_SEED, drive.scene, size, time=number, view=view, outputs=outputs, world=RIG_WORLD)


def write_kitti_raw(out: Path, count: int, size: tuple[int, int]) -> None:
    """Write three drives of two dates, with `count` frames each that have both neighbours.

    Of the second drive the sweep of frame 0 is missing, as some are in the genuine data.
    """
    for date in sorted({drive.date for drive in DRIVES}):
        _write_calibration(out / date, drive_frame(_of(date), 0, size, ("intrinsics",))["intrinsics"], date, size)
    for drive in DRIVES:
        folder = out / drive.date / drive.name
        rig = read_rig(out / drive.date)
        first = drive_frame(drive, 0, size, ("pose",))["pose"]
        for number in range(count + 2):
            left = drive_frame(drive, number, size, ("image", "depth", "pose"))
            right = drive_frame(drive, number, size, ("image",), right=True)
            for cameras, image in (((0, 2), left["image"]), ((1, 3), right["image"])):
                grey, colour = (folder / f"image_{camera:02d}" / "data" / f"{number:010d}.png" for camera in cameras)
                save(colour, image)
                save(grey, np.asarray(Image.fromarray(image).convert("L")))
            if (drive, number) != (DRIVES[1], 0):
                sweep = _sweep(left["depth"], rig)
                write_bytes(folder / "velodyne_points" / "data" / f"{number:010d}.bin", sweep.tobytes())
            packet = _packet(np.linalg.inv(first) @ left["pose"], rig)
            text = " ".join(repr(float(value)) for value in packet)
            write_bytes(folder / "oxts" / "data" / f"{number:010d}.txt", f"{text}\n".encode())


def _of(date: str) -> MiniatureDrive:
    return next(drive for drive in DRIVES if drive.date == date)


def _write_calibration(folder: Path, intrinsics: np.ndarray, date: str, size: tuple[int, int]) -> None:
    height, width = size_of(date, size)
    rows: dict[str, np.ndarray] = {}
    for camera in range(4):
        aside = np.array([-_CAMERA_X[camera], 0.0, _CAMERA_Z if camera >= 2 else 0.0])
        rows |= {
            f"S_{camera:02d}": np.array([width + 150, height + 137]),
            f"K_{camera:02d}": intrinsics,
            f"D_{camera:02d}": np.zeros(5),
            f"R_{camera:02d}": np.eye(3),
            f"T_{camera:02d}": aside,
            f"S_rect_{camera:02d}": np.array([width, height]),
            f"R_rect_{camera:02d}": _turn(0.009, -0.007, 0.004),
            f"P_rect_{camera:02d}": np.concatenate([intrinsics, intrinsics @ aside[:, None]], 1),
        }
    # Axes of the scanner are x forward, y left and z up.
    axes = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    head = "calib_time: 09-Jan-2012 13:57:47"
    _write_rows(folder / "calib_cam_to_cam.txt", [head, "corner_dist: 9.950000e-02"], rows)
    mount = {"R": _turn(0.007, 0.0, -0.015) @ axes, "T": np.array([-4.069766e-03, -7.631618e-02, -2.717806e-01])}
    _write_rows(folder / "calib_velo_to_cam.txt", [head], mount)
    unit = {"R": _turn(0.0007, -0.002, 0.015), "T": np.array([-8.086759e-01, 3.195559e-01, -7.997231e-01])}
    _write_rows(folder / "calib_imu_to_velo.txt", [head], unit)


def _write_rows(path: Path, lines: list[str], rows: Mapping[str, np.ndarray]) -> None:
    lines = lines + [
        f"{name}: {' '.join(f'{value:.6e}' for value in values.ravel())}" for name, values in rows.items()
    ]
    write_bytes(path, "\n".join([*lines, ""]).encode())


def _turn(x: float, y: float, z: float) -> np.ndarray:
    """Rotation `(3, 3)` about the axes x, y and z, radians."""
    cx, sx, cy, sy, cz, sz = (f(angle) for angle in (x, y, z) for f in (math.cos, math.sin))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]]) @ about_y @ about_x


def _sweep(depth: np.ndarray, rig: KittiRig) -> np.ndarray:
    """A sweep, float32 `(N, 4)`, that sees every second row of the left colour image, and points behind the car."""
    rows, columns = np.nonzero(depth)
    seen = rows % 2 == 1
    rows, columns = rows[seen], columns[seen]
    metres = depth[rows, columns].astype(np.float64)
    projection = rig.velodyne_projection(2)
    scaled = np.stack([columns * metres, rows * metres, metres]) - projection[:, 3:]
    points = np.linalg.solve(projection[:, :3], scaled).T
    points = np.concatenate([points, points[:_BEHIND] * (-1, 1, 1)])
    return np.concatenate([points, np.full((len(points), 1), 0.3)], 1).astype("<f4")


def _packet(pose: np.ndarray, rig: KittiRig) -> np.ndarray:
    """The navigation packet of a frame.

    Args:
        pose: `(4, 4)`, of the left colour camera, to the axes of that camera in the first frame.
        rig: Of the date.
    """
    to_imu = rig.camera_to_imu(2)
    assert to_imu is not None, "the rig of a miniature is complete"
    imu = to_imu @ pose @ np.linalg.inv(to_imu)
    scale = math.cos(math.radians(_LATITUDE)) * EARTH_RADIUS
    north = math.log(math.tan(math.radians(90 + _LATITUDE) / 2)) + imu[1, 3] / scale
    longitude = _LONGITUDE + math.degrees(imu[0, 3] / scale)
    latitude = math.degrees(2 * math.atan(math.exp(north))) - 90
    matrix = imu[:3, :3]
    roll, yaw = math.atan2(matrix[2, 1], matrix[2, 2]), math.atan2(matrix[1, 0], matrix[0, 0])
    pitch = math.atan2(-matrix[2, 0], math.hypot(matrix[2, 1], matrix[2, 2]))
    values = [latitude, longitude, _ALTITUDE + imu[2, 3], roll, pitch, yaw]
    return np.array(values + [0.0] * (OXTS_NUMBERS - len(values)))
