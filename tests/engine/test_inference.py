"""Windows, scales and mirrored images against their definitions, on networks of one layer."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine.kitti_like import KittiLike, PixelModel, input_of, processor_of
from torch import nn
from transformers.modeling_outputs import SemanticSegmenterOutput

from depthseg.engine.inference import Inference, Predictor, windows

IMAGE = KittiLike().samples[1].image  # 37 x 122
SIZE = IMAGE.shape[:2]


class Place(nn.Module):
    """The logits of a pixel are its colour and how far it is from the middle of what the network sees."""

    def __init__(self, one_class=False):
        super().__init__()
        self.device, self.one_class = torch.device("cpu"), one_class
        self.inputs = []

    def forward(self, pixel_values):
        self.inputs.append(pixel_values)
        height, width = pixel_values.shape[-2:]
        rows, columns = torch.linspace(-1, 1, height)[:, None] ** 2, torch.linspace(0, 1, width)[None]
        logits = torch.stack([pixel_values[0, 0] * rows, pixel_values[0, 1] + columns, pixel_values[0, 2] - rows])
        return SemanticSegmenterOutput(logits=logits[None, : 1 if self.one_class else 3])


def resized(values, size):
    return nn.functional.interpolate(values, size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(("window", "stride"), [((16, 40), (8, 20)), ((16, 40), (16, 40)), ((7, 122), (3, 50))])
def test_windows_of_a_pixelwise_network_are_the_whole_image(window, stride):
    model = PixelModel(5).eval()
    predictor = Predictor(model, processor_of((32, 96)), IMAGE)
    whole = Predictor(model, processor_of(), IMAGE).ids(Inference(), SIZE)
    assert np.array_equal(predictor.ids(Inference(window=window, stride=stride), SIZE), whole)
    assert len(np.unique(whole)) > 2


@pytest.mark.parametrize("window", [(16, 40), (37, 122), (50, 40), (400, 400)])
def test_logits_are_the_mean_over_the_windows_of_each_pixel(window):
    stride = (7, 33)
    model = Place()
    found = Predictor(model, processor_of(), IMAGE).probabilities(Inference(window=window, stride=stride), SIZE)
    pixels = input_of(IMAGE, SIZE, 2)
    height, width = (min(side, length) for side, length in zip(SIZE, window, strict=True))
    # One window after the other by the stride, and one more that ends at the border.
    starts = [
        [*range(0, side - length, step), side - length]
        for side, length, step in zip(SIZE, (height, width), stride, strict=True)
    ]
    total, counts = torch.zeros(3, *SIZE), torch.zeros(SIZE)
    for top, left in itertools.product(*starts):
        place = (..., slice(top, top + height), slice(left, left + width))
        total[place] += model(pixels[place]).logits[0]
        counts[place[1:]] += 1
    assert torch.allclose(found, (total / counts).softmax(0), atol=1e-5) and counts.min() == 1


def test_windows_cover_every_pixel_and_end_at_the_border():
    rng = np.random.default_rng(0)
    for _ in range(200):
        size, window = rng.integers(1, 40, 2), rng.integers(1, 40, 2)
        stride = [int(rng.integers(1, side + 1)) for side in window]
        seen = np.zeros(size, int)
        found = list(windows(tuple(size), tuple(window), stride))
        for rows, columns in found:
            assert (rows.stop - rows.start, columns.stop - columns.start) == tuple(np.minimum(window, size))
            seen[rows, columns] += 1
        assert seen.min() >= 1 and len({(rows.start, columns.start) for rows, columns in found}) == len(found)
        assert max(rows.stop for rows, _ in found) == size[0] and max(c.stop for _, c in found) == size[1]


@pytest.mark.parametrize("one_class", [False, True])
def test_scales_and_flips_average_probabilities_at_the_size_of_the_image(one_class):
    model, scales = Place(one_class), (0.75, 1.0, 1.5)
    how = Inference(scales=scales, flip=True)
    found = Predictor(model, processor_of((32, 96)), IMAGE).probabilities(how, SIZE)
    expected = []
    for scale in scales:
        pixels = input_of(IMAGE, (round(32 * scale), round(96 * scale)), 2)
        for mirrored in (pixels, pixels.flip(3)):
            logits = resized(model(mirrored).logits, SIZE)[0]
            logits = logits if mirrored is pixels else logits.flip(2)
            expected.append(logits.sigmoid() if one_class else logits.softmax(0))
    assert torch.allclose(found, torch.stack(expected).mean(0), atol=1e-6)
    ids = Predictor(model, processor_of((32, 96)), IMAGE).ids(how, SIZE)
    assert np.array_equal(ids, (found[0] >= 0.5).numpy() if one_class else found.argmax(0).numpy())


def test_flips_make_the_prediction_follow_a_mirrored_image():
    how = Inference(flip=True, scales=(1.0, 0.5))
    ids, mirrored = (
        Predictor(Place(), processor_of((32, 96)), image).ids(how, SIZE) for image in (IMAGE, IMAGE[:, ::-1].copy())
    )
    plain = Predictor(Place(), processor_of((32, 96)), IMAGE[:, ::-1].copy()).ids(Inference(), SIZE)
    assert np.mean(ids == mirrored[:, ::-1]) > 0.999 > np.mean(plain[:, ::-1] == ids)


def test_two_pixels_by_hand():
    """Logits 0 and ln 3 of the second class are probabilities 1/2 and 3/4; mirrored they change places."""

    class Columns(Place):
        def forward(self, pixel_values):
            second = torch.tensor([[0.0, np.log(3.0)]])
            return SemanticSegmenterOutput(logits=torch.stack([torch.zeros(1, 2), second])[None])

    image = np.zeros((1, 2, 3), np.uint8)
    plain = Predictor(Columns(), processor_of(), image).probabilities(Inference(), (1, 2))
    assert plain[1, 0].tolist() == pytest.approx([0.5, 0.75])
    both = Predictor(Columns(), processor_of(), image).probabilities(Inference(flip=True), (1, 2))
    assert both[1, 0].tolist() == pytest.approx([0.625, 0.625])


def test_the_sizes_that_a_network_sees():
    def seen(processor, **how):
        model = Place()
        Predictor(model, processor, IMAGE).probabilities(Inference(**how), SIZE)
        return [tuple(pixels.shape[-2:]) for pixels in model.inputs]

    assert seen(processor_of((32, 96)), scales=(0.5, 1.0)) == [(16, 48), (32, 96)]
    assert seen(processor_of(), scales=(0.5, 2.0)) == [(18, 61), (74, 244)]
    keeps = processor_of((32, 96))
    keeps.do_resize = False
    assert seen(keeps, scales=(2.0,)) == [(74, 244)]
    assert seen(processor_of((32, 96)), window=(30, 100), stride=(30, 100)) == [(30, 100)] * 4
    # At half the size the image is 18 x 61, and the window is cut to its height.
    assert seen(processor_of((32, 96)), window=(20, 50), scales=(0.5,)) == [(18, 50)] * 2


def test_an_input_that_was_seen_is_not_computed_again():
    model = PixelModel(5).eval()
    predictor = Predictor(model, processor_of((32, 96)), IMAGE)
    first = predictor.ids(Inference(), (20, 30))
    assert np.array_equal(predictor.ids(Inference(size=(32, 96)), (20, 30)), first) and len(model.inputs) == 1
    predictor.ids(Inference(size=(32, 96), resample=3), (20, 30))
    assert len(model.inputs) == 2
    # The plain input is one of those that are averaged.
    predictor.probabilities(Inference(scales=(1.0, 2.0)), (20, 30))
    assert len(model.inputs) == 3


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"window": (8, 8), "stride": (8, 9)}, "stride of 8 x 9 is larger than the window of 8 x 8"),
        ({"stride": (8, 8)}, "A stride needs a window"),
        ({"window": (0, 8)}, r"The window is \[0, 8\]"),
        ({"window": (8, 8), "stride": (0, 8)}, r"The stride is \[0, 8\]"),
        ({"scales": (1.0, 0.0)}, "The scales are 1, 0; give one or more numbers above 0"),
        ({"scales": ()}, "The scales are none"),
        ({"scales": (float("nan"),)}, "The scales are nan"),
    ],
)
def test_what_cannot_be_is_said(how, sentence):
    with pytest.raises(ValueError, match=sentence):
        Inference(**how)


def test_outputs_that_are_not_finite_are_refused():
    model = PixelModel(5).eval()
    model.head.bias.data[0] = float("nan")
    for how in (Inference(), Inference(window=(16, 16)), Inference(flip=True)):
        with pytest.raises(ValueError, match="logits are not finite"):
            Predictor(model, processor_of((32, 96)), IMAGE).ids(how, SIZE)


def test_a_stamp_tells_windows_scales_and_flip():
    from depthseg.engine.evaluation import stamp_of

    data = SimpleNamespace(space=KittiLike().label_space)
    plain = stamp_of(data.space)
    assert stamp_of(data.space, Inference()) == plain
    for how in (Inference(window=(8, 8)), Inference(flip=True), Inference(scales=(1.0, 2.0))):
        assert stamp_of(data.space, how).digest != plain.digest
