"""Data sets with the defects of the released code."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ...data import LabelSpace
from ...data.label_encoding import IGNORED
from ...data.label_spaces import default_palette
from ...data.subsets import Subset, few_shot_names
from ...data.transforms import resize_nearest
from ...engine.build import build_datasets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...data import Sample, SampleDataset
    from ...engine.options import DataOptions
    from .switches import Switched


class _Around:
    """A data set whose samples are changed; what else it has is that of the data set."""

    def __init__(self, dataset: SampleDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        return self.change(self._dataset[index])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying and pickling ask for these before there is a data set
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def change(self, sample: Sample) -> Sample:
        """The sample as it is used."""
        return sample


class BicubicLabels(_Around):
    """Images and label maps at another size, both resized as grey values with Pillow's bicubic filter.

    Pixels without a label take part under the id after the last class, as in label files. What is no class afterwards
    has no label.

    Args:
        dataset: With labels and images of 8 bits.
        size: Height and width.
    """

    def __init__(self, dataset: SampleDataset, size: Sequence[int]) -> None:
        super().__init__(dataset)
        self._size = tuple(size)

    def change(self, sample: Sample) -> Sample:
        """The sample with image and labels resized, depth by the nearest pixel, and nothing else."""
        if sample.image.dtype != np.uint8:
            raise ValueError(f"The switch label_resize takes images of 8 bits; {sample.name!r} has more.")
        classes = len(self.label_space.classes)
        ids = np.where(sample.labels == IGNORED, classes, sample.labels).astype(np.uint8)
        resized = _bicubic(ids, self._size)
        return replace(
            sample,
            image=_bicubic(sample.image, self._size),
            labels=np.where(resized < classes, resized, IGNORED).astype(np.uint8),
            depth=None if sample.depth is None else resize_nearest(sample.depth, self._size),
        )


def _bicubic(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.array(Image.fromarray(values).resize(size[::-1], Image.Resampling.BICUBIC))


class UnusedClasses(_Around):
    """A data set whose label space has further classes, which no pixel shows.

    Args:
        dataset: With a label space.
        outputs: Number of all classes.

    Raises:
        ValueError: There are more classes already, or one against a background.
    """

    def __init__(self, dataset: SampleDataset, outputs: int) -> None:
        super().__init__(dataset)
        space = dataset.label_space
        if space.one_class or space.num_labels > outputs:
            raise ValueError(
                f"The switch num_outputs has {outputs} outputs, but label space {space.name!r} has "
                f"{space.num_labels} {'class and a background' if space.one_class else 'classes'}: set "
                "defects.num_outputs.settings.outputs to more than all classes, or leave the switch out."
            )
        more = range(space.num_labels, outputs)
        self.label_space = LabelSpace(
            f"{space.name}_of_{outputs}",
            (*space.classes, *(f"never labelled {index}" for index in more)),
            (*space.palette, *default_palette(outputs)[space.num_labels :]),
            space.ignore_index,
        )


class EarlierImages(_Around):
    """A data set whose images are those of another moment than their depth maps.

    Args:
        dataset: Whose samples bring that frame along.
        offset: Its offset in time, such as -1.
    """

    def __init__(self, dataset: SampleDataset, offset: int) -> None:
        super().__init__(dataset)
        self._offset = offset

    def change(self, sample: Sample) -> Sample:
        """The sample with the image of the other frame, and without frames."""
        return replace(sample, image=sample.frames[self._offset], frames={})


def datasets_with(data: DataOptions, switched: Switched) -> tuple[SampleDataset, SampleDataset]:
    """What a run with switches trains on, before `data.subset_size` applies, and what it is evaluated on.

    Images to evaluate on are those without switches; with further classes the label space has them, too.
    """
    train_set, test_set = build_datasets(replace(data, subset_size=0))
    if "subset" in switched:
        train_set = Subset(train_set, train_set.names[: data.subset_size])
    if "label_resize" in switched:
        train_set = BicubicLabels(train_set, data.size)
    if "nyu_image" in switched:
        train_set = EarlierImages(train_set, switched["nyu_image"]["offset"])
    if "num_outputs" in switched:
        outputs = switched["num_outputs"]["outputs"]
        train_set, test_set = UnusedClasses(train_set, outputs), UnusedClasses(test_set, outputs)
    return train_set, test_set


def scored_set(data: DataOptions, switched: Switched) -> SampleDataset:
    """What the released code evaluates such a run on."""
    pool, test_set = build_datasets(replace(data, subset_size=0))
    if "test_set" in switched:
        size = data.subset_size
        trained = pool.names[:size] if "subset" in switched else few_shot_names(pool.names, size, data.subset_seed)
        test_set = Subset(pool, [name for name in pool.names if name not in set(trained)])
    return BicubicLabels(test_set, data.size) if "label_resize" in switched else test_set
