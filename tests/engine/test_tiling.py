"""Tiles of an image: where they are, how they are blended, and how near that is to the whole image."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from rounding import assert_same_ids, rounding_bound

from depthseg.engine import tiling
from depthseg.engine.predict import predict_maps
from depthseg.engine.tiling import MapPredictor, Tile, Tiling, blend, spans
from depthseg.models import DepthSegConfig, DepthSegForSemanticSegmentation, DepthSegImageProcessor

SIZE = (150, 200)


def tiny(seed=0, **options):
    torch.manual_seed(seed)
    encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
    options = {"num_labels": 5, "keep_depth": True, **options}
    return DepthSegForSemanticSegmentation(DepthSegConfig(encoder_config=encoder, **options)).eval()


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def image():
    blocks = np.random.default_rng(0).integers(0, 256, (10, 13, 3), dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(16, axis=0).repeat(16, axis=1)[: SIZE[0], : SIZE[1]])


def test_tiles_cover_an_axis_overlap_and_begin_at_multiples():
    for length in range(60, 400, 7):
        for tile in (64, 96, 128):
            found = spans(length, tile, 16)
            covered = np.zeros(length, int)
            for span in found:
                covered[span] += 1
                assert span.start % 16 == 0 and span.stop - span.start <= tile
            assert covered.min() >= 1 and found[-1].stop == length
            assert all(before.stop - after.start >= tile // 4 for before, after in zip(found, found[1:], strict=False))
            assert all(span.stop - span.start > tile - 16 for span in found) or len(found) == 1
    with pytest.raises(ValueError, match="A tile has 24 pixels on a side; this network needs 32 or more"):
        spans(100, 24, 16)


def by_definition(tiles, size, seen, overlap):
    """Pixel by pixel: each tile's map read bilinearly there, weighted by the distance from the tile's border."""
    total = np.zeros((*size, next(iter(tiles)).maps["logits"].shape[2]))
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = (row + 0.5) * seen[0] / size[0], (column + 0.5) * seen[1] / size[1]
            weights, values = [], []
            for tile in tiles:
                share = 1.0
                for place, span, length in ((y, tile.rows, overlap[0]), (x, tile.columns, overlap[1])):
                    share *= max(0.0, min(place - span.start, span.stop - place, length) / length) ** tiling.STEEPNESS
                if share == 0:
                    continue
                values.append(read_at(tile, y, x))
                weights.append(share)
            total[row, column] = np.average(values, axis=0, weights=weights)
    return total


def read_at(tile, y, x):
    scores = tile.maps["logits"].numpy().astype(float)
    height, width = scores.shape[:2]
    v = (y - tile.rows.start) / (tile.rows.stop - tile.rows.start) * height - 0.5
    u = (x - tile.columns.start) / (tile.columns.stop - tile.columns.start) * width - 0.5
    v, u = min(max(v, 0), height - 1), min(max(u, 0), width - 1)
    top, left = int(v), int(u)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = scores[top, left] * (1 - (u - left)) + scores[top, right] * (u - left)
    lower = scores[bottom, left] * (1 - (u - left)) + scores[bottom, right] * (u - left)
    return upper * (1 - (v - top)) + lower * (v - top)


@pytest.mark.parametrize(("size", "seen"), [((26, 34), (26, 34)), ((40, 51), (26, 34)), ((13, 20), (26, 34))])
def test_blending_is_as_defined(size, seen):
    generator = torch.Generator().manual_seed(0)
    tiles = [
        Tile.of(rows, columns, {"logits": torch.randn(*shape, 3, generator=generator)})
        for rows, shape_rows in ((slice(0, 16), 8), (slice(12, 26), 14))
        for columns, shape in ((slice(0, 20), (shape_rows, 10)), (slice(14, 34), (shape_rows, 20)))
    ]
    places = tuple((torch.arange(new).double() + 0.5) * old / new for new, old in zip(size, seen, strict=True))
    found = blend(tiles, "logits", places, (4, 6))
    np.testing.assert_allclose(found.numpy(), by_definition(tiles, size, seen, (4, 6)), atol=1e-5)
    # A strip needs no more than the tiles over it.
    strip = blend(tiles[:2], "logits", (places[0][: size[0] // 3], places[1]), (4, 6))
    np.testing.assert_array_equal(strip.numpy(), found[: size[0] // 3].numpy())
    # Nor does it need what is above it.
    middle = size[0] // 2
    lower = [tile.below(int(places[0][middle])) for tile in tiles if tile.rows.stop > places[0][middle]]
    strip = blend(lower, "logits", (places[0][middle:], places[1]), (4, 6))
    np.testing.assert_array_equal(strip.numpy(), found[middle:].numpy())
    assert len(lower[0].maps["logits"]) < len(tiles[0].maps["logits"])


@pytest.mark.parametrize("processor_size", [None, {"height": 96, "width": 128}])
def test_strips_of_tiles_are_the_blended_outputs_of_the_parts(model, image, processor_size, monkeypatch):
    """Each tile through the network by hand, blended by the function that the test above has checked."""
    monkeypatch.setattr("depthseg.models.lean_loss_depthseg.CPU_TILE", 4096)  # several strips a row of tiles
    processor = DepthSegImageProcessor(size=processor_size)
    how = Tiling(tile=(64, 96))
    labels, depth = MapPredictor(model, processor, how, batch_size=2).maps([image])[0]
    pixels = processor(images=[image])["pixel_values"]
    seen = tuple(pixels.shape[-2:])
    places = tuple((torch.arange(new).double() + 0.5) * old / new for new, old in zip(SIZE, seen, strict=True))
    tiles = []
    rows, columns = spans(seen[0], 64, 32), spans(seen[1], 96, 32)
    for row in rows:
        for column in columns:
            with torch.no_grad():
                outputs = model(pixels[..., row, column])
            maps = {"logits": outputs.logits[0], "depth": outputs.predicted_depth}
            tiles.append(Tile.of(row, column, {name: m.permute(1, 2, 0).contiguous() for name, m in maps.items()}))
    overlap = rows[0].stop - rows[1].start, columns[0].stop - columns[1].start
    scores = blend(tiles, "logits", places, overlap).permute(2, 0, 1)
    assert_same_ids(labels, scores)
    expected = blend(tiles, "depth", places, overlap)[..., 0].numpy()
    np.testing.assert_allclose(depth, expected, atol=10 * rounding_bound(expected))
    assert len(np.unique(labels)) > 1


def test_one_tile_is_the_whole_image(model, image):
    processor = DepthSegImageProcessor()
    expected = predict_maps(model, processor, image)
    for how in (Tiling(), Tiling(tile=SIZE), Tiling(native=True, tile=(1024, 1024))):
        for found, other in zip(MapPredictor(model, processor, how).maps([image])[0], expected, strict=True):
            np.testing.assert_array_equal(found, other)


@pytest.mark.heavy
def test_tiles_agree_with_the_whole_image():
    """Inside an image the receptive field of a network decides; this one sees 435 pixels far, little of it clearly."""
    model, processor = tiny(), DepthSegImageProcessor()
    blocks = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = blocks.repeat(32, axis=0).repeat(32, axis=1)
    whole = MapPredictor(model, processor).maps([image])[0][0]
    tiled = MapPredictor(model, processor, Tiling(tile=(256, 320))).maps([image])[0][0]
    assert len(np.unique(whole)) > 2
    assert (whole == tiled).mean() > 0.985


def test_which_size_is_seen_and_which_tiles():
    trained = DepthSegImageProcessor(size={"height": 192, "width": 640})
    free = DepthSegImageProcessor()
    large, small = (3000, 4000), (100, 120)
    assert Tiling().tile_size(trained, large) is None
    assert Tiling().tile_size(free, small) is None
    assert Tiling().tile_size(free, large) == (1024, 1024)
    assert Tiling(native=True).tile_size(trained, large) == (192, 640)
    assert Tiling(native=True).tile_size(trained, (100, 1000)) == (100, 640)
    assert Tiling(native=True).tile_size(trained, small) is None
    assert Tiling(tile=(96, 96)).tile_size(trained, small) == (96, 96)
    assert Tiling(tile=(192, 640)).tile_size(trained, large) is None
    assert Tiling(native=True).seen_size(trained, large) == large
    assert Tiling().seen_size(trained, large) == (192, 640)


def test_batches_give_what_single_images_give(model, image):
    processor = DepthSegImageProcessor(size={"height": 64, "width": 96})
    images = [image, image[::-1].copy(), image[:, ::-1].copy()]
    together = MapPredictor(model, processor, batch_size=2).maps(images)
    for one, (labels, depth) in zip(images, together, strict=True):
        expected = predict_maps(model, processor, one)
        assert (labels == expected[0]).mean() > 0.999
        np.testing.assert_allclose(depth, expected[1], rtol=1e-4)


def test_one_class_in_tiles_is_found_by_its_sign(image):
    model, processor = tiny(num_labels=1), DepthSegImageProcessor()
    labels = MapPredictor(model, processor, Tiling(tile=(128, 128))).maps([image])[0][0]
    outputs = MapPredictor(model, processor, Tiling(tile=(128, 128))).outputs([image])[0]
    assert outputs.logits.shape == (1, 1, *SIZE)
    np.testing.assert_array_equal(labels, (outputs.logits[0, 0] >= 0).numpy())


def half_width(folder):
    """A half-width ResNet-18 with Monodepth2's head and 16 classes, for images of any size."""
    torch.manual_seed(0)
    encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.5}
    model = DepthSegForSemanticSegmentation(DepthSegConfig(encoder_config=encoder, num_labels=16)).eval()
    model.save_pretrained(folder)
    DepthSegImageProcessor().save_pretrained(folder)
    return model


def large_image(size):
    """Blocks of many sizes, the smallest 8 pixels wide."""
    rng = np.random.default_rng(0)
    layers = [rng.integers(0, 256, (-(-size[0] // n), -(-size[1] // n), 3)) for n in (8, 32, 128)]
    grown = [
        layer.repeat(n, 0).repeat(n, 1)[: size[0], : size[1]] for layer, n in zip(layers, (8, 32, 128), strict=True)
    ]
    return (sum(grown) // 3).astype(np.uint8)


@pytest.mark.heavy
def test_tiles_as_chosen_agree_with_the_whole_image(tmp_path):
    model, image = half_width(tmp_path), large_image((1500, 2000))
    processor = DepthSegImageProcessor()
    assert Tiling().tile_size(processor, image.shape[:2]) == (1024, 1024)
    tiled = MapPredictor(model, processor).maps([image])[0][0]
    whole = MapPredictor(model, processor, Tiling(tile=image.shape[:2])).maps([image])[0][0]
    assert len(np.unique(whole)) > 2
    assert (tiled == whole).mean() >= 0.995


# Not `ru_maxrss`: that of a new program begins with the peak of the one that started it.
PEAK = """
import re, sys
from pathlib import Path
from depthseg.engine.predict import predict
result = predict(sys.argv[1], [sys.argv[2]], sys.argv[3], device="cpu")
assert len(result.names) == 1, result
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024)
"""


@pytest.mark.heavy
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of memory is read from /proc")
def test_a_large_image_needs_less_than_two_gigabytes(tmp_path):
    half_width(tmp_path / "model")
    Image.fromarray(large_image((3000, 4000))).save(tmp_path / "large.jpg", quality=95)
    words = [sys.executable, "-c", PEAK, tmp_path / "model", tmp_path / "large.jpg", tmp_path / "out"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.split()[-1])
    assert 2**28 < peak < 2 * 2**30
    with Image.open(tmp_path / "out" / "labels" / "large.png") as labels:
        assert labels.size == (4000, 3000)
