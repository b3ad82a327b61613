"""Pascal VOC 2012, with the additional training labels of SBD."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..decoded import decoded_once
from ..faults import Fault
from ..images import check_same_size, read_image, read_labels
from ..label_encoding import IGNORED, LabelEncoding
from ..label_spaces import ENCODINGS, LABEL_SPACES
from ..sample import SegmentationSample
from .layout import Missing, OfficialLayout, advising
from .matlab import read_matlab5

_ENCODING = LabelEncoding({**ENCODINGS["voc21"].class_ids, IGNORED: IGNORED})
_ARCHIVE = "VOCtrainval_11-May-2012.tar"
_SBD_ARCHIVE = "benchmark.tgz (SBD)"
_SBD_PLACES = ("benchmark_RELEASE/dataset", "benchmark_RELEASE", "SBD", "sbd", "dataset")


class PascalVOC(OfficialLayout):
    """Pascal VOC 2012 segmentation: photographs, 20 classes and a background.

    ```
    ROOT/VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg
    ROOT/VOCdevkit/VOC2012/SegmentationClass/2007_000032.png       palette PNG, index = class, 255 = border, ignored
    ROOT/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt        names; also val.txt, trainval.txt
    ROOT/VOCdevkit/VOC2012/SegmentationClassAug/2008_000002.png    optional: SBD's labels as PNG
    ROOT/benchmark_RELEASE/dataset/cls/2008_000002.mat             optional: SBD; train.txt and val.txt beside cls/
    ```

    `trainaug` is (VOC train + SBD train + SBD val) - VOC val, 10,582 images. Its labels are those of VOC for the 1,464
    images of train, which have the border, and those of SBD for the others: of SegmentationClassAug/ where that folder
    is, else of cls/. Without SBD's lists, the images of SegmentationClassAug/ take their place.

    Args:
        root: The folder VOC2012, VOCdevkit, or the one that holds VOCdevkit.
        split: `train`, `val`, `trainval` or `trainaug`.
        sbd_root: Folder of SBD, for trainaug; None = looked for in and beside VOCdevkit.
        missing: `refuse`, or `skip` to leave out images that lack a file.

    Raises:
        FileNotFoundError: A folder or list is missing, or an image or label map that a list names.
        ValueError: An unknown split, or a folder sbd_root without cls/.

    Source:
        Everingham et al. 2012; Hariharan et al. 2011 (SBD).
    """

    splits = ("train", "val", "trainval", "trainaug")
    counts = {"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582}
    archives = {"image": _ARCHIVE, "label map": _ARCHIVE, "SBD label map": _SBD_ARCHIVE}
    label_space = LABEL_SPACES["voc21"]

    def __init__(
        self, root: str | Path, split: str, sbd_root: str | Path | None = None, missing: Missing = "refuse"
    ) -> None:
        self.check_place(root, split)
        base = _voc_folder(root)
        for folder in (base / "JPEGImages", base / "SegmentationClass"):
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"The folder {folder} does not exist; the root is VOC2012, VOCdevkit or the folder that holds it. "
                    f"Unpack {_ARCHIVE} there."
                )
        if split == "trainaug":
            labels = _trainaug_labels(base, None if sbd_root is None else Path(sbd_root))
        else:
            names = _read_list(base, split)
            labels = {name: ("label map", base / "SegmentationClass" / f"{name}.png") for name in names}
        files = {
            name: {"image": base / "JPEGImages" / f"{name}.jpg", what: path} for name, (what, path) in labels.items()
        }
        unknown = [name for name, parts in files.items() if not any(path.is_file() for path in parts.values())]
        faults = [_unknown_fault(base, split, files.pop(name)["image"]) for name in unknown]
        super().__init__(root, split, files, missing, faults)

    @classmethod
    def folders_of(cls, root: str | Path, split: str) -> tuple[Path, ...]:
        """The folder VOC2012; for trainaug where its labels come from."""
        base = _voc_folder(root)
        if split != "trainaug":
            return (base,)
        return (_find_sbd(base, None) or base / "SegmentationClassAug",)

    @classmethod
    def is_root(cls, root: Path, split: str) -> bool:
        """Whether a folder holds the images."""
        return (_voc_folder(root) / "JPEGImages").is_dir()

    def __getitem__(self, index: int) -> SegmentationSample:
        """Image and labels.

        Raises:
            ValueError: A file that cannot be read, a label map of another size, or an id that VOC does not have.
        """
        name = self.names[index]
        image_path, path = self.files[name].values()
        with advising(f"Unpack {_ARCHIVE} again."):
            image = read_image(image_path)
        if path.suffix == ".mat":
            archive, values = _SBD_ARCHIVE, read_sbd_labels(path)
        else:
            archive = _ARCHIVE if path.parent.name == "SegmentationClass" else "the archive of SegmentationClassAug"
            with advising(f"Unpack {archive} again: its label maps are palette PNG files."):
                values = read_labels(path)
        with advising(f"Unpack {archive} again."):
            labels = _ENCODING.decode(path, values)
            check_same_size(image_path, image, path, labels)
        return SegmentationSample(name=name, image=image, labels=labels)


def trainaug_names(
    train: Iterable[str], val: Iterable[str], sbd_train: Iterable[str], sbd_val: Iterable[str] = ()
) -> list[str]:
    """Names of trainaug, sorted: (VOC train + SBD train + SBD val) - VOC val."""
    return sorted({*train, *sbd_train, *sbd_val} - {*val})


@decoded_once
def read_sbd_labels(path: str | Path) -> np.ndarray:
    """Read a file of SBD's cls/.

    Returns:
        uint8 `(H, W)`, ids 0 to 20.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or has no GTcls.Segmentation.
    """
    again = f"Unpack {_SBD_ARCHIVE} again."
    content = read_matlab5(path, again)
    try:
        values = np.asarray(content["GTcls"]["Segmentation"].ravel()[0])
    except (KeyError, ValueError, IndexError):
        fields = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise ValueError(
            f"{path} has no GTcls with a Segmentation, but {fields}: the labels are in cls/, not in inst/. {again}"
        ) from None
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise ValueError(f"{path} holds an array {values.shape} of {values.dtype}, but labels are ids (H, W). {again}")
    return values


def _voc_folder(root: str | Path) -> Path:
    root = Path(root)
    places = (root / "VOCdevkit" / "VOC2012", root / "VOC2012")
    return next((place for place in places if place.is_dir()), root)


def _read_list(base: Path, split: str) -> list[str]:
    path = base / "ImageSets" / "Segmentation" / f"{split}.txt"
    return _names_of(path, f"Unpack {_ARCHIVE} again.")


def _names_of(path: Path, advice: str) -> list[str]:
    """Names of the images of a list, one a line; lists of paths will do."""
    if not path.is_file():
        raise FileNotFoundError(f"The list {path} is missing. {advice}")
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    names = [Path(line.split()[0]).stem for line in lines if line.strip()]
    if not names:
        raise FileNotFoundError(f"The list {path} is empty. {advice}")
    return names


def _trainaug_labels(base: Path, given: Path | None) -> dict[str, tuple[str, Path]]:
    """By name: what its label map is called, and the file."""
    train, val = _read_list(base, "train"), _read_list(base, "val")
    sbd, pngs = _find_sbd(base, given), base / "SegmentationClassAug"
    if sbd is None and given is not None:
        raise ValueError(f"sbd_root={given} has no folder cls/; give the folder that {_SBD_ARCHIVE} unpacks into.")
    if sbd is None and not pngs.is_dir():
        raise FileNotFoundError(
            f"The split 'trainaug' needs the labels of SBD, but neither {pngs} nor benchmark_RELEASE/ beside "
            f"VOCdevkit exists. Unpack {_SBD_ARCHIVE} there, or give its folder as sbd_root."
        )
    if sbd is not None:
        lists = [_names_of(sbd / f"{part}.txt", f"Unpack {_SBD_ARCHIVE} again.") for part in ("train", "val")]
    else:
        lists = [[path.stem for path in pngs.glob("[!.]*.png")]]
    own = set(train)

    def label_map(name: str) -> tuple[str, Path]:
        if name in own:
            return "label map", base / "SegmentationClass" / f"{name}.png"
        return "SBD label map", pngs / f"{name}.png" if sbd is None or pngs.is_dir() else sbd / "cls" / f"{name}.mat"

    return {name: label_map(name) for name in trainaug_names(train, val, *lists)}


def _find_sbd(base: Path, given: Path | None) -> Path | None:
    """The folder of SBD that holds cls/."""
    if given is not None:
        places = [given, *(given / place for place in _SBD_PLACES)]
    else:
        places = [folder / place for folder in (base, base.parent, base.parent.parent) for place in _SBD_PLACES]
    return next((place for place in places if (place / "cls").is_dir()), None)


def _unknown_fault(base: Path, split: str, image: Path) -> Fault:
    listed = base / "ImageSets" / "Segmentation" / f"{split}.txt" if split != "trainaug" else "trainaug"
    sentence = (
        f"{listed} lists {image.stem!r}, but {image} and its label map are missing. Unpack {_ARCHIVE} again, or "
        "remove the line."
    )
    return Fault(image, sentence, ("unknown", split))
