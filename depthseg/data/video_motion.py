"""How a camera moved between two images (points followed, rotation, parallax that is left), and how each pixel did."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

LARGEST_WIDTH = 640
"""Wider images are reduced to this width: motion is measured as a share of it."""
FEWEST_POINTS = 30
"""With fewer points than this followed, nothing is said of a pair."""
LEAST_SHARE = 0.15
"""The same for their share of the points that were looked for."""

DENSE_WIDTH = 480
"""The same for the motion of every pixel, which takes longer."""
AGREEMENT = 1.0
"""Pixels, of the reduced image, by which the motion there and the motion back may differ where both are known."""

BRIGHTNESS = 20
"""Levels, of 255, by which a pixel may become brighter or darker on its way, if its motion is to be known."""
LEAST_KNOWN = 0.5
"""With a smaller share of pixels whose motion is known, the images are of different scenes: a cut."""

_POINTS = 400
_THERE_AND_BACK = 0.7
_NOISE = 0.35
"""Pixels by which a followed point is off, roughly."""
_WRONG = 2.0
"""A rotation that leaves so many times the motion of the best one is wrong, not a sign of parallax."""


@dataclass(frozen=True)
class PairMotion:
    """What two images show of the motion between them.

    Attributes:
        followed: Whether enough points could be followed; if not, motion, parallax and rotation are 0.
        motion: Share of the width that points move, the median.
        parallax: The same after the rotation of the camera is taken out.
        rotation: Degrees that the camera turned.
        gain: Brightness of the second image over that of the first one, at the points followed.
    """

    followed: bool
    motion: float
    parallax: float
    rotation: float
    gain: float


def measure_pair(first: np.ndarray, second: np.ndarray, intrinsics: np.ndarray | None = None) -> PairMotion:
    """Measure the motion between two images of one camera.

    Args:
        first: uint8 `(H, W, 3)` RGB, or grey `(H, W)` of more than 8 bits.
        second: The same, later.
        intrinsics: `(3, 3)` in pixels; None = the focal length is the width, the principal point the middle.

    Raises:
        ImportError: OpenCV is missing.
    """
    cv2 = _import_cv2()
    height, width = first.shape[:2]
    if intrinsics is None:
        intrinsics = np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1.0]])
    grey = _grey_pair(cv2, first, second)
    scale = min(1.0, LARGEST_WIDTH / width)
    if scale < 1:
        grey = [cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for image in grey]
    start, end, share, gain = _follow(cv2, *grey)
    if len(start) < FEWEST_POINTS or share < LEAST_SHARE:
        return PairMotion(False, 0.0, 0.0, 0.0, gain)
    # Pixels of the full size, centres whole-numbered.
    start, end = ((points + 0.5) / scale - 0.5 for points in (start, end))
    noise = _NOISE / scale
    rotation = _rotation(cv2, start, end, intrinsics, noise)
    motion = np.linalg.norm(end - start, axis=1)
    parallax = np.linalg.norm(end - _turned(start, rotation, intrinsics), axis=1)
    angle = math.degrees(math.acos(min(1.0, max(-1.0, (np.trace(rotation) - 1) / 2))))
    return PairMotion(True, float(np.median(motion) / width), float(np.median(parallax) / width), angle, gain)


def dense_motion(earlier: np.ndarray, later: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of an image was in an earlier one, by dense inverse search.

    Args:
        earlier: uint8 `(H, W, 3)` RGB.
        later: The same, of the same size.

    Returns:
        Column and row in the earlier image, float32 `(H, W, 2)`, and where they are known, bool `(H, W)`: inside that
        image, equally bright there, and the motion from there to the later image leads back. Nowhere after a cut.

    Raises:
        ImportError: OpenCV is missing.
    """
    cv2 = _import_cv2()
    height, width = later.shape[:2]
    scale = min(1.0, DENSE_WIDTH / width)
    small = (max(16, round(width * scale)), max(16, round(height * scale)))
    pair = (cv2.resize(image, small, interpolation=cv2.INTER_AREA) for image in _grey_pair(cv2, earlier, later))
    first, second = pair
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    search.setFinestScale(0)  # at half the size, small objects seem to move slower than they do
    back, there = search.calc(second, first, None), search.calc(first, second, None)
    grid = np.stack(np.meshgrid(*(np.arange(side, dtype=np.float32) for side in small)), -1)
    places = grid + back
    returned = back + cv2.remap(there, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    before, after = (cv2.blur(image, (3, 3)).astype(np.float32) for image in (first, second))
    change = np.abs(cv2.remap(before, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) - after)
    known = _inside(places) & (change < BRIGHTNESS) & (np.linalg.norm(returned, axis=-1) < AGREEMENT)
    known &= known.mean() >= LEAST_KNOWN
    if small == (width, height):
        return places, known
    # The motion is enlarged, not the place: places have edges where the image ends.
    factors = np.array([width / small[0], height / small[1]], np.float32)
    moved = cv2.resize(back, (width, height), interpolation=cv2.INTER_LINEAR) * factors
    grid = np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), -1)
    known = cv2.resize(known.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    return grid + moved, known & _inside(grid + moved)


def _inside(places: np.ndarray) -> np.ndarray:
    """Which places `(H, W, 2)` are in a pixel of an image `(H, W)`."""
    height, width = places.shape[:2]
    inside = (places >= -0.5) & (places < np.array([width, height]) - 0.5)
    return inside[..., 0] & inside[..., 1]


def _grey_pair(cv2: Any, first: np.ndarray, second: np.ndarray) -> list[np.ndarray]:
    """Both images in 8 bits; finer ones are spread over the values that the two have."""
    if first.dtype == np.uint8:
        return [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (first, second)]
    pair = np.stack([first, second]).astype(np.float32)
    low, high = pair.min(), pair.max()
    return list(((pair - low) * (255 / max(high - low, 1e-6))).astype(np.uint8))


def _follow(cv2: Any, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Points `(N, 2)` of the first grey image, where the second one has them, their share, change of brightness."""
    whole = (second.mean() + 1) / (first.mean() + 1)
    # Points are followed by their brightness, so that of the whole image is made equal beforehand.
    equal = np.clip(second / whole, 0, 255).astype(np.uint8)
    points = cv2.goodFeaturesToTrack(first, _POINTS, 0.005, 5)
    if points is None:
        return np.empty((0, 2)), np.empty((0, 2)), 0.0, float(whole)
    options = {"winSize": (17, 17), "maxLevel": 5}
    there, found, _ = cv2.calcOpticalFlowPyrLK(first, equal, points, None, **options)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(equal, first, there, None, **options)
    points, there, back = (values.reshape(-1, 2).astype(np.float64) for values in (points, there, back))
    inside = ((there >= 0) & (there <= np.array(first.shape[::-1]) - 1)).all(axis=1)
    good = inside & (found[:, 0] == 1) & (found_back[:, 0] == 1)
    good &= np.linalg.norm(back - points, axis=1) < _THERE_AND_BACK
    points, there = points[good], there[good]
    if not len(points):
        return points, there, 0.0, float(whole)
    before, after = (_at(cv2.blur(image, (7, 7)), places) for image, places in ((first, points), (second, there)))
    return points, there, float(good.mean()), float(np.median((after + 1) / (before + 1)))


def _at(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    columns, rows = np.round(points).astype(int).T
    return image[rows, columns].astype(np.float64)


def _rotation(cv2: Any, start: np.ndarray, end: np.ndarray, intrinsics: np.ndarray, noise: float) -> np.ndarray:
    """Rotation `(3, 3)` of rays from the first to the second camera."""
    turn = _pure_rotation(_rays(start, intrinsics), _rays(end, intrinsics))

    def left_by(rotation: np.ndarray) -> float:
        return float(np.median(np.linalg.norm(end - _turned(start, rotation, intrinsics), axis=1)))

    if left_by(turn) < noise:
        return turn  # an essential matrix is not determined without a translation
    rays = [_rays(points, intrinsics)[:, :2].copy() for points in (start, end)]
    essential, chosen = cv2.findEssentialMat(
        *rays, np.eye(3), method=cv2.USAC_ACCURATE, prob=0.999, threshold=noise / intrinsics[0, 0]
    )
    if essential is None or essential.shape != (3, 3):
        return turn
    _, rotation, _, _ = cv2.recoverPose(essential, *rays, np.eye(3), mask=chosen)
    return rotation if left_by(rotation) < _WRONG * left_by(turn) else turn


def _pure_rotation(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The rotation that brings rays `(N, 3)` onto others with the least sum of distances, by reweighted squares."""
    start, end = (rays / np.linalg.norm(rays, axis=1, keepdims=True) for rays in (start, end))
    weights = np.ones(len(start))
    for _ in range(20):
        left, _, right = np.linalg.svd((end * weights[:, None]).T @ start)
        rotation = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
        weights = 1 / np.maximum(np.linalg.norm(end - start @ rotation.T, axis=1), 1e-6)
    return rotation


def _rays(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Rays `(N, 3)` of depth 1 through pixels `(N, 2)`."""
    return np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(intrinsics).T


def _turned(points: np.ndarray, rotation: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Where pixels `(N, 2)` go if the camera only turns."""
    rays = _rays(points, intrinsics) @ rotation.T @ intrinsics.T
    return rays[:, :2] / rays[:, 2:]


def _import_cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            'Examining a video needs OpenCV: python -m pip install "opencv-python-headless>=4.10"'
        ) from error
    return cv2
