"""NYU Depth V2, the raw Kinect scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..calibration import resize_intrinsics
from ..faults import Fault
from ..images import check_same_size, read_depth, read_image
from ..sample import DepthSample
from .layout import Missing, OfficialLayout, advising
from .nyuv2 import FULL_SIZE, RGB_INTRINSICS

_FARTHEST = 10.0
_ARCHIVE = "the archive of this scene"
_ADVICE = "Unpack the scene again, or leave such frames out with missing=skip."
# Seconds between a depth map and its image beyond which the two are not of one moment.
_LATEST = 0.1


@dataclass(frozen=True)
class Lens:
    """A camera with distortion, of images of 480x640: intrinsics `(3, 3)` in pixels, and k1, k2, p1, p2, k3."""

    intrinsics: np.ndarray
    distortion: tuple[float, float, float, float, float]

    def distorted(self, points: np.ndarray) -> np.ndarray:
        """Where points `(2, ...)` of the plane at distance 1 appear on that plane through this lens."""
        k1, k2, p1, p2, k3 = self.distortion
        x, y = points
        square = x * x + y * y
        radial = 1 + square * (k1 + square * (k2 + square * k3))
        return np.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x),
                y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
            ]
        )

    def rays(self, size: tuple[int, int]) -> np.ndarray:
        """Points `(2, H, W)` of the plane at distance 1 that appear at the pixels of an image without distortion."""
        matrix = resize_intrinsics(self.intrinsics, FULL_SIZE, size)
        rows, columns = np.mgrid[: size[0], : size[1]]
        return np.stack([(columns - matrix[0, 2]) / matrix[0, 0], (rows - matrix[1, 2]) / matrix[1, 1]])

    def undistorted_rays(self, size: tuple[int, int]) -> np.ndarray:
        """Points `(2, H, W)` of the plane at distance 1 that appear at the pixels of an image as it was taken."""
        seen = self.rays(size)
        points = seen.copy()
        for _ in range(30):  # a fixed point, as the distortion is small
            points += seen - self.distorted(points)
        return points

    def pixels(self, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Pixels `(2, ...)` in an image of `size` of points `(2, ...)` of the plane at distance 1."""
        matrix = resize_intrinsics(self.intrinsics, FULL_SIZE, size)
        x, y = points
        return np.stack([x * matrix[0, 0] + matrix[0, 2], y * matrix[1, 1] + matrix[1, 2]])


RGB_LENS = Lens(RGB_INTRINSICS, (0.20796615318809061, -0.58613825163911781, 7.2231363135888329e-4,
                                 1.0479627195765181e-3, 0.49856986684705107))  # fmt: skip
DEPTH_LENS = Lens(
    np.array([[582.62448167737955, 0, 313.04475870804731], [0, 582.69103270988637, 238.44389626620386], [0, 0, 1]]),
    (-0.099897236553084481, 0.39065324602765344, 1.9290592870229277e-3, -1.9422022475975055e-3, -0.51031725053400578),
)
# From the depth camera to the RGB camera. The toolbox writes -ROTATION X + T, which turns both cameras backwards and
# gives the same pixels.
_ROTATION = np.array(
    [
        [9.9997798940829263e-1, 5.0518419386157446e-3, 4.3011152014118693e-3],
        [-5.0359919480810989e-3, 9.9998051861143999e-1, -3.6879781309514218e-3],
        [-4.3196624923060242e-3, 3.6662365748484798e-3, 9.9998394948385538e-1],
    ]
).T
_TRANSLATION = -np.array([2.5031875059141302e-2, -2.9342312935846411e-4, 6.6238747008330102e-4])


class NYUv2Raw(OfficialLayout):
    """NYU Depth V2, raw: scenes as the Kinect recorded them, 640x480.

    ```
    ROOT/SCENE/r-1294886360.208451-2996770081.ppm   images
    ROOT/SCENE/d-1294886360.165611-2996770081.pgm   raw numbers of depth, the lowest byte first
    ```

    The two streams are not synchronised: each depth map goes with the image that is nearest in time. Samples are named
    `SCENE/d-...`. Some files of the original are truncated: they are named in the error, and `missing=skip` leaves
    them out, judged by their size.

    Registered depth is that of the RGB camera: every measurement is moved to the pixel where the RGB camera, its
    distortion removed, sees it; nearer ones hide farther ones. Where the RGB camera sees more than the depth camera,
    depth is unknown. Images have their distortion removed as well.

    Args:
        root: Folder of the scenes, or one scene.
        split: `train`, `val` or `all`. Whole scenes are `val`: the last ones by name.
        val_fraction: Share of the scenes that are `val`.
        scenes: Scenes to keep; empty = all.
        exclude_scenes: Scenes to leave out, such as those of the test images.
        registered: Whether depth is moved into the view of the RGB camera. Without it, image and depth are as
            recorded and do not fit each other.
        missing: `refuse`, or `skip` to leave out frames of truncated files.

    Raises:
        FileNotFoundError: There is no scene, or a file is truncated.
        ValueError: An unknown split or scene, or a share out of range.

    Source:
        Silberman et al. 2012; `camera_params.m`, `project_depth_map.m` and `get_synched_frames.m` of the toolbox. The
        toolbox keeps the distance to the depth camera; here it is that to the RGB camera, up to 1 cm away from it.
    """

    splits = ("train", "val", "all")
    checked_splits = ("all",)
    archives = {"image": _ARCHIVE, "depth map": _ARCHIVE}

    def __init__(
        self,
        root: str | Path,
        split: str,
        val_fraction: float = 0.1,
        scenes: Sequence[str] = (),
        exclude_scenes: Sequence[str] = (),
        registered: bool = True,
        missing: Missing = "refuse",
    ) -> None:
        self._registered = registered
        self.check_place(root, split)
        folders = _divide(_scenes(Path(root), scenes, exclude_scenes), split, val_fraction)
        files: dict[str, Mapping[str, Path]] = {}
        num_alone = 0
        for folder in folders:
            pairs, alone = _pairs_of(folder)
            files |= pairs
            num_alone += alone
        if not files:
            raise FileNotFoundError(
                f"The split {split!r} of {root} has no frame: scenes are folders of r-TIME-TICKS.ppm and "
                "d-TIME-TICKS.pgm. Unpack the raw scenes there, or change the options scenes and val_fraction."
            )
        paths = {path for parts in files.values() for path in parts.values()} if missing == "skip" else ()
        cut = {path for path in paths if _is_truncated(path)}
        files = {name: parts for name, parts in files.items() if not any(path in cut for path in parts.values())}
        super().__init__(root, split, files, missing, [_truncated_fault(path) for path in sorted(cut)])
        if num_alone:
            self.remarks.append(f"{num_alone} depth maps are left out: no image is within {_LATEST} s of them.")

    @classmethod
    def folders_of(cls, root: str | Path, split: str) -> tuple[Path, ...]:
        """The folder of the scenes."""
        return (Path(root),)

    @classmethod
    def is_root(cls, root: Path, split: str) -> bool:
        """Whether a folder holds scenes or is one."""
        return any(any(root.glob(pattern)) for pattern in ("d-*.pgm", "*/d-*.pgm"))

    def __getitem__(self, index: int) -> DepthSample:
        """Image, depth and intrinsics.

        Raises:
            ValueError: A file is truncated or cannot be read.
        """
        name = self.names[index]
        image_path, path = self.files[name].values()
        with advising(_ADVICE):
            image = read_image(image_path)
            depth = read_depth(path, depth_format="kinect")
        check_same_size(image_path, image, path, depth)
        if self._registered:
            image, depth = undistort(image), register(depth)
        intrinsics = resize_intrinsics(RGB_INTRINSICS, FULL_SIZE, image.shape[:2])
        return DepthSample(name=name, image=image, depth=depth, intrinsics=intrinsics)


def register(depth: np.ndarray) -> np.ndarray:
    """Depth in the view of the RGB camera of NYU Depth V2, its distortion removed.

    Args:
        depth: float32 `(H, W)`, metres in the view of the depth camera, 0 = unknown.

    Returns:
        float32 `(H, W)`, metres along the axis of the RGB camera, 0 = unknown.
    """
    size = depth.shape
    known = depth > 0
    rays = _depth_rays(size)[:, known]
    points = _ROTATION @ (np.vstack([rays, np.ones(rays.shape[1])]) * depth[known]) + _TRANSLATION[:, None]
    columns, rows = np.rint(RGB_LENS.pixels(points[:2] / points[2], size)).astype(int)
    inside = (points[2] > 0) & (columns >= 0) & (columns < size[1]) & (rows >= 0) & (rows < size[0])
    found = np.full(size, np.inf, np.float32)
    np.minimum.at(found, (rows[inside], columns[inside]), points[2, inside].astype(np.float32))
    return np.where(found <= _FARTHEST, found, np.float32(0))


def undistort(image: np.ndarray) -> np.ndarray:
    """An image of the RGB camera without its distortion, bilinear; its border is repeated.

    Args:
        image: uint8 `(H, W, 3)`.
    """
    size = image.shape[:2]
    columns, rows = RGB_LENS.pixels(RGB_LENS.distorted(RGB_LENS.rays(size)), size)
    columns, rows = np.clip(columns, 0, size[1] - 1), np.clip(rows, 0, size[0] - 1)
    left, top = np.floor(columns).astype(int), np.floor(rows).astype(int)
    right, bottom = np.minimum(left + 1, size[1] - 1), np.minimum(top + 1, size[0] - 1)
    x, y = (columns - left)[..., None], (rows - top)[..., None]
    upper = image[top, left] * (1 - x) + image[top, right] * x
    lower = image[bottom, left] * (1 - x) + image[bottom, right] * x
    return np.rint(upper * (1 - y) + lower * y).astype(np.uint8)


@cache
def _depth_rays(size: tuple[int, int]) -> np.ndarray:
    return DEPTH_LENS.undistorted_rays(size)


def _scenes(root: Path, keep: Sequence[str], exclude: Sequence[str]) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"The folder {root} does not exist; it is the folder of the raw scenes.")
    if any(root.glob("d-*.pgm")):
        found = {root.name: root}
    else:
        found = {path.name: path for path in sorted(root.iterdir()) if any(path.glob("d-*.pgm"))}
    for name in (*keep, *exclude):
        if name not in found:
            raise ValueError(
                f"{root} has no scene {name!r}; it has {len(found)} scenes. Check scenes, exclude_scenes."
            )
    return [path for name, path in found.items() if (not keep or name in keep) and name not in exclude]


def _divide(scenes: list[Path], split: str, val_fraction: float) -> list[Path]:
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction={val_fraction} is out of range; it is a share from 0 to below 1.")
    if split == "all":
        return scenes
    first = len(scenes) - round(val_fraction * len(scenes))
    return scenes[first:] if split == "val" else scenes[:first]


def _pairs_of(scene: Path) -> tuple[dict[str, dict[str, Path]], int]:
    """Every depth map of a scene with the image nearest in time, and the number of those that have none."""
    images = sorted(scene.glob("r-*.ppm"), key=_time_of)
    if not images:
        raise FileNotFoundError(f"{scene} has depth maps but no image r-TIME-TICKS.ppm. Unpack {_ARCHIVE} again.")
    times = np.array([_time_of(path) for path in images])
    pairs, maps = {}, sorted(scene.glob("d-*.pgm"), key=_time_of)
    for path in maps:
        away = np.abs(times - _time_of(path))
        nearest = int(away.argmin())
        if away[nearest] <= _LATEST:
            pairs[f"{scene.name}/{path.stem}"] = {"image": images[nearest], "depth map": path}
    return pairs, len(maps) - len(pairs)


def _time_of(path: Path) -> float:
    """The time in a name, in seconds."""
    try:
        return float(path.stem.split("-")[1])
    except (IndexError, ValueError):
        raise ValueError(
            f"{path} has no time in its name; the files of a scene are named r-TIME-TICKS.ppm and d-TIME-TICKS.pgm."
        ) from None


def _truncated_fault(path: Path) -> Fault:
    sentence = f"{path} is truncated: it has fewer bytes than its header says. {_ADVICE}"
    return Fault(path, sentence, ("truncated", path.suffix))


def _is_truncated(path: Path) -> bool:
    """Whether a PPM or PGM has fewer bytes than its header promises, or no header."""
    with path.open("rb") as file:
        words = file.read(64).split(maxsplit=4)
    try:
        channels, width, height, largest = 3 if words[0] == b"P6" else 1, *map(int, words[1:4])
    except (IndexError, ValueError):
        return True
    return path.stat().st_size < channels * width * height * (1 + (largest > 255))
