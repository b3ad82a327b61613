"""Cityscapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..calibration import Calibration, read_calibration
from ..faults import Fault
from ..images import check_same_size, depth_from_disparity, read_disparity, read_image, read_labels
from ..label_encoding import IGNORED, LabelEncoding
from ..label_spaces import ENCODINGS, LABEL_SPACES
from ..neighbours import steps_of
from ..sample import Sample, sample_of
from .layout import Missing, OfficialLayout, advising

Annotations = Literal["gtFine", "gtCoarse", "none"]
LabelFiles = Literal["labelIds", "labelTrainIds", "instanceIds"]

# The one image whose disparity was never published.
_WITHOUT_DISPARITY = "troisdorf_000000_000073"
_INSTANCES_FROM = 1000
_IMAGE, _ENDINGS = "leftImg8bit.png", {"right image": "rightImg8bit", "camera": "camera", "disparity": "disparity"}
_TRAIN_IDS = LabelEncoding({index: index for index in (*range(19), IGNORED)})


class Cityscapes(OfficialLayout):
    """Cityscapes: 2048x1024 street images, 19 evaluated classes, disparity, right images and cameras.

    ```
    ROOT/leftImg8bit/SPLIT/CITY/CITY_000000_000019_leftImg8bit.png    images
    ROOT/gtFine/SPLIT/CITY/CITY_000000_000019_gtFine_labelIds.png     ids 0 to 33, of which 19 are evaluated
    ROOT/gtCoarse/...                                                 coarse labels of train, val and train_extra
    ROOT/disparity/SPLIT/CITY/CITY_000000_000019_disparity.png        16-bit, (p - 1) / 256 pixels
    ROOT/camera/SPLIT/CITY/CITY_000000_000019_camera.json             intrinsics and baseline of this very frame
    ROOT/rightImg8bit/SPLIT/CITY/CITY_000000_000019_rightImg8bit.png  the right camera
    ROOT/leftImg8bit_sequence/SPLIT/CITY/CITY_000000_000018_leftImg8bit.png  neighbours in time
    ```

    The labels of `test` are not published (its files hold the borders of the images only): its samples have none.

    Args:
        root: Folder that holds leftImg8bit/.
        split: `train`, `val`, `test`, or `train_extra`, which has coarse labels.
        annotations: `gtFine`, `gtCoarse`, or `none` for images without labels. None = gtFine, and gtCoarse for
            train_extra.
        label_files: `labelIds`; `labelTrainIds`, which are not in the archives but made by cityscapesscripts; or
            `instanceIds`, whose classes are used.
        depth: Whether samples have depth, from disparity and camera of the frame.
        max_depth: Depth in metres from which on it is unknown; None = no limit. A disparity of 1/256 pixel, the
            smallest, reads as more than 100 km.
        stereo: Whether samples have the right image.
        intrinsics: Whether samples have the intrinsics; with depth or stereo they have them anyway.
        frames: Offsets of neighbours from leftImg8bit_sequence, such as -1 and 1.
        missing: `refuse`, or `skip` to leave out samples that lack a file.

    Raises:
        FileNotFoundError: A folder is missing or holds no image, or a sample lacks a file.
        ValueError: An unknown split or an option out of range.

    Source:
        Cordts et al. 2016; encodings as in github.com/mcordts/cityscapesScripts; the limit of 300 m as in
        nicr-scene-analysis-datasets.
    """

    splits = ("train", "val", "test", "train_extra")
    counts = {"train": 2975, "val": 500, "test": 1525, "train_extra": 19998}
    archives = {
        "image": "leftImg8bit_{part}.zip",
        "right image": "rightImg8bit_{part}.zip",
        "camera": "camera_{part}.zip",
        "disparity": "disparity_{part}.zip",
        "neighbour": "leftImg8bit_sequence_{part}.zip",
    }
    label_space = LABEL_SPACES["cityscapes19"]

    def __init__(
        self,
        root: str | Path,
        split: str,
        annotations: Annotations | None = None,
        label_files: LabelFiles = "labelIds",
        depth: bool = False,
        max_depth: float | None = 300.0,
        stereo: bool = False,
        intrinsics: bool = False,
        frames: Sequence[int] = (),
        missing: Missing = "refuse",
    ) -> None:
        self.check_place(root, split)
        if max_depth is not None and not max_depth > 0:
            raise ValueError(f"max_depth={max_depth} is out of range; it is metres, above 0.")
        self._label_files, self._max_depth, self._steps = label_files, max_depth, steps_of(frames, 1)
        needs = {"right image": stereo, "camera": depth or stereo or intrinsics, "disparity": depth}
        endings = {what: _ENDINGS[what] for what, needed in needs.items() if needed}
        labels = annotations or ("gtCoarse" if split == "train_extra" else "gtFine")
        ending = None if split == "test" or labels == "none" else f"{labels}_{label_files}.png"
        names = _names_in(Path(root), "leftImg8bit", split, _IMAGE)
        if ending:
            names = sorted({*names, *_names_in(Path(root), labels, split, ending)})
        if not names:
            raise FileNotFoundError(
                f"{Path(root) / 'leftImg8bit' / split} holds no CITY/CITY_000000_000019_{_IMAGE}; unpack "
                f"{self.archive_of('image', Path(root, split))} into {root}."
            )
        left_out = depth and _WITHOUT_DISPARITY in names
        if left_out:
            names.remove(_WITHOUT_DISPARITY)
        files = {name: self._files_of(Path(root), split, name, endings, ending) for name in names}
        super().__init__(root, split, files, missing)
        if left_out:
            self.counts = {**self.counts, split: self.counts[split] - 1}
            self.remarks.append(f"{_WITHOUT_DISPARITY} is left out: its disparity was never published.")

    def _files_of(
        self, root: Path, split: str, name: str, endings: dict[str, str], labels: str | None
    ) -> dict[str, Path]:
        city, *middle, frame = name.split("_")
        inside = Path(split, city)
        files = {"image": root / "leftImg8bit" / inside / f"{name}_{_IMAGE}"}
        if labels:
            files["label map"] = root / labels.split("_")[0] / inside / f"{name}_{labels}"
        for offset, step in self._steps.items():
            neighbour = "_".join([city, *middle, f"{int(frame) + step:06d}", _IMAGE])
            files[f"neighbour {offset:+d}"] = root / "leftImg8bit_sequence" / inside / neighbour
        for what, kind in endings.items():
            files[what] = root / kind / inside / f"{name}_{kind}{'.json' if what == 'camera' else '.png'}"
        return files

    @classmethod
    def folders_of(cls, root: str | Path, split: str) -> tuple[Path, ...]:
        """Folder of the images."""
        return (Path(root) / "leftImg8bit" / split,)

    @classmethod
    def root_hint(cls, root: str | Path, split: str) -> str:
        """As in the other layouts, and whether each archive was unpacked into a folder of its own."""
        kinds = ("leftImg8bit", "leftImg8bit_sequence", "gtFine", "gtCoarse", *_ENDINGS.values())
        found = sorted(path for path in Path(root).glob("*/*/") if path.name in kinds)
        if cls.is_root(Path(root), split) or len({path.parent for path in found}) < 2:
            return super().root_hint(root, split)
        places = ", ".join(str(path) for path in found)
        return f" Each archive is in a folder of its own; move {places} into {root}, folders of one name into one."

    @classmethod
    def options_for(cls, root: str | Path) -> dict[str, Any]:
        """All that the folders below `root` have."""
        camera, disparity, right = ((Path(root) / name).is_dir() for name in ("camera", "disparity", "rightImg8bit"))
        return {"depth": camera and disparity, "stereo": camera and right, "intrinsics": camera}

    @classmethod
    def archive_of(cls, what: str, path: Path) -> str | None:
        """The archive of a file."""
        if what == "label map":
            return "gtCoarse.zip" if "gtCoarse" in path.parts else "gtFine_trainvaltest.zip"
        part = "trainextra" if "train_extra" in path.parts else "trainvaltest"
        return cls.archives[what.split(" ")[0] if what.startswith("neighbour") else what].format(part=part)

    @classmethod
    def _missing_fault(cls, parts: Mapping[str, Path], what: str) -> Fault:
        fault = super()._missing_fault(parts, what)
        kind = fault.path.parents[2]
        apart = next(kind.parent.glob(f"*/{fault.path.relative_to(kind.parent)}"), None)
        if apart is not None:
            advice = f"It is in a folder of its own: move {apart.parents[2]} to {kind}."
        elif fault.path.name.endswith("_labelTrainIds.png"):
            advice = (
                "The archives have no such files: csCreateTrainIdLabelImgs of cityscapesscripts makes them, and "
                "label_files=labelIds does without."
            )
        else:
            return fault
        return Fault(fault.path, f"{fault.sentence.partition(' Unpack ')[0]} {advice}", fault.kind)

    def __getitem__(self, index: int) -> Sample:
        """The image and all that was asked for.

        Returns:
            A `SegmentationSample` where there are labels, else a `DepthSample` or a `VideoSample` as it fits.

        Raises:
            ValueError: A file that cannot be read, has another size than its image, or values that Cityscapes does
                not have.
        """
        name = self.names[index]
        files = self.files[name]
        image = self._image("image", files)
        camera = self._camera(files["camera"], image.shape[:2]) if "camera" in files else None
        found: dict[str, Any] = {}
        if camera is not None:
            found["intrinsics"] = camera.intrinsics
        if "right image" in files:
            assert camera is not None, "a right image is read with its camera"
            found |= {"stereo": self._image("right image", files, image), "stereo_x": camera.baseline}
        if self._steps:
            found["frames"] = {step: self._image(f"neighbour {step:+d}", files, image) for step in self._steps}
        if "label map" in files:
            path = files["label map"]
            with advising(f"The label maps are in {self.archive_of('label map', path)}."):
                found["labels"] = read_cityscapes_labels(path, self._label_files)
                check_same_size(files["image"], image, path, found["labels"])
        if "disparity" in files:
            assert camera is not None, "disparity is read with its camera"
            found["depth"] = self._depth(files, image, camera)
        return sample_of(name=name, image=image, **found)

    def _image(self, what: str, files: Mapping[str, Path], image: np.ndarray | None = None) -> np.ndarray:
        """An image of a sample, of the same size as its own where that is given."""
        with advising(f"Unpack {self.archive_of(what, files[what])} again."):
            found = read_image(files[what])
            if image is not None:
                check_same_size(files["image"], image, files[what], found)
        return found

    def _camera(self, path: Path, size: tuple[int, int]) -> Calibration:
        with advising(f"Unpack {self.archive_of('camera', path)} again."):
            camera = read_calibration(path)
            if camera.baseline is None:
                raise ValueError(f"{path} must say the baseline in metres under extrinsic.")
        camera.for_size(size)
        return camera

    def _depth(self, files: Mapping[str, Path], image: np.ndarray, camera: Calibration) -> np.ndarray:
        path = files["disparity"]
        with advising(f"Unpack {self.archive_of('disparity', path)} again."):
            disparity = read_disparity(path, "cityscapes")
            check_same_size(files["image"], image, path, disparity)
        depth = depth_from_disparity(disparity, camera.intrinsics[0, 0] * camera.baseline)
        return depth if self._max_depth is None else np.where(depth > self._max_depth, np.float32(0), depth)


def read_cityscapes_labels(path: str | Path, label_files: LabelFiles = "labelIds") -> np.ndarray:
    """Read a label map of Cityscapes.

    Args:
        path: The file.
        label_files: What it holds: `labelIds`, `labelTrainIds`, or `instanceIds` = labelIds, or 1000 times them plus
            the number of the instance.

    Returns:
        uint8 `(H, W)`, ids of the 19 classes, 255 = ignored.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Colours, an instance map in place of a label map, or ids that Cityscapes does not have.
    """
    with advising(f"The ids are in the file that ends in _{label_files}.png; unpack it again."):
        values = read_labels(path)
    if label_files == "instanceIds":
        values = classes_of_instances(values)
    elif values.max() >= _INSTANCES_FROM:
        raise ValueError(
            f"{path} is an instance map (class x 1000 + instance), not a label map. Unpack the file again, or give "
            "label_files=instanceIds to read the classes from the files that end in _instanceIds.png."
        )
    encoding = _TRAIN_IDS if label_files == "labelTrainIds" else ENCODINGS["cityscapes19"]
    with advising(
        f"They are not {label_files}. Unpack the file again, or say with label_files what the files hold: labelIds, "
        "labelTrainIds or instanceIds."
    ):
        return encoding.decode(path, values)


def classes_of_instances(values: np.ndarray) -> np.ndarray:
    """The labelIds of an instance map of Cityscapes: `class * 1000 + instance`, or the class where nothing is counted.

    Args:
        values: Integers `(H, W)`.
    """
    return np.where(values >= _INSTANCES_FROM, values // _INSTANCES_FROM, values)


def _names_in(root: Path, kind: str, split: str, ending: str) -> list[str]:
    """Names of the samples that have a file of one kind, such as aachen_000000_000019."""

    def found() -> Iterator[str]:
        for path in (root / kind / split).glob(f"*/*_{ending}"):
            name = path.name.removesuffix(f"_{ending}")
            if name.count("_") == 2 and name.rpartition("_")[2].isdigit():
                yield name

    return sorted(found())
