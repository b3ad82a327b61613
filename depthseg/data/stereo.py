"""Rectified stereo pairs, with true disparity where there is any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .calibration import Calibration, read_calibration
from .clips import natural_order
from .folder import divide_in_order
from .image_folders import MapFiles, image_files
from .images import check_same_size, depth_from_disparity, read_disparity, read_image
from .neighbours import span_of, steps_of, with_neighbours
from .sample import Sample

if TYPE_CHECKING:
    from .label_spaces import LabelSpace


class StereoPairs:
    """Images of a left camera, each with that of a right camera beside it.

    ```
    ROOT/left/NAME.png       or .jpg or another ending of `IMAGE_SUFFIXES`
    ROOT/right/NAME.png      the same names and sizes; rectified: a point lies in one row of both
    ROOT/disparity/NAME.*    optional; 16-bit PNG or TIFF of pixels x 256, or pixels as .npy, .npz, .pfm; 0, NaN
                             or infinite = unknown
    ROOT/calib.txt           optional, two projection matrices as in KITTI, or another form of `read_calibration`
    ```

    The left pixel (x, y) is the right pixel (x - disparity, y), and depth = fx * baseline / disparity.

    Without a calibration and without `focal` and `baseline`, the focal length is taken for the width of the image
    and the baseline for 1: depth is then in units of the baseline, and off by the factor between the guessed focal
    length and the true one. Disparity = fx * baseline / depth is right all the same.

    Images of a video can bring their neighbours in time along, for training on both.

    Args:
        root: The folder.
        split: `train`, `val` or `all`.
        frames: Offsets of neighbours of the left image, in steps of `stride` along the natural order of the names.
        stride: Images from one step to the next.
        calibration: File of the cameras, looked for in `root` first; None = `calib.txt` if there is one.
        baseline: Distance of the cameras in metres; goes before that of the calibration.
        focal: Focal length in pixels where there is no calibration; the principal point is the middle.
        val_fraction: Share of `val`, the last pairs by name; 0 = `train` and `val` are both everything: scores then
            show a fit, not how well anything generalises.
        value_range: Pixel values `[low, high]` of black and white in images of more than 8 bits, for training; None =
            found in the images, see `find_value_range`.

    Raises:
        FileNotFoundError: A folder or the partner of an image is missing.
        ValueError: An option out of range, or a calibration that cannot be used.
    """

    splits = ("train", "val", "all")

    def __init__(
        self,
        root: str | Path,
        split: str = "all",
        *,
        frames: Sequence[int] = (),
        stride: int = 1,
        calibration: str | Path | None = None,
        baseline: float | None = None,
        focal: float | None = None,
        val_fraction: float = 0.0,
        value_range: Sequence[float] | None = None,
    ) -> None:
        self._root = Path(root)
        self.value_range = value_range
        for name, value in (("baseline", baseline), ("focal", focal)):
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value} is out of range; it must be above 0.")
        self._left, self._right = (image_files(self._root / side) for side in ("left", "right"))
        for name in sorted(self._left.keys() ^ self._right.keys()):
            path, other = (self._left[name], "right") if name in self._left else (self._right[name], "left")
            raise FileNotFoundError(f"{path} has no partner of the same name in {self._root / other}.")
        self._disparities = MapFiles(self._root / "disparity")
        self.label_space: LabelSpace | None = None
        self._steps = steps_of(frames, stride)
        self._order = sorted(self._left, key=natural_order)
        numbers = divide_in_order(range(len(self._order)), split, val_fraction)
        self._numbers = with_neighbours(numbers, self._steps)
        self.names = [self._order[number] for number in self._numbers]
        if not self.names:
            raise ValueError(
                f"The split {split!r} of {self._root} is empty: val_fraction={val_fraction:g} of {len(self._left)} "
                f"pairs leaves nothing for it, as a sample takes {span_of(self._steps)} in a row. Change "
                "val_fraction, frames or stride."
            )
        self._calibration = self._find_calibration(calibration)
        if self._calibration is not None and focal is not None:
            raise ValueError(f"focal={focal} and {self._calibration.path} both say the focal length; give one.")
        self._focal = focal
        self._baseline = baseline or (self._calibration.baseline if self._calibration else None) or 1.0

    def _find_calibration(self, given: str | Path | None) -> Calibration | None:
        path = self._root / ("calib.txt" if given is None else given)
        if given is None and not path.is_file():
            return None
        return read_calibration(path if given is None or path.is_file() else Path(given))

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """The left image, with the right one as `stereo`, and depth where there is true disparity.

        Raises:
            ValueError: A file cannot be read or does not fit its left image.
        """
        name = self.names[index]
        paths = self._left[name], self._right[name]
        left, right = map(read_image, paths)
        check_same_size(paths[0], left, paths[1], right)
        intrinsics = self._intrinsics(left.shape[:2])
        depth = None
        if path := self._disparities.find(name):
            disparity = read_disparity(path)
            check_same_size(paths[0], left, path, disparity)
            depth = depth_from_disparity(disparity, intrinsics[0, 0] * self._baseline)
        return Sample(
            name=name,
            image=left,
            depth=depth,
            frames={offset: self._neighbour(index, step, left) for offset, step in self._steps.items()},
            stereo=right,
            stereo_x=self._baseline,
            intrinsics=intrinsics,
        )

    def has_depth(self, index: int) -> bool:
        """Whether a pair has a file of true disparity."""
        return self._disparities.find(self.names[index]) is not None

    def _neighbour(self, index: int, step: int, left: np.ndarray) -> np.ndarray:
        path = self._left[self._order[self._numbers[index] + step]]
        image = read_image(path)
        check_same_size(self._left[self.names[index]], left, path, image)
        return image

    def _intrinsics(self, size: tuple[int, int]) -> np.ndarray:
        if self._calibration is not None:
            return self._calibration.for_size(size)
        height, width = size
        focal = self._focal or width
        return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], dtype=np.float64)
