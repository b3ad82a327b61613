"""Batches are the same whether pixels are changed where samples are read, or as bytes on the model's device."""

import numpy as np
import pytest
import torch

from depthseg.data import Sample
from depthseg.data.pixel_changes import PixelChange
from depthseg.data.transforms import TrainTransform
from depthseg.engine.batches import BatchContent, Collate, StreamDataset, micro_batches
from depthseg.engine.sampling import MicroBatches
from depthseg.models import DepthSegImageProcessor

SIZE = (20, 26)
CONTENTS = {
    "labels": BatchContent({"labels": "labels", "depth": "depth"}),
    "video": BatchContent(images=True, source_frames=(-1, 1), intrinsics=True),
    "stereo": BatchContent(images=True, source_frames=(1,), stereo=True, intrinsics=True),
    "holes": BatchContent(images=True, holes=True),
}
TRANSFORMS = {
    "mirror": TrainTransform(SIZE, hole_share=(0.1, 0.2)),
    "crop": TrainTransform(SIZE, crop_scale=(0.4, 1.0), colour_jitter=0.4, hole_share=(0.1, 0.2)),
    "patch": TrainTransform(
        SIZE, random_crop=True, scale_range=(0.7, 2.0), colour_jitter=0.4, hole_share=(0.1, 0.2), hole_size=3
    ),
}


class Street:
    """Images of two sizes with all that a sample can have."""

    label_space = None
    names = [f"{number}" for number in range(6)]

    def __init__(self, deep: bool = False) -> None:
        self.deep = deep

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        shape = (30, 40, 3) if index % 2 else (36, 44, 3)
        deep = self.deep and index == 2

        def image():
            return rng.integers(0, 65536, shape[:2], np.uint16) if deep else rng.integers(0, 256, shape, np.uint8)

        return Sample(
            *(self.names[index], image(), rng.integers(0, 4, shape[:2], np.uint8)),
            depth=rng.random(shape[:2], np.float32),
            frames={-1: image(), 1: image()},
            stereo=image(),
            stereo_x=0.5,
            intrinsics=np.array([[30.0, 0, 20], [0, 30, 15], [0, 0, 1]]),
        )


def expected_views(samples, content, processor):
    """What the image processor and a division make of the images of samples, one after the other."""

    def scaled(images):
        return processor(images=images, do_resize=False, value_range=(0, 255))["pixel_values"]

    def unit(images):
        return torch.stack([torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255 for image in images])

    def sources(sample):
        views = [sample.frames[offset] for offset in content.source_frames]
        return [*views, sample.stereo] if content.stereo else views

    clean = [sample.clean or sample for sample in samples]
    seen = [s.image * ~s.holes[..., None] if content.holes else s.image for s in samples]
    expected = {"pixel_values": scaled(seen)}
    if content.images:
        expected["image"] = unit([sample.image for sample in clean])
    if content.source_frames:
        expected["source_pixel_values"] = torch.stack([scaled(sources(sample)) for sample in samples])
        expected["source_images"] = torch.stack([unit(sources(sample)) for sample in clean])
    return expected


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("options", [{}, {"do_normalize": False}, {"image_mean": 0.1, "image_std": [0.3, 0.4, 0.7]}])
def test_both_paths_give_the_numbers_of_the_processor(content, transform, options):
    content, transform = CONTENTS[content], TRANSFORMS[transform]
    if content.source_frames and transform.random_crop:
        transform = TrainTransform(SIZE, random_crop=True, scale_range=(1.0, 1.5), colour_jitter=0.4)
    processor = DepthSegImageProcessor(**options)
    collate = Collate(processor, content)
    drawn = [(sample, np.random.default_rng([number, 7])) for number, sample in enumerate(Street())]
    samples = [transform(sample, rng) for sample, rng in drawn]
    again = [(sample, np.random.default_rng([number, 7])) for number, (sample, _) in enumerate(drawn)]
    deferred = [transform.deferred(sample, rng) for sample, rng in again]
    assert all(isinstance(sample.change, PixelChange) for sample in deferred)
    expected = expected_views(samples, content, processor)
    at_once, on_device = collate(samples), collate.finish(collate.gather(deferred))
    assert at_once.keys() == on_device.keys()
    for name, values in at_once.items():
        assert torch.equal(values, on_device[name]), name
        assert values.is_contiguous() and on_device[name].is_contiguous()
        if name in expected:
            assert torch.equal(values, expected.pop(name)), name
    assert not expected


def test_images_travel_as_bytes_and_those_that_are_alike_once():
    samples = [TRANSFORMS["mirror"](sample, np.random.default_rng(0)) for sample in Street()]
    batch = Collate(DepthSegImageProcessor(), CONTENTS["video"]).gather(samples)
    assert batch["pixel_values"].dtype == batch["source_pixel_values"].dtype == torch.uint8
    assert batch["pixel_values"].shape == (6, *SIZE, 3) and batch["source_pixel_values"].shape == (12, *SIZE, 3)
    assert not {"image", "source_images"} & batch.keys()


def test_a_batch_with_an_image_of_more_bits_is_finished_where_it_is_read():
    processor = DepthSegImageProcessor()
    transform = TrainTransform(SIZE, crop_scale=(0.4, 1.0), colour_jitter=0.4, to_rgb=processor.to_rgb)
    collate = Collate(processor, CONTENTS["video"])
    change = [
        [how(sample, np.random.default_rng(3)) for sample in Street(deep=True)]
        for how in (transform, transform.deferred)
    ]
    one, other = (collate.finish(collate.gather(samples)) for samples in change)
    assert one["pixel_values"].dtype == torch.float32
    for name, values in one.items():
        assert torch.equal(values, other[name])


class Doubled:
    """A processor that is not one of bytes: it looks at the whole image."""

    def __call__(self, images, **options):
        values = np.stack(images).astype(np.float32)
        return {"pixel_values": torch.from_numpy(values - values.mean()).permute(0, 3, 1, 2)}


def test_a_processor_of_another_kind_sees_whole_images():
    samples = [TRANSFORMS["crop"].deferred(sample, np.random.default_rng(0)) for sample in Street()]
    collate = Collate(Doubled(), CONTENTS["labels"])
    found = collate(samples)["pixel_values"]
    assert found.dtype == torch.float32 and abs(found.mean()) < 1e-3


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_processes_change_nothing(workers):
    processor = DepthSegImageProcessor()
    collate, transform = Collate(processor, CONTENTS["video"]), TRANSFORMS["crop"]
    plan, device = MicroBatches(0, 2, 4), torch.device("cpu")
    plain = [collate([StreamDataset(Street(), transform, 5)[place] for place in places]) for places in plan]
    read = micro_batches(
        StreamDataset(Street(), transform.deferred, 5), collate.gather, plan, workers, device, collate.finish
    )
    for one, other in zip(plain, read, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(values, other[name]) for name, values in one.items())
