"""ADE20K SceneParsing."""

from __future__ import annotations

from pathlib import Path

from ..label_spaces import ENCODINGS, LABEL_SPACES
from ..sample import SegmentationSample
from .layout import Missing, OfficialLayout, paired_files, read_labelled

_FOLDER = "ADEChallengeData2016"
_PARTS = {"train": "training", "val": "validation"}


class ADE20K(OfficialLayout):
    """ADE20K SceneParsing (ADEChallengeData2016): photographs of scenes, 150 classes.

    ```
    ROOT/images/training/ADE_train_00000001.jpg         20,210 images; also ROOT/ADEChallengeData2016/images/...
    ROOT/images/validation/ADE_val_00000001.jpg         2,000 images
    ROOT/annotations/training/ADE_train_00000001.png    0 = other, ignored; 1 to 150 = classes 0 to 149
    ```

    Args:
        root: The folder ADEChallengeData2016, or the one that holds it.
        split: `train` or `val`, which the archive calls training and validation.
        missing: `refuse`, or `skip` to leave out images that lack their label map.

    Raises:
        FileNotFoundError: A folder is missing or holds no image, or an image lacks its label map.
        ValueError: An unknown split.

    Source:
        Zhou et al. 2017; github.com/CSAILVision/sceneparsing.
    """

    splits = ("train", "val")
    counts = {"train": 20210, "val": 2000}
    archives = {"image": "ADEChallengeData2016.zip", "label map": "ADEChallengeData2016.zip"}
    label_space = LABEL_SPACES["ade150"]

    def __init__(self, root: str | Path, split: str, missing: Missing = "refuse") -> None:
        self.check_place(root, split)
        images, labels = self.folders_of(root, split)
        folders, suffixes = {"image": images, "label map": labels}, {"image": ".jpg", "label map": ".png"}
        pairs = paired_files(folders, suffixes, self.archives["image"])
        super().__init__(root, split, pairs, missing)

    @classmethod
    def folders_of(cls, root: str | Path, split: str) -> tuple[Path, ...]:
        """Folders of the images and of the label maps."""
        inner = Path(root) / _FOLDER
        base = inner if inner.is_dir() else Path(root)
        return base / "images" / _PARTS[split], base / "annotations" / _PARTS[split]

    def __getitem__(self, index: int) -> SegmentationSample:
        """Image and labels.

        Raises:
            ValueError: A file that cannot be read, a label map of another size, or an id that ADE20K does not have.
        """
        name = self.names[index]
        advice = f"Unpack {self.archives['image']} again: its label maps are PNG files of ids, 0 = other."
        return read_labelled(name, self.files[name], ENCODINGS["ade150"], advice)
