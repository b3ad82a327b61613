"""The depth benchmark of KITTI, in small; its root holds KITTI raw as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..images import KITTI_DEPTH_SCALE
from .kitti_raw import DRIVES, drive_frame, write_kitti_raw
from .scenes import save, write_bytes


def write_kitti_depth(out: Path, count: int, size: tuple[int, int]) -> None:
    """Write `train/`, `val/` and `depth_selection/`, and KITTI raw in `raw/`.

    The first and the last frame of every drive have no map.
    """
    write_kitti_raw(out / "raw", count, size)
    selection = out / "depth_selection"
    for drive in DRIVES:
        for number in range(1, count + 1):
            for right in (False, True):
                found = drive_frame(drive, number, size, ("image", "depth", "intrinsics"), right)
                camera, depth = f"image_{2 + right:02d}", encode_depth(found["depth"])
                sweep = depth.copy()
                sweep[::2] = 0
                maps = out / drive.part / drive.name / "proj_depth"
                save(maps / "groundtruth" / camera / f"{number:010d}.png", depth)
                save(maps / "velodyne_raw" / camera / f"{number:010d}.png", sweep)
                if drive.part == "val":
                    files = {"image": found["image"], "groundtruth_depth": depth, "velodyne_raw": sweep}
                    _select(selection, f"{drive.name}_{{}}_{number:010d}_{camera}", files, found["intrinsics"])
        if drive.part == "val":
            _write_tests(selection, drive.name, count)


def encode_depth(depth: np.ndarray) -> np.ndarray:
    """uint16 `(H, W)`: metres x 256, 0 = unknown."""
    return np.round(np.minimum(depth * KITTI_DEPTH_SCALE, 65535)).astype(np.uint16)


def _select(selection: Path, name: str, files: dict[str, np.ndarray], intrinsics: np.ndarray) -> None:
    """Write one image of the selection; of the largest even size, since the genuine one is cropped."""
    folder = selection / "val_selection_cropped"
    for part, values in files.items():
        height, width = (number // 2 * 2 for number in values.shape[:2])
        save(folder / part / f"{name.format(part)}.png", values[:height, :width])
    text = folder / "intrinsics" / f"{name.format('image')}.txt"
    write_bytes(text, (" ".join(f"{value:.6f}" for value in intrinsics.ravel()) + "\n").encode())


def _write_tests(selection: Path, drive: str, count: int) -> None:
    """Both anonymous test sets, of the images of the selection."""
    cropped = selection / "val_selection_cropped"
    for test, parts in (("completion", ("image", "velodyne_raw")), ("prediction", ("image",))):
        folder = selection / f"test_depth_{test}_anonymous"
        for number in range(count):
            name = f"{drive}_{{}}_{number + 1:010d}_image_02"
            for part in parts:
                values = np.asarray(Image.open(cropped / part / f"{name.format(part)}.png"))
                save(folder / part / f"{number:010d}.png", values)
            text = (cropped / "intrinsics" / f"{name.format('image')}.txt").read_bytes()
            write_bytes(folder / "intrinsics" / f"{number:010d}.txt", text)
