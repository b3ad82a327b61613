"""What all data sets in their official layout have in common: which files a sample has, and what is missing."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...choices import did_you_mean
from ..faults import Fault, grouped
from ..image_folders import LABEL_SUFFIXES, image_files
from ..images import check_same_size, read_image, read_labels
from ..sample import SegmentationSample

if TYPE_CHECKING:
    from ..label_encoding import LabelEncoding
    from ..label_spaces import LabelSpace

Missing = Literal["refuse", "skip"]
"""What to do with samples that lack a file: refuse the data set, or leave them out."""


class OfficialLayout:
    """A data set in its official layout.

    Args:
        root: Folder that the archives were unpacked into.
        split: One of `splits`.
        files: By name of the sample: what -> its file, such as `image` and `label map`. Every file must exist.
        missing: `refuse`, or `skip` to leave out samples that lack a file.
        faults: What else is missing, such as a folder of many samples.

    Attributes:
        splits: Names of the splits.
        checked_splits: Those that hold every sample once, for `check_dataset`; empty = all splits.
        counts: Official number of samples of a split, where it is fixed.
        archives: What -> the archive that it comes in.
        label_space: Its classes; None where it has none.
        root: As given.
        files: Those of the samples that lack nothing.
        names: Their names, in the order of `files`.
        num_found: Number of samples, with those that lack a file.
        missing: A fault for each file that does not exist.
        remarks: Sentences on what is worth knowing but not wrong, for `check_dataset`.

    Raises:
        ValueError: An unknown split.
        FileNotFoundError: A file is missing, or every one of them.
    """

    splits: ClassVar[tuple[str, ...]] = ()
    checked_splits: ClassVar[tuple[str, ...]] = ()
    counts: Mapping[str, int] = {}
    archives: ClassVar[Mapping[str, str]] = {}
    label_space: LabelSpace | None = None

    def __init__(
        self,
        root: str | Path,
        split: str,
        files: Mapping[str, Mapping[str, Path]],
        missing: Missing = "refuse",
        faults: Sequence[Fault] = (),
    ) -> None:
        self.root = Path(root)
        self.missing: list[Fault] = list(faults)
        self.remarks: list[str] = []
        self.files: dict[str, Mapping[str, Path]] = {}
        self.num_found = len(files)
        for name, parts in files.items():
            absent = [what for what, path in parts.items() if not path.is_file()]
            self.missing += [self._missing_fault(parts, what) for what in absent]
            if not absent:
                self.files[name] = parts
        self.names = list(self.files)
        if self.missing and missing == "refuse":
            skip = f" With the option missing=skip, the {len(self.names)} complete samples are used."
            raise FileNotFoundError(" ".join(grouped(self.missing)) + skip * bool(self.names))
        if not self.names:
            raise FileNotFoundError(" ".join([f"The split {split!r} of {root} is empty.", *grouped(self.missing)]))

    @classmethod
    def folders_of(cls, root: str | Path, split: str) -> tuple[Path, ...]:
        """The folders that a split is read from: where one of them exists, the split is there."""
        raise NotImplementedError

    @classmethod
    def options_for(cls, root: str | Path) -> dict[str, Any]:
        """Options with which `check_dataset` reads all that is there; those that a user gives go before them."""
        return {}

    @classmethod
    def check_split(cls, split: str) -> None:
        """Refuse a split that the data set does not have."""
        if split not in cls.splits:
            raise ValueError(
                f"{cls.__name__} has no split {split!r}.{did_you_mean(split, cls.splits)} Its splits are "
                f"{', '.join(cls.splits)}."
            )

    @classmethod
    def check_place(cls, root: str | Path, split: str) -> None:
        """Refuse a split that the data set does not have, and a root where a folder near it is the right one."""
        cls.check_split(split)
        if hint := cls.root_hint(root, split):
            raise FileNotFoundError(f"{root} is not the root of {cls.__name__}.{hint}")

    @classmethod
    def is_root(cls, root: Path, split: str) -> bool:
        """Whether a folder holds all that a split is read from."""
        return all(folder.exists() for folder in cls.folders_of(root, split))

    @classmethod
    def root_hint(cls, root: str | Path, split: str) -> str:
        """A sentence on where the root is, if that is near the folder that was given; else nothing."""
        if cls.is_root(Path(root), split):
            return ""
        return nearby_root(root, lambda folder: cls.is_root(folder, split))

    @classmethod
    def archive_of(cls, what: str, path: Path) -> str | None:
        """The archive that a file comes in; None if it is not known."""
        return cls.archives.get(what)

    @classmethod
    def _missing_fault(cls, parts: Mapping[str, Path], what: str) -> Fault:
        path = parts[what]
        owner = next((other for other in parts.values() if other.is_file()), None)
        lacks = f"{owner} has no {what}: {path} is missing." if owner else f"{path} is missing."
        if other_format := next(path.parent.glob(f"{glob.escape(path.stem)}.*"), None):
            remedy = f"convert it to {path.suffix}"
            if other_format.suffix.lower() == path.suffix:
                remedy = f"rename it to {path.suffix}"
            elif what == "label map" and other_format.suffix.lower() not in LABEL_SUFFIXES:
                remedy = f"its format alters class ids, which a conversion does not bring back: take the {path.suffix}"
            lacks += f" {other_format} is not read; {remedy}."
        elif archive := cls.archive_of(what, path):
            lacks += f" Unpack {archive} again."
        return Fault(path, lacks, ("missing", what, path.parent))

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.names)


def nearby_root(root: str | Path, is_root: Callable[[Path], object]) -> str:
    """A sentence, after a space, on the root that is up to two folders above or below one that is not; or nothing."""
    given = Path(root).absolute()
    above = [folder for folder in given.parents[:2] if is_root(folder)]
    below = [folder for pattern in ("*/", "*/*/") for folder in sorted(given.glob(pattern)) if is_root(folder)]
    return f" Did you mean {(above or below)[0]}? Give it as the root." if above or below else ""


@contextmanager
def advising(sentence: str) -> Iterator[None]:
    """Add what to do to the message of a file that cannot be used; the error stays the same object."""
    try:
        yield
    except ValueError as error:
        error.args = (f"{error} {sentence}",)
        raise


def read_labelled(name: str, files: Mapping[str, Path], encoding: LabelEncoding, advice: str) -> SegmentationSample:
    """Image and labels of a sample of two files, the image first.

    Args:
        name: Of the sample.
        files: What -> its file.
        encoding: Of the label map.
        advice: What to do about a file that cannot be used, a sentence.

    Raises:
        ValueError: A file that cannot be read, a label map of another size, or an id that the encoding does not have.
    """
    image_path, path = files.values()
    with advising(advice):
        image = read_image(image_path)
        labels = encoding.decode(path, read_labels(path))
        check_same_size(image_path, image, path, labels)
    return SegmentationSample(name=name, image=image, labels=labels)


def paired_files(folders: Mapping[str, Path], suffixes: Mapping[str, str], archive: str) -> dict[str, dict[str, Path]]:
    """The files of folders that name the same sample alike.

    A name that is in one folder only is a sample that lacks a file, and so is an image of another format.

    Args:
        folders: What -> its folder, `image` first.
        suffixes: What -> the ending of its files; upper case counts as well.
        archive: What the folders come in.

    Returns:
        By name: what -> its file, for `OfficialLayout`.

    Raises:
        FileNotFoundError: A folder is missing or holds no image.
        ValueError: Two files of a folder differ only in their ending.
    """
    for folder in folders.values():
        if not folder.is_dir():
            raise FileNotFoundError(
                f"The folder {folder} does not exist. Unpack {archive} again, or correct the root of the data set."
            )
    found = {what: image_files(folder) for what, folder in folders.items()}
    names = sorted(set().union(*found.values()))

    def file_of(what: str, name: str) -> Path:
        """The file that is there, or the one that should be."""
        path, expected = found[what].get(name), folders[what] / f"{name}{suffixes[what]}"
        return path if path is not None and path.suffix.lower() == expected.suffix else expected

    return {name: {what: file_of(what, name) for what in folders} for name in names}
