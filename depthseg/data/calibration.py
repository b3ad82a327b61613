"""Cameras from files: calibrations in the usual forms, and poses."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..reading import free_value, read_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORMS = (
    "KITTI's calib.txt (lines such as `P0: ` with 12 numbers), a text of 3x3 or 3x4 numbers, JSON or YAML with fx, "
    "fy, cx, cy and optionally width, height, baseline, or a camera.json of Cityscapes"
)

_YAML_SUFFIXES = (".yaml", ".yml")
_SAME_CAMERA = 1e-3
"""Share of the focal length by which the intrinsics of a rectified pair may differ."""


@dataclass(frozen=True)
class Calibration:
    """A camera without distortion.

    Attributes:
        path: The file that it comes from.
        intrinsics: float64 `(3, 3)`, pixels, pixel centres whole-numbered.
        size: Height and width of the images that it belongs to, where the file says it.
        baseline: Distance of a rectified pair's cameras in metres, where the file says it.
    """

    path: Path
    intrinsics: np.ndarray
    size: tuple[int, int] | None = None
    baseline: float | None = None

    def for_size(self, size: Sequence[int]) -> np.ndarray:
        """The intrinsics, if they can belong to images of this height and width.

        Raises:
            ValueError: They cannot; the message says why and what to do.
        """
        height, width = size
        advice = "give the calibration of these very images, or scale fx, cx by the width and fy, cy by the height"
        if self.size is not None and tuple(self.size) != (height, width):
            raise ValueError(
                f"{self.path} does not fit the images: it is for {self.size[1]}x{self.size[0]} pixels and they are "
                f"{width}x{height}; {advice}."
            )
        cx, cy = self.intrinsics[:2, 2]
        if not (0 <= cx <= width - 1 and 0 <= cy <= height - 1):
            raise ValueError(
                f"{self.path} does not fit the images: its principal point ({cx:g}, {cy:g}) lies outside of "
                f"{width}x{height} pixels; {advice}."
            )
        return self.intrinsics.copy()


def read_calibration(path: str | Path) -> Calibration:
    """Read a calibration: KITTI's `calib.txt`, a plain matrix, or named numbers in JSON or YAML, as Cityscapes too.

    Of several projection matrices the first one gives the intrinsics, and the first two give the baseline.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file has none of these forms, its numbers are no camera, or the first two cameras differ.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no calibration file {path}.")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if path.suffix.lower() in (".json", *_YAML_SUFFIXES) or text.lstrip().startswith("{"):
        return _from_names(path, text)
    matrices = _matrices(path, text)
    intrinsics = _checked(path, matrices[0][:, :3])
    if len(matrices) > 1:
        _check_one_camera(path, intrinsics, _checked(path, matrices[1][:, :3]))
    baseline = None
    if len(matrices) > 1 and matrices[0].shape == matrices[1].shape == (3, 4):
        # The fourth column is -fx times the x of the camera.
        baseline = float(matrices[0][0, 3] - matrices[1][0, 3]) / float(intrinsics[0, 0])
    return Calibration(path, intrinsics, baseline=_checked_baseline(path, baseline or None))


def resize_intrinsics(intrinsics: np.ndarray, size: Sequence[int], new_size: Sequence[int]) -> np.ndarray:
    """Intrinsics `(3, 3)` of an image resized from `size` to `new_size` (height, width), edges going to edges."""
    sy, sx = new_size[0] / size[0], new_size[1] / size[1]
    return np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]]) @ intrinsics


def read_poses(path: str | Path) -> np.ndarray:
    """Read camera poses, one of 3x4 or 4x4 numbers a line; empty lines do not count.

    Returns:
        float64 `(N, 4, 4)`, camera to world, in the unit of the file (KITTI: metres).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is not a pose.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of poses {path}.")
    poses = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        values = _numbers(line)
        pose = np.eye(4)
        if values is None or len(values) not in (12, 16) or not np.isfinite(values).all():
            raise ValueError(f"Line {number} of {path} is not a pose: 12 finite numbers (3x4, by rows) are expected.")
        pose[:3] = np.reshape(values[:12], (3, 4))
        if abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max() > 1e-2 or np.linalg.det(pose[:3, :3]) < 0:
            raise ValueError(f"Line {number} of {path} is not a pose: its first three columns are not a rotation.")
        poses.append(pose)
    return np.array(poses).reshape(-1, 4, 4)


def _from_names(path: Path, text: str) -> Calibration:
    values = _flat(_parsed(path, text))
    needed, optional = ("fx", "fy", "cx", "cy"), ("width", "height", "baseline")
    if not isinstance(values, dict) or not set(needed) <= set(values):
        raise ValueError(
            f"{path} must name fx, fy, cx and cy in pixels, a camera.json of Cityscapes u0 and v0 in place of cx and "
            f"cy; other forms are {_FORMS}."
        )
    for key in (*needed, *optional):
        value = values.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not number:
            raise ValueError(f"{path} says {key}: {value!r}; it must be a number, and finite.")
    fx, fy, cx, cy = (float(values[key]) for key in needed)
    size = None
    if values.get("width") and values.get("height"):
        size = (int(values["height"]), int(values["width"]))
    intrinsics = _checked(path, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))
    return Calibration(path, intrinsics, size, _checked_baseline(path, values.get("baseline")))


def _flat(values: Any) -> Any:
    """The numbers of a camera.json of Cityscapes under the names of the other files; other content as it is."""
    if not isinstance(values, dict) or not isinstance(values.get("intrinsic"), dict):
        return values
    names = {"u0": "cx", "v0": "cy"}
    found = {names.get(key, key): value for key, value in values["intrinsic"].items()}
    extrinsic = values.get("extrinsic")
    return found | {"baseline": extrinsic.get("baseline") if isinstance(extrinsic, dict) else None}


def _parsed(path: Path, text: str) -> Any:
    """What a JSON or YAML file holds."""
    try:
        return json.loads(text)
    except ValueError as error:
        if path.suffix.lower() not in _YAML_SUFFIXES:
            raise ValueError(f"{path} is not valid JSON: {error}.") from error
    return free_value(read_yaml(path))


def _matrices(path: Path, text: str) -> list[np.ndarray]:
    """The matrices of a text, `(3, 3)` or `(3, 4)` each; lines with names other than P... are left aside."""
    rows = []
    for line in filter(str.strip, text.splitlines()):
        name, colon, rest = line.partition(":")
        if colon and not name.strip().upper().startswith("P"):
            continue
        rows.append(_numbers(rest if colon else line))
    lengths = {0 if row is None else len(row) for row in rows}
    if len(rows) == 3 and lengths in ({3}, {4}):
        return [np.array(rows)]
    if lengths in ({9}, {12}):
        return [np.array(row).reshape(3, -1) for row in rows]
    raise ValueError(f"{path} is not a calibration that can be read; known forms are {_FORMS}.")


def _numbers(text: str) -> list[float] | None:
    try:
        return [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        return None


def _checked(path: Path, intrinsics: np.ndarray) -> np.ndarray:
    if not np.isfinite(intrinsics).all() or not np.allclose(intrinsics[2], (0, 0, 1)) or intrinsics[1, 0] != 0:
        raise ValueError(
            f"{path} is not the matrix of a camera: it must be [[fx, skew, cx], [0, fy, cy], [0, 0, 1]], finite."
        )
    if min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
        raise ValueError(
            f"{path} has the focal lengths fx = {intrinsics[0, 0]:g}, fy = {intrinsics[1, 1]:g}; they are pixels, "
            "above 0. Correct the file."
        )
    return intrinsics.astype(np.float64)


def _check_one_camera(path: Path, first: np.ndarray, second: np.ndarray) -> None:
    """Refuse a pair that is not rectified: its disparity would not be fx * baseline / depth."""
    places = {"fx": (0, 0), "skew": (0, 1), "fy": (1, 1), "cx": (0, 2), "cy": (1, 2)}
    differing = [
        f"{name} ({first[place]:g} and {second[place]:g})"
        for name, place in places.items()
        if abs(first[place] - second[place]) > _SAME_CAMERA * first[0, 0]
    ]
    if differing:
        raise ValueError(
            f"The first two cameras of {path} differ in {', '.join(differing)}: rectify the images to one camera, "
            "or leave only the matrix of the camera that took them."
        )


def _checked_baseline(path: Path, baseline: float | None) -> float | None:
    if baseline is not None and not (math.isfinite(baseline) and baseline > 0):
        raise ValueError(
            f"{path} has the baseline {baseline:g}; it is how far the right camera is from the left one, above 0. "
            "Correct the file, left camera first."
        )
    return None if baseline is None else float(baseline)
