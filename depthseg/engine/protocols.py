"""Evaluation protocols of segmentation: what is compared with what, and how the images' counts become a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..choices import PROTOCOLS, did_you_mean
from ..data.label_encoding import IGNORED
from ..data.label_spaces import LABEL_SPACES
from ..metrics import ConfusionMatrix
from ..metrics.reductions import scores_of_images
from ..metrics.stamp import IMAGE_MEAN, Stamp, file_ids_of, label_space_hash
from .evaluation import class_meter, stamp_of
from .inference import Inference, Predictor
from .predict import label_space_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data import LabelSpace, Sample, SampleDataset

PAPER_SIZE, PAPER_RESOLUTION = (192, 640), "192x640"
PAPER_INFERENCE = Inference(size=PAPER_SIZE, resample=Image.Resampling.BICUBIC)
IDS34, CLASSES19 = LABEL_SPACES["kitti34"], LABEL_SPACES["cityscapes19"]

RELEASE_IGNORED = (-1, *range(7), 9, 10, *range(12, 21), 24, 25, *range(27, 33))
"""The ignore list of the released KITTI scorer; it indexes an array of 34 ids, so -1 is the last of them, 33."""


@dataclass(frozen=True, eq=False)
class Rules:
    """A protocol made ready for a model and a data set.

    Attributes:
        stamp: How its scores are computed.
        how: How an image goes through the network.
        size: Height and width at which prediction and labels are compared; None = the labels' own.
        labels_of: Labels `(H, W)` of the data set -> those that are compared.
        predicted_id: uint8 `(256,)`, class id of the model -> the id that is compared; None = as it is.
        meter: Empty matrix of an image.
        classes: Names of the classes in the scores, in id order.
        evaluated: Those whose IoU is averaged.
    """

    stamp: Stamp
    how: Inference
    size: tuple[int, int] | None
    labels_of: Callable[[np.ndarray], np.ndarray]
    predicted_id: np.ndarray | None
    meter: ConfusionMatrix
    classes: Sequence[str]
    evaluated: Sequence[str]

    def compared(self, predictor: Predictor, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and true ids `(H, W)` of an image."""
        labels = self.labels_of(sample.labels)
        predicted = predictor.ids(self.how, self.size or labels.shape)
        return predicted if self.predicted_id is None else self.predicted_id[predicted], labels

    def scores(self, matrices: torch.Tensor | np.ndarray) -> dict[str, Any]:
        """Scores from the matrices of all images, or from their sum where one matrix is all that counts."""
        return scores_of_images(matrices, self.classes, self.stamp.reduction, self.evaluated)


def check_names(names: Sequence[str]) -> None:
    """Refuse protocols that there are not, one that is named twice, and no protocol at all."""
    for name in names:
        if name not in TABLE:
            raise ValueError(
                f"There is no protocol {name!r}.{did_you_mean(name, TABLE)} Protocols are {', '.join(TABLE)}."
            )
    if not names:
        raise ValueError(f"No protocol is named; name one of {', '.join(TABLE)}.")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"The protocol {repeated[0]} is named twice; name it once.")


def rules_of(
    names: Sequence[str], model: nn.Module, dataset: SampleDataset, how: Inference | None = None
) -> dict[str, Rules]:
    """Make protocols ready.

    Args:
        names: Of the protocols, in the order of display.
        model: Segmenter.
        dataset: What to evaluate on.
        how: Windows, scales and flip of the protocol `standard`; None = the whole image once.

    Returns:
        By name.

    Raises:
        ValueError: An unknown protocol, one twice, one that takes no windows, scales or flip, or one whose classes
            are not those of the model or the data set.
    """
    check_names(names)
    if how not in (None, Inference()) and "standard" not in names:
        raise ValueError(
            f"Windows, scales and flip belong to the protocol standard; {', '.join(names)} says itself how the image "
            "goes through the network. Add it to the list, or leave them out."
        )
    return {name: TABLE[name](model, dataset, how or Inference()) for name in names}


def _standard(model: nn.Module, dataset: SampleDataset, how: Inference) -> Rules:
    """At the size of each label map, one confusion matrix over the data set, as training evaluates."""
    space = dataset.label_space
    names = tuple(name for _, name in sorted(model.config.id2label.items()))
    if _kitti_space(space) == IDS34 and names == CLASSES19.classes:
        meter, labels_of = ConfusionMatrix(CLASSES19.num_labels, classes=names), _table(IDS34, CLASSES19).__getitem__
        stamp = stamp_of(CLASSES19, how)
    else:
        meter, labels_of, stamp = class_meter(model, dataset), np.asarray, stamp_of(space, how)
    return Rules(stamp, how, None, labels_of, None, meter, meter.classes, meter.classes)


def _paper_text(model: nn.Module, dataset: SampleDataset, _: Inference) -> Rules:
    """KITTI as Lao et al. describe it: 19 classes, void excluded, one matrix, nearest labels at 192x640."""
    predicted, space = _kitti_classes("paper-text", model), _kitti_space(dataset.label_space)
    if space is None:
        raise ValueError(_wrong_data("paper-text", dataset.label_space, "cityscapes19 or kitti34"))
    to_class = _table(space, CLASSES19)
    # One id more: a class that is none of the 19 was predicted, which is a miss.
    no_class = CLASSES19.num_labels
    stamp = Stamp(
        label_space_hash(CLASSES19.id2label, file_ids_of(CLASSES19)),
        resolution=PAPER_RESOLUTION,
        image_interpolation="bicubic",
        label_interpolation="nearest",
    )
    return Rules(
        stamp,
        PAPER_INFERENCE,
        PAPER_SIZE,
        lambda labels: resized(to_class[labels], PAPER_SIZE, Image.Resampling.NEAREST),
        _table(predicted, CLASSES19, no_class),
        ConfusionMatrix(no_class + 1),
        CLASSES19.classes,
        CLASSES19.classes,
    )


def _paper_release(model: nn.Module, dataset: SampleDataset, _: Inference) -> Rules:
    """KITTI as the released code of Lao et al. has it: 7 classes, bicubic labels at 192x640, mean over images."""
    predicted, space = _kitti_classes("paper-release", model), _kitti_space(dataset.label_space)
    if space != IDS34:
        hint = " Open the data set with the option classes=34: the protocol resizes the ids of the label files."
        raise ValueError(_wrong_data("paper-release", dataset.label_space, "kitti34") + hint * (space == CLASSES19))
    ignored = {id % IDS34.num_labels for id in RELEASE_IGNORED}
    evaluated = {id: name for id, name in IDS34.id2label.items() if id not in ignored}
    trained = [id for id, name in IDS34.id2label.items() if name in CLASSES19.classes]
    kept = np.array([id if id in trained else 0 for id in range(256)], np.uint8)
    stamp = Stamp(
        label_space_hash(evaluated, {id: int(kept[id]) for id in IDS34.id2label}),
        ignore_id=None,
        resolution=PAPER_RESOLUTION,
        reduction=IMAGE_MEAN,
        image_interpolation="bicubic",
        label_interpolation="bicubic",
        absent_classes="excluded in each image where neither labelled nor predicted",
    )
    return Rules(
        stamp,
        PAPER_INFERENCE,
        PAPER_SIZE,
        # Ids are sorted out after the interpolation, so those of void pixels take part in it.
        lambda labels: kept[resized(labels, PAPER_SIZE, Image.Resampling.BICUBIC)],
        _table(predicted, IDS34),
        ConfusionMatrix(IDS34.num_labels, classes=IDS34.classes),
        IDS34.classes,
        tuple(evaluated.values()),
    )


TABLE: Mapping[str, Callable[[nn.Module, SampleDataset, Inference], Rules]] = dict(
    zip(PROTOCOLS, (_standard, _paper_text, _paper_release), strict=True)
)
"""Name -> what makes its rules for a model, a data set, and windows, scales and flip, which `standard` alone takes."""


def resized(labels: np.ndarray, size: tuple[int, int], resample: int) -> np.ndarray:
    """A label map uint8 `(H, W)` at another size, its ids taken for grey values where the filter interpolates."""
    return np.asarray(Image.fromarray(labels.astype(np.uint8)).resize(size[::-1], resample))


def _kitti_space(space: LabelSpace | None) -> LabelSpace | None:
    """`kitti34` or `cityscapes19` where a label space has these classes, whatever its name."""
    return next((known for known in (IDS34, CLASSES19) if space is not None and space.classes == known.classes), None)


def _kitti_classes(protocol: str, model: nn.Module) -> LabelSpace:
    own = label_space_of(model.config)
    space, names = _kitti_space(own), own.evaluated_classes
    if space is None:
        raise ValueError(
            f"The protocol {protocol} needs a model of the classes cityscapes19 or kitti34; this one has "
            f"{len(names)} classes: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}."
        )
    return space


def _wrong_data(protocol: str, space: LabelSpace | None, allowed: str) -> str:
    has = "no label space" if space is None else f"label space {space.name!r} with {space.num_labels} classes"
    return f"The protocol {protocol} needs a data set with label space {allowed}; this one has {has}."


def _table(source: LabelSpace, target: LabelSpace, unknown: int = IGNORED) -> np.ndarray:
    """uint8 `(256,)`: id in one label space -> id of the class of the same name in another."""
    table = np.full(256, unknown, np.uint8)
    table[: len(source.classes)] = [target.label2id.get(name, unknown) for name in source.classes]
    table[IGNORED] = IGNORED
    return table
