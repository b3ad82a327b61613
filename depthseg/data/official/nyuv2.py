"""NYU Depth V2, the labelled part."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..calibration import resize_intrinsics
from ..label_spaces import ENCODINGS, LABEL_SPACES
from ..sample import SegmentationSample
from .layout import Missing, OfficialLayout, advising
from .matlab import read_matlab5

if TYPE_CHECKING:
    import h5py

MAT_FILE, SPLITS_FILE = "nyu_depth_v2_labeled.mat", "splits.mat"
FULL_SIZE = (480, 640)
VALID_AREA = (slice(44, 471), slice(40, 601))
"""Rows and columns of the 480x640 images in which the depth camera sees anything (`crop_image` of the toolbox)."""
RGB_INTRINSICS = np.array(
    [
        [518.85790117450188, 0, 325.58244941119034],
        [0, 519.46961112127485, 253.73616633400465],
        [0, 0, 1],
    ]
)
"""The RGB camera of NYU Depth V2 at 480x640 (`camera_params.m` of the toolbox), in pixels."""

_SPLIT_KEYS = {"train": "trainNdxs", "test": "testNdxs"}
_NUM_NAMES = 894
_DOWNLOAD = "Download nyu_depth_v2_labeled.mat (2.8 GB) again."
_GET_SPLITS = (
    "Put the file splits.mat of github.com/ankurhanda/nyuv2-meta-data beside the data: without it, training and test "
    "images cannot be told apart."
)


class NYUv2(OfficialLayout):
    """NYU Depth V2, labelled part: 1,449 images of rooms, 640x480, with labels and depth.

    ```
    ROOT/nyu_depth_v2_labeled.mat   HDF5 (MATLAB 7.3), all images, depth maps and labels
    ROOT/splits.mat                 MATLAB 5, trainNdxs and testNdxs, counted from 1
    ```

    Samples are named by their number in the file from 1 on, such as 0003. Needs the package h5py.

    Args:
        root: Folder of the two files, or nyu_depth_v2_labeled.mat itself with splits.mat beside it.
        split: `train` (795) or `test` (654).
        classes: 40 or 13; labels that belong to none of them are ignored.
        depth: `depths`, without holes (in-painted by the authors); `rawDepths`, as measured, 0 = unknown; or `none`.
        crop: Whether images and maps are cut to the 561x427 pixels that the depth camera sees; the rest is a white
            border in many images.
        missing: As in the other data sets; a sample here lacks no file.

    Raises:
        ImportError: h5py is not installed.
        FileNotFoundError: One of the two files is missing.
        ValueError: An unknown split or option, a file that is damaged or lacks a field, or splits that do not fit.

    Source:
        Silberman et al. 2012; the classes as in classMapping40.mat and class13Mapping.mat.
    """

    splits = ("train", "test")
    counts = {"train": 795, "test": 654}

    def __init__(
        self,
        root: str | Path,
        split: str,
        classes: int = 40,
        depth: Literal["depths", "rawDepths", "none"] = "depths",
        crop: bool = False,
        missing: Missing = "refuse",
    ) -> None:
        self.check_place(root, split)
        if classes not in (40, 13):
            raise ValueError(f"classes={classes} is not known; the label maps of NYU Depth V2 have 40 or 13 classes.")
        self.label_space = LABEL_SPACES[f"nyu{classes}"]
        (self._path,) = self.folders_of(root, split)
        if not self._path.is_file():
            raise FileNotFoundError(
                f"{self._path} is missing; the root is the folder of nyu_depth_v2_labeled.mat and splits.mat."
            )
        self._depth, self._crop = depth, crop
        self._file: tuple[int, h5py.File] | None = None
        count = self._check_fields()
        splits = self._path.parent / SPLITS_FILE
        self._numbers = read_splits(splits, count)[split]
        files = {f"{number:04d}": {"data": self._path} for number in self._numbers}
        super().__init__(root, split, files, missing)

    @classmethod
    def folders_of(cls, root: str | Path, split: str) -> tuple[Path, ...]:
        """The file of all images."""
        return (Path(root) if Path(root).suffix == ".mat" else Path(root) / MAT_FILE,)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open file, which no other process may use."""
        return self.__dict__ | {"_file": None}

    def _open(self) -> h5py.File:
        """The file, opened once in each process: HDF5 handles do not survive a fork."""
        if self._file is None or self._file[0] != os.getpid():
            try:
                import h5py
            except ImportError as error:
                raise ImportError(
                    "nyu_depth_v2_labeled.mat is an HDF5 file, which h5py reads: pip install 'depthseg[nyu]'."
                ) from error
            try:
                self._file = os.getpid(), h5py.File(self._path, "r")
            except OSError as error:
                raise ValueError(f"{self._path} is truncated or no HDF5 file: {error}. {_DOWNLOAD}") from error
        return self._file[1]

    def _check_fields(self) -> int:
        """Number of images, after a look at the form of every field that is read."""
        file = self._open()
        depths = [] if self._depth == "none" else [self._depth]
        needed = ["images", "labels", *depths, "names"]
        absent = [name for name in needed if name not in file]
        if absent:
            raise ValueError(
                f"{self._path} lacks the field {' and '.join(absent)}; it has {', '.join(file)}. {_DOWNLOAD}"
            )
        shapes = {name: file[name].shape for name in needed[:-1]}
        count, *rest = shapes["images"]
        others = {shapes[name] for name in needed[1:-1]}
        if len(rest) != 3 or rest[0] != 3 or others != {(count, *rest[1:])}:
            raise ValueError(
                f"{self._path} has fields of the shapes {shapes}; expected (N, 3, width, height) for images and (N, "
                f"width, height) for the others, as h5py shows MATLAB's arrays. {_DOWNLOAD}"
            )
        self._check_size((rest[2], rest[1]))
        self._check_names(file)
        return count

    def _check_size(self, size: tuple[int, int]) -> None:
        if self._crop and size != FULL_SIZE:
            raise ValueError(
                f"crop=true is for images of 640x480, but those of {self._path} are {size[1]}x{size[0]}; leave it out."
            )

    def _check_names(self, file: h5py.File) -> None:
        """Refuse names that are not the 894 ones that the classes are made of."""
        references = file["names"][()].ravel()
        if len(references) != _NUM_NAMES:
            raise ValueError(
                f"{self._path} has {len(references)} names of labels, but the 40 and 13 classes are made of "
                f"{_NUM_NAMES}. {_DOWNLOAD}"
            )
        singles = names_of_single_labels()
        found = {index: "".join(map(chr, file[references[index - 1]][()].ravel())) for index in singles}
        wrong = [index for index in singles if found[index] != singles[index]]
        if 2 * len(wrong) > len(singles):
            raise ValueError(
                f"{self._path} has its names of labels in another order: label {wrong[0]} is {found[wrong[0]]!r}, not "
                f"{singles[wrong[0]]!r}. {_DOWNLOAD}"
            )

    def __getitem__(self, index: int) -> SegmentationSample:
        """Image, labels, depth and intrinsics.

        Raises:
            ValueError: Part of the file cannot be read, or holds values that NYU Depth V2 does not have.
        """
        name = self.names[index]
        number = self._numbers[index]
        image = self._read("images", number).transpose(2, 1, 0)
        ids = self._read("labels", number).T
        place = f"{self._path} (labels of image {number})"
        with advising(_DOWNLOAD):
            assert self.label_space is not None, "this data set has classes"
            labels = ENCODINGS[self.label_space.name].decode(place, ids)
        depth = None if self._depth == "none" else self._metres(number)
        intrinsics = resize_intrinsics(RGB_INTRINSICS, FULL_SIZE, image.shape[:2])
        if self._crop:
            image, labels = image[VALID_AREA], labels[VALID_AREA]
            depth = None if depth is None else np.ascontiguousarray(depth[VALID_AREA])
            intrinsics[:2, 2] -= VALID_AREA[1].start, VALID_AREA[0].start
        return SegmentationSample(
            name=name,
            image=np.ascontiguousarray(image),
            labels=np.ascontiguousarray(labels),
            depth=depth,
            intrinsics=intrinsics,
        )

    def _metres(self, number: int) -> np.ndarray:
        depth = self._read(self._depth, number).T.astype(np.float32)
        known = np.isfinite(depth)
        if (depth[known] < 0).any():
            raise ValueError(
                f"{self._path} holds negative depth in {self._depth} of image {number}, the lowest is "
                f"{depth[known].min():g}. {_DOWNLOAD}"
            )
        return np.ascontiguousarray(np.where(known, depth, np.float32(0)))

    def _read(self, field: str, number: int) -> np.ndarray:
        try:
            return self._open()[field][number - 1]
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{self._path} is damaged: {field} of image {number} cannot be read ({error}). {_DOWNLOAD}"
            ) from error


def read_splits(path: Path, count: int) -> dict[str, list[int]]:
    """Read splits.mat.

    Args:
        path: The file.
        count: Number of images.

    Returns:
        Numbers from 1 to `count` of the images of `train` and `test`, in the order of the file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not of MATLAB 5, lacks a list, or its lists are out of range, repeated or overlap.
    """
    content = read_matlab5(path, _GET_SPLITS)
    numbers: dict[str, list[int]] = {}
    for split, key in _SPLIT_KEYS.items():
        if key not in content or content[key].dtype.kind not in "iuf":
            raise ValueError(f"{path} lacks the list {key} of numbers. {_GET_SPLITS}")
        numbers[split] = content[key].ravel().astype(int).tolist()
        wrong = [number for number in numbers[split] if not 1 <= number <= count]
        if wrong:
            why = " The official lists count from 1." if 0 in wrong else ""
            raise ValueError(
                f"{path} lists image {wrong[0]} in {key}, but the images are 1 to {count}.{why} {_GET_SPLITS}"
            )
        if len(set(numbers[split])) < len(numbers[split]):
            raise ValueError(f"{path} lists an image twice in {key}. {_GET_SPLITS}")
    if both := sorted(set(numbers["train"]) & set(numbers["test"])):
        raise ValueError(f"{path} lists {len(both)} images in both splits, the first is {both[0]}. {_GET_SPLITS}")
    return numbers


def names_of_single_labels() -> dict[int, str]:
    """Of the 40 classes, those that are one of the 894 labels alone: number of the label -> its name."""
    class_ids = list(ENCODINGS["nyu40"].class_ids.values())
    names = LABEL_SPACES["nyu40"].classes
    return {class_ids.index(index): name for index, name in enumerate(names) if class_ids.count(index) == 1}
