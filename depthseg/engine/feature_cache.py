"""The features of a frozen encoder, computed once for each image and read from files ever after.

A file is named by the hash of all that its features depend on: the weights and the configuration of the encoder, their
type, the image processor, the precision of the run, the pixels of the image, what the transform does to them, and the
code: `FORMAT` and the versions of depthseg and transformers. So no file is ever out of date, and runs with other
heads, seeds, learning rates or few-shot subsets share files. Devices, kernels and versions of torch round differently
and are not in the name: a run reads features that are equal to those of its own machine up to rounding.

Encoders do not commute with mirroring: filters and position embeddings have a left and a right. Nor do they with
cropping: what is outside the crop is seen by the features inside, through borders and attention. So each augmented
image has its own features. Mirroring alone gives two for each image, which are those of a run without the cache.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import BatchFeature

from .. import __version__
from ..models import EncoderFeatures
from .batches import Collate, StreamDataset, copy_rng, target_of
from .fingerprint import hash_module
from .patience import agreed, wait_patiently
from .run_fault import told_of_writing
from .tensor_store import TensorStore, gib, size_of

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..data import Sample, SampleDataset

logger = logging.getLogger(__name__)

FORMAT = 1
"""Of the files and of what they hold: raised with each change of code after which they would hold something else."""

KEPT = (
    "What is in it stays good and is not computed again. Make room, or name a folder on another disk with "
    "data.cache_dir, and resume with run.resume=true."
)
"""What is true when a file of features cannot be written."""

IMAGES_PER_CHUNK = 8
"""Images that are encoded together."""

GEOMETRY = ("strides", "input_size", "padded_size")

Keys = tuple[str, str]
"""Of the features and of the truth of an augmented image."""


@dataclass(frozen=True)
class FeatureReader:
    """Reads features; without the network, so that workers that load data get it.

    Attributes:
        store: Where they are kept.
        map_count: How many maps the encoder has.
    """

    store: TensorStore
    map_count: int

    def join(self, keys: Sequence[str]) -> EncoderFeatures:
        """The features of some images as one batch."""
        entries = [self.store.read(key) for key in keys]
        names, texts = entries[0][0].keys(), entries[0][1]
        stacked = {name: torch.stack([tensors[name] for tensors, _ in entries]) for name in names}
        maps = [stacked.get(f"map.{n}") for n in range(self.map_count)]
        maps = [None if each is None else each.permute(0, 3, 1, 2) for each in maps]
        prefix_tokens = [stacked.get(f"prefix.{n}") for n in range(self.map_count)]
        sizes = (tuple(json.loads(texts[name])) for name in GEOMETRY)
        return EncoderFeatures(maps, prefix_tokens if any("prefix" in name for name in names) else None, *sizes)

    def collate(self, keys: list[Keys]) -> dict[str, Tensor | EncoderFeatures]:
        """A batch of augmented images: their truths, and features in the place of `pixel_values`."""
        truths = [self.store.read(truth)[0] for _, truth in keys]
        stacked = {name: torch.stack([truth[name] for truth in truths]) for name in truths[0]}
        # Class ids are kept as bytes, and losses take int64.
        wide = {name: values if values.is_floating_point() else values.long() for name, values in stacked.items()}
        return {"pixel_values": self.join([key for key, _ in keys]), **wide}


class FeatureCache:
    """The features of one encoder.

    Args:
        store: Where they are kept.
        model: The model, its encoder frozen and on its device.
        processor: Its image processor.
        accelerator: Processes and precision of the training.

    Attributes:
        store, processor, accelerator: As given.
        reader: Reads them.
    """

    def __init__(self, store: TensorStore, model: nn.Module, processor: Any, accelerator: Accelerator) -> None:
        encoder = model.encoder
        self.store = store
        self.accelerator = accelerator
        self.processor = processor
        self._model = model
        self.reader = FeatureReader(store, len(encoder.channels))
        self._kept = range(self.reader.map_count)[model.body.maps_read]
        self._facts = _hash(
            *(hash_module(encoder), encoder.backbone.config.to_json_string(use_diff=False), list(self._kept)),
            *(model.config.input_mean, model.config.input_std, str(model.dtype), processor.to_dict()),
        )

    def key(self, *facts: Any) -> str:
        """Name of a file of features that depend on these facts and on the encoder."""
        return _hash(self._facts, *facts)

    @torch.no_grad()
    def encode(self, pixel_values: Tensor) -> EncoderFeatures:
        """The features of images `(B, 3, H, W)`, on the device of the model."""
        return self._model.encode(pixel_values.to(self._model.device))

    def split(self, features: EncoderFeatures) -> Iterable[tuple[dict[str, Tensor], dict[str, str]]]:
        """The features of each image as tensors and texts of a file; only the maps that the head reads."""
        texts = {name: json.dumps(getattr(features, name)) for name in GEOMETRY}
        for row in range(len(features.maps[-1])):
            # Channels last, as the tokens of a ViT and the maps of a convolution with channels last are in memory.
            tensors = {f"map.{n}": features.maps[n][row].permute(1, 2, 0) for n in self._kept}
            for n in self._kept if features.prefix_tokens is not None else ():
                if features.prefix_tokens[n] is not None:
                    tensors[f"prefix.{n}"] = features.prefix_tokens[n][row]
            yield {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, texts

    def key_of_whole(self, image: np.ndarray, **options: Any) -> str:
        """Name of the file of an image as the processor makes it, in float32."""
        return self.key("image", _digest(image), options)

    def encode_whole(self, image: np.ndarray, **options: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The features of an image as the processor makes it, as tensors and texts of a file."""
        features = self.encode(self.processor(images=[image], return_tensors="pt", **options)["pixel_values"])
        (entry,) = self.split(features)
        return entry

    def missing_bytes(self, show: Callable[[Any], None]) -> int:
        """What features that are not there will take, of images that `show` gives to a processor; called by all."""
        noted = _NotingProcessor(self)
        show(noted)
        wait_patiently(self.accelerator)
        found = gather_object([(noted.missing, noted.size)])
        return len(set().union(*(missing for missing, _ in found))) * max(size for _, size in found)

    def whole_image(self, images: Sequence[np.ndarray], **options: Any) -> EncoderFeatures:
        """The features of images as the processor makes them, in float32, one by one; missing ones are computed."""
        keys = [self.key_of_whole(image, **options) for image in images]
        for key, image in zip(keys, images, strict=True):
            if key not in self.store:
                with self.store.owned(key), told_of_writing("a file of the cache", self.store.folder, KEPT):
                    if key not in self.store:  # nobody has computed it meanwhile
                        self.store.write(key, *self.encode_whole(image, **options))
        return self.reader.join(keys).to(self._model.device)


class CachedProcessor:
    """An image processor that gives a frozen encoder's features in place of pixels.

    Args:
        features: Where they are from. The other methods and attributes of its image processor are those of this one.
    """

    def __init__(self, features: FeatureCache) -> None:
        self._features = features

    def __call__(self, images: list[np.ndarray], return_tensors: str = "pt", **options: Any) -> BatchFeature:
        """`pixel_values`: the features of the images, on the device of the model."""
        return BatchFeature({"pixel_values": self._features.whole_image(images, **options)})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._features.processor, name)


class _NotingProcessor(CachedProcessor):
    """One that only notes which files of features are missing and the bytes of the first; it gives an empty tensor."""

    def __init__(self, features: FeatureCache) -> None:
        super().__init__(features)
        self.missing: set[str] = set()
        self.size = 0

    def __call__(self, images: list[np.ndarray], return_tensors: str = "pt", **options: Any) -> BatchFeature:
        for image in images:
            key = self._features.key_of_whole(image, **options)
            if key not in self._features.store:
                self.size = self.size or size_of(self._features.encode_whole(image, **options)[0])
                self.missing.add(key)
        return BatchFeature({"pixel_values": torch.empty(0)})


class Variants:
    """The augmented images of a training set: the numbered copies, or each image as it is and mirrored.

    Args:
        stream: The training set as a run without the cache reads it.

    Raises:
        ValueError: More than mirroring is left to chance, and there are no copies.
    """

    def __init__(self, stream: StreamDataset) -> None:
        transform = stream.transform
        if not stream.copies and not transform.only_mirrors:
            raise ValueError("The transform leaves more than mirroring to chance: set data.augmented_copies.")
        self._stream = stream
        if stream.copies:
            self.transforms = [transform] * stream.copies
        else:
            chances = [0.0, 1.0] if transform.hflip else [0.0]
            self.transforms = [copy.copy(transform) for _ in chances]
            for each, chance in zip(self.transforms, chances, strict=True):
                each.hflip = chance

    def number(self, position: int) -> int:
        """Which of them is at a position of the stream."""
        if self._stream.copies:
            return self._stream.copy_at(position)
        if len(self.transforms) == 1:
            return 0
        return int(self._stream.transform.mirrors(self._stream.stream.rng(position)))

    def make(self, sample: Sample, number: int) -> Sample:
        """One of those of a sample."""
        return self.transforms[number](sample, copy_rng(sample.name, number))

    def facts(self, sample: Sample, number: int) -> list[Any]:
        """All that one of them depends on, beside the sample's pixels and the processor's range of values."""
        options = {name: value for name, value in vars(self.transforms[number]).items() if name != "to_rgb"}
        is_drawn = bool(self._stream.copies)
        seen = _digest(sample.labels) if is_drawn and options["max_class_share"] < 1 else None
        return [options, [sample.name, number] if is_drawn else None, seen]


class CachedStream(Dataset):
    """The names of features and truths by their position in the stream.

    Args:
        stream: The training set as a run without the cache reads it.
        variants: Its augmented images.
        keys: Names of the files of each sample and variant.
    """

    def __init__(self, stream: StreamDataset, variants: Variants, keys: list[list[Keys]]) -> None:
        self._stream = stream
        self._variants = variants
        self._keys = keys

    def __getitem__(self, position: int) -> Keys:
        return self._keys[self._stream.stream.index(position)][self._variants.number(position)]


def check_cacheable(encoder: nn.Module, samples: SampleDataset) -> None:
    """Refuse an encoder that may change, and a training set that is not read by index.

    Raises:
        ValueError: Either of them.
    """
    if not encoder.frozen or any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ValueError(
            "data.cache_features keeps the features of an encoder that does not change, but the encoder of the model "
            "is not frozen: call model.freeze_encoder() first, which fixes its weights and norm statistics, or set "
            "data.cache_features=false."
        )
    if getattr(samples, "shard_lengths", None) is not None:
        raise ValueError(
            "data.cache_features reads images by their number, and this data set is streamed shard by shard: download "
            "it instead of streaming it, or set data.cache_features=false."
        )


def cached_stream(
    features: FeatureCache,
    stream: StreamDataset,
    collate: Collate,
    show_evaluated: Callable[[Any], None] = lambda processor: None,
) -> tuple[CachedStream, Callable[[list[Keys]], dict[str, Tensor | EncoderFeatures]]]:
    """Compute what is missing; return what reads its names, and what makes batches of them; called by all processes.

    Each image is read once in every run, because its pixels are part of the name of its files.

    Args:
        features: The cache.
        stream: The training set as a run without the cache reads it.
        collate: What makes its batches.
        show_evaluated: Gives each image that this process evaluates to a processor, as the evaluation does; their
            features are computed, too.

    Raises:
        ValueError: A transform without an end of augmented images.
        OSError: The files would pass the limit or fill the disk; nothing is written then.
    """
    variants = Variants(stream)
    builder = _Builder(features, stream.samples, variants, collate)
    rank, world = features.accelerator.process_index, features.accelerator.num_processes
    mine = {index: builder.keys_of(stream.samples[index]) for index in range(rank, len(stream.samples), world)}
    wait_patiently(features.accelerator)
    found = {index: keys for part in gather_object([mine]) for index, keys in part.items()}
    keys = [found[index] for index in range(len(stream.samples))]
    evaluated = features.missing_bytes(show_evaluated)
    builder.build(keys, evaluated)
    if evaluated:
        show_evaluated(CachedProcessor(features))
    wait_patiently(features.accelerator)
    return CachedStream(stream, variants, keys), features.reader.collate


class _Builder:
    """Computes the features and truths of a training set; a pair is the number of a sample and of its variant."""

    def __init__(self, features: FeatureCache, samples: SampleDataset, variants: Variants, collate: Collate) -> None:
        self._features = features
        self._store = features.store
        self._samples = samples
        self._variants = variants
        self._collate = collate

    def keys_of(self, sample: Sample) -> list[Keys]:
        """The names of the files of each variant of a sample."""
        how = ["train", self._features.accelerator.mixed_precision, _digest(sample.image)]
        truth = {key: _digest(target_of(sample, kind)) for key, kind in self._collate.content.truth.items()}
        grid = [self._collate.label_stride, list(sample.image.shape)]
        variants = [self._variants.facts(sample, number) for number in range(len(self._variants.transforms))]
        return [(self._features.key(*how, facts), _hash(truth, grid, facts)) for facts in variants]

    def build(self, keys: list[list[Keys]], evaluated: int) -> None:
        """Write what is missing; each process its share, and what another run is computing is waited for."""
        accelerator = self._features.accelerator
        names = {(index, number): each for index, row in enumerate(keys) for number, each in enumerate(row)}
        # The first process looks for all: what another run writes meanwhile must not part them.
        agreed(accelerator, lambda: self._require_room(names, evaluated))
        pairs = list(names)
        chunks = [pairs[first : first + IMAGES_PER_CHUNK] for first in range(0, len(pairs), IMAGES_PER_CHUNK)]
        for chunk in chunks[accelerator.process_index :: accelerator.num_processes]:
            wanted = {pair: names[pair] for pair in chunk}
            if self._missing(wanted):
                with self._store.owned(names[chunk[0]][0]):
                    self._write(self._missing(wanted))

    def _missing(self, names: Mapping[tuple[int, int], Keys]) -> dict[tuple[int, int], Keys]:
        return {pair: keys for pair, keys in names.items() if not all(key in self._store for key in keys)}

    def _require_room(self, names: Mapping[tuple[int, int], Keys], evaluated: int) -> None:
        """Say what the files will take, and refuse what does not fit before the first one is written."""
        missing = self._missing(names)
        needed = 0
        if missing:
            encoded, truths = self._compute(list(missing)[:1])
            needed = len(missing) * (size_of(encoded[0][0]) + size_of(truths[0]))
            logger.info(
                "Features of the encoder: %d of %d augmented images are computed once, about %s in %s.",
                *(len(missing), len(names), gib(needed), self._store.folder),
            )
        if missing or evaluated:
            whose = "the training set and of the evaluated images" if evaluated else "the training set"
            self._store.require_room(needed + evaluated, f"the features of {whose} need about")

    def _compute(self, pairs: Iterable[tuple[int, int]]) -> tuple[list[Any], list[dict[str, Tensor]]]:
        made = [self._variants.make(self._samples[index], number) for index, number in pairs]
        with self._features.accelerator.autocast():
            features = self._features.encode(self._collate.scale([sample.image for sample in made]))
        truths = [{name: _narrow(each) for name, each in self._collate.truths_of(s).items()} for s in made]
        return list(self._features.split(features)), truths

    def _write(self, missing: Mapping[tuple[int, int], Keys]) -> None:
        if not missing:
            return
        encoded, truths = self._compute(missing)
        with told_of_writing("a file of the cache", self._store.folder, KEPT):
            for (name, truth_name), (tensors, texts), truth in zip(missing.values(), encoded, truths, strict=True):
                if truth_name not in self._store:  # another encoder has seen this image
                    self._store.write(truth_name, truth, {})
                self._store.write(name, tensors, texts)


def _narrow(truth: np.ndarray) -> Tensor:
    """Class ids as bytes if they are small enough; depth as it is."""
    if truth.dtype.kind != "f":
        truth = truth.astype(np.uint8 if truth.max(initial=0) < 256 else np.int64)
    return torch.from_numpy(np.array(truth))


def _digest(values: np.ndarray | None) -> str | None:
    """SHA-256 of an array, its type and shape included."""
    if values is None:
        return None
    return hashlib.sha256(f"{values.dtype} {values.shape};".encode() + np.ascontiguousarray(values).data).hexdigest()


def _hash(*facts: Any) -> str:
    facts = [FORMAT, __version__, transformers.__version__, *facts]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
