"""The cameras of KITTI, its laser scanner and its inertial unit, from the calibration files of every part of KITTI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_ROTATION_TOLERANCE = 1e-3
_FORMS = "`calib_cam_to_cam.txt` of a date, or one file with P2 or P_rect_02, R0_rect or R_rect_00, and Tr_velo_to_cam"


@dataclass(frozen=True)
class KittiRig:
    """Rectified cameras and what is mounted with them; axes of cameras are x right, y down, z forward.

    Attributes:
        path: File of the cameras.
        projections: Number of the camera (0, 1 grey left and right, 2, 3 colour) -> float64 `(3, 4)`, from the
            rectified axes of camera 0, in metres, to pixels.
        rectification: float64 `(4, 4)`, from the axes of camera 0 to its rectified ones.
        velo_to_cam: float64 `(4, 4)`, from the scanner (x forward, y left, z up) to camera 0; None where no file says.
        imu_to_velo: float64 `(4, 4)`, from the inertial unit to the scanner; likewise.
        sizes: Number of the camera -> height and width of its rectified images, where the file says them.
    """

    path: Path
    projections: Mapping[int, np.ndarray]
    rectification: np.ndarray
    velo_to_cam: np.ndarray | None
    imu_to_velo: np.ndarray | None
    sizes: Mapping[int, tuple[int, int]]

    def intrinsics(self, camera: int, size: Sequence[int]) -> np.ndarray:
        """Intrinsics `(3, 3)` of a camera for its images of this height and width.

        Raises:
            ValueError: The file has no such camera, or is for images of another size.
        """
        matrix = self._projection(camera)[:, :3].copy()
        height, width = size
        expected = self.sizes.get(camera, (height, width))
        outside = not (0 < matrix[0, 2] < width - 1 and 0 < matrix[1, 2] < height - 1)
        other_size = tuple(expected) != (height, width)
        if other_size or outside:
            reason = f"it is for {expected[1]}x{expected[0]}" if other_size else "its principal point is outside"
            raise ValueError(
                f"{self.path} does not fit the images of camera {camera}, {width}x{height} pixels: {reason}. Use the "
                "calibration of the date of the drive, and the images in the size of the archive."
            )
        return matrix

    def stereo_x(self, camera: int, other: int) -> float:
        """Where another camera stands on the x axis of a camera, metres; above 0 = to the right."""
        first, second = self._projection(camera), self._projection(other)
        return float((first[0, 3] - second[0, 3]) / first[0, 0])

    def velodyne_projection(self, camera: int) -> np.ndarray:
        """float64 `(3, 4)`: from points of the scanner, in metres, to pixels x depth and depth of a camera.

        Raises:
            ValueError: No file says where the scanner is.
        """
        if self.velo_to_cam is None:
            raise ValueError(
                f"{self.path} does not say where the laser scanner is. Add the line Tr_velo_to_cam, or put "
                "calib_velo_to_cam.txt of the calibration archive beside calib_cam_to_cam.txt."
            )
        return self._projection(camera) @ self.rectification @ self.velo_to_cam

    def camera_to_imu(self, camera: int) -> np.ndarray | None:
        """float64 `(4, 4)`, from the axes of a rectified camera to those of the inertial unit; None if not known."""
        if self.velo_to_cam is None or self.imu_to_velo is None:
            return None
        projection, aside = self._projection(camera), np.eye(4)
        aside[:3, 3] = np.linalg.solve(projection[:, :3], projection[:, 3])
        return np.linalg.inv(aside @ self.rectification @ self.velo_to_cam @ self.imu_to_velo)

    def _projection(self, camera: int) -> np.ndarray:
        if camera not in self.projections:
            found = ", ".join(map(str, sorted(self.projections)))
            raise ValueError(f"{self.path} has no projection matrix of camera {camera}, only of {found}.")
        return self.projections[camera]


def read_rig(path: str | Path) -> KittiRig:
    """Read the calibration of a rig.

    Args:
        path: Folder of a date of KITTI raw with `calib_cam_to_cam.txt`, and where they are needed
            `calib_velo_to_cam.txt` and `calib_imu_to_velo.txt`; or one file that names its matrices as the object
            benchmark (`P2`, `R0_rect`, `Tr_velo_to_cam`), the odometry benchmark (`P2`, `Tr`) or KITTI raw does.

    Raises:
        FileNotFoundError: There is no such file; the message names the archive.
        ValueError: A line is damaged, or a matrix is missing or is no camera or rotation.
    """
    path = Path(path)
    of_date = path.is_dir() or path.name == "calib_cam_to_cam.txt"
    main = path / "calib_cam_to_cam.txt" if path.is_dir() else path
    if not main.is_file():
        archive = f" Unpack {path.name}_calib.zip again." if path.is_dir() else ""
        raise FileNotFoundError(f"There is no calibration file {main}.{archive}")
    numbers = _read_numbers(main)
    pose = {"velo_to_cam": ("Tr_velo_to_cam", "Tr_velo_cam", "Tr"), "imu_to_velo": ("Tr_imu_to_velo", "Tr_imu_velo")}
    poses = {what: _pose(main, numbers, names) for what, names in pose.items()}
    if of_date:
        poses |= {what: _read_pose(main.with_name(f"calib_{what}.txt")) for what in pose}
    rectification = np.eye(4)
    given = _first(numbers, ("R_rect_00", "R0_rect", "R_rect"))
    if given is None and (of_date or any(name.startswith("P_rect") for name in numbers)):
        raise ValueError(f"{main} has no line R_rect_00; the calibration of KITTI is {_FORMS}. {_again(main)}")
    if given is not None:
        rectification[:3, :3] = _rotation(main, *given)
    return KittiRig(main, _projections(main, numbers), rectification, **poses, sizes=_sizes(main, numbers))


def _read_numbers(path: Path) -> dict[str, np.ndarray]:
    """Named rows of numbers; lines without numbers, such as a date, are left aside."""
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        name, colon, rest = line.partition(":")
        name = name.strip()
        if not line.strip() or name == "calib_time":
            continue
        try:
            values = np.array([float(word) for word in rest.split()])
        except ValueError:
            values = np.array([np.nan])
        if not colon or not values.size or not np.isfinite(values).all():
            raise ValueError(
                f"Line {number} of {path} is damaged: a name, a colon and finite numbers are expected, such as "
                f"`R_rect_00: 1 0 0 ...`. {_again(path)}"
            )
        found[name] = values
    return found


def _first(numbers: Mapping[str, np.ndarray], names: Sequence[str]) -> tuple[str, np.ndarray] | None:
    return next(((name, numbers[name]) for name in names if name in numbers), None)


def _shaped(path: Path, name: str, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if values.size != shape[0] * shape[1]:
        raise ValueError(
            f"{path} has {values.size} numbers in its line {name}; {shape[0]}x{shape[1]} are expected. {_again(path)}"
        )
    return values.reshape(shape)


def _rotation(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    matrix = _shaped(path, name, values, (3, 3))
    if abs(matrix @ matrix.T - np.eye(3)).max() > _ROTATION_TOLERANCE or np.linalg.det(matrix) < 0:
        raise ValueError(f"{path}: {name} is not a rotation. {_again(path)}")
    return matrix


def _pose(path: Path, numbers: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray | None:
    """`(4, 4)` of a line of twelve numbers."""
    given = _first(numbers, names)
    if given is None:
        return None
    pose = np.eye(4)
    pose[:3] = _shaped(path, *given, (3, 4))
    _rotation(path, given[0], pose[:3, :3])
    return pose


def _read_pose(path: Path) -> np.ndarray | None:
    """`(4, 4)` of a file with the lines R and T; None if there is no such file."""
    if not path.is_file():
        return None
    numbers = _read_numbers(path)
    for name in ("R", "T"):
        if name not in numbers:
            raise ValueError(f"{path} has no line {name}. {_again(path)}")
    pose = np.eye(4)
    pose[:3, :3] = _rotation(path, "R", numbers["R"])
    pose[:3, 3] = _shaped(path, "T", numbers["T"], (3, 1))[:, 0]
    return pose


def _projections(path: Path, numbers: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    found = {}
    for camera in range(4):
        given = _first(numbers, (f"P_rect_{camera:02d}", f"P{camera}"))
        if given is None:
            continue
        matrix = _shaped(path, *given, (3, 4))
        if not np.allclose(matrix[2, :3], (0, 0, 1)) or min(matrix[0, 0], matrix[1, 1]) <= 0:
            raise ValueError(
                f"{path}: {given[0]} is not the projection of a camera: focal lengths above 0 and 0 0 1 in the third "
                f"row are expected. {_again(path)}"
            )
        found[camera] = matrix
    if not found:
        raise ValueError(f"{path} has no projection matrix; the calibration of KITTI is {_FORMS}. {_again(path)}")
    return found


def _sizes(path: Path, numbers: Mapping[str, np.ndarray]) -> dict[int, tuple[int, int]]:
    sizes = {}
    for camera in range(4):
        name = f"S_rect_{camera:02d}"
        if name in numbers:
            width, height = _shaped(path, name, numbers[name], (1, 2))[0]
            sizes[camera] = (int(height), int(width))
    return sizes


def _again(path: Path) -> str:
    """What to do about a damaged file."""
    archive = f"{path.parent.name}_calib.zip" if path.name.startswith("calib_") else "its archive"
    return f"Unpack {archive} again."
