import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from depthseg.data.label_spaces import CAMVID11
from depthseg.engine.atomic import atomic_path
from depthseg.engine.visualization import (
    ERROR_LIMIT,
    blend_labels,
    class_shares,
    colourise_depth,
    colourise_error,
    colourise_inverse_depth,
    colourise_labels,
    colourise_monitor,
    colourise_predicted_depth,
    image_of,
    legend_of,
    overlay,
    write_image,
    write_labels,
)

SKY, ROAD, CAR = (CAMVID11.palette[CAMVID11.label2id[name]] for name in ("Sky", "Road", "Car"))


def colours_of(image: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in image.reshape(-1, 3).tolist()}


def test_labels_take_their_palette_colours_and_ignored_is_black() -> None:
    image = colourise_labels(np.array([[0, 3], [255, 8]], np.int64), CAMVID11.palette)
    assert image.dtype == np.uint8
    assert image.tolist() == [[list(SKY), list(ROAD)], [[0, 0, 0], list(CAR)]]


def test_ignored_is_black_even_where_the_palette_has_a_colour_for_it() -> None:
    assert colourise_labels(np.array([[254, 255]]), [(9, 9, 9)] * 256).tolist() == [[[9, 9, 9], [0, 0, 0]]]


@pytest.mark.parametrize("wrong", [11, 254, -1, 256])
def test_an_id_without_a_colour_is_refused(wrong: int, tmp_path) -> None:
    labels = np.array([[0, wrong]])
    for call in (
        lambda: colourise_labels(labels, CAMVID11.palette),
        lambda: class_shares(labels, CAMVID11),
        lambda: write_labels(tmp_path / "labels.png", labels, CAMVID11.palette),
    ):
        with pytest.raises(ValueError, match=rf"ids \[{wrong}\].* 0\.\.10"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_label_png_keeps_ids_as_pixel_values_and_shows_palette_colours(tmp_path) -> None:
    labels = np.arange(12, dtype=np.int64).reshape(3, 4)
    labels[labels == 11] = 255
    write_labels(tmp_path / "new" / "labels.png", labels, CAMVID11.palette)
    with Image.open(tmp_path / "new" / "labels.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), labels)
        shown = np.array(image.convert("RGB")).reshape(-1, 3).tolist()
    assert shown == [list(colour) for colour in CAMVID11.palette] + [[0, 0, 0]]


def test_depth_is_painted_by_its_inverse_and_unknown_is_black() -> None:
    depth = np.array([[1.0, 2.0, 0.0, np.nan], [4.0, -1.0, np.inf, 100.0]], np.float32)
    image = colourise_depth(depth)
    colourmap = matplotlib.colormaps["plasma"]
    # Inverse depths 1, 0.5, 0.25 and 0.01: the 2nd percentile is 0.01 + 0.06 * 0.24, the 98th 0.5 + 0.94 * 0.5.
    low, high = 0.0244, 0.97
    shares = {(0, 0): 1.0, (0, 1): (0.5 - low) / (high - low), (1, 0): (0.25 - low) / (high - low), (1, 3): 0.0}
    for place, share in shares.items():
        assert image[place].tolist() == list(colourmap(share, bytes=True)[:3])
    for place in ((0, 2), (0, 3), (1, 1), (1, 2)):
        assert image[place].tolist() == [0, 0, 0]


def test_known_depth_is_never_black_and_near_is_brighter_than_far() -> None:
    image = colourise_depth(np.linspace(1, 80, 500)[None])
    brightness = image[0].astype(int).sum(-1)
    assert brightness.min() > 0
    assert brightness[0] > brightness[100] > brightness[-1]


def test_relative_depth_is_painted_directly_whatever_its_scale_and_shift() -> None:
    inverse = np.random.default_rng(0).normal(size=(20, 30))
    assert np.array_equal(colourise_inverse_depth(inverse), colourise_inverse_depth(7 * inverse + 3))
    assert np.array_equal(colourise_depth(1 / (inverse + 9)), colourise_inverse_depth(inverse))


def test_predicted_depth_is_painted_by_what_its_numbers_mean() -> None:
    depth = np.linspace(1, 9, 40)[None]
    for depth_type, numbers in {
        "metric": depth,
        "disparity": depth,
        "relative": 0.3 * depth - 5,  # below 0 as well: only scale and shift are known
        "relative_inverse": 7 / depth - 2,
    }.items():
        brightness = colourise_predicted_depth(numbers, depth_type)[0].astype(int).sum(-1)
        assert brightness.min() > 0 and brightness[0] > brightness[20] > brightness[-1], depth_type


def test_constant_and_wholly_unknown_depth_have_a_image() -> None:
    middle = tuple(matplotlib.colormaps["plasma"](0.5, bytes=True)[:3])
    assert colours_of(colourise_depth(np.full((4, 5), 7.0))) == {middle}
    assert colours_of(colourise_depth(np.zeros((4, 5)))) == {(0, 0, 0)}


def test_blend_is_the_weighted_mean_and_leaves_ignored_pixels() -> None:
    image = np.full((1, 2, 3), 100, np.uint8)
    blended = blend_labels(image, np.array([[3, 255]]), CAMVID11.palette)
    # 0.45 of the image and 0.55 of (128, 64, 128), rounded.
    assert blended.tolist() == [[[115, 80, 115], [100, 100, 100]]]
    with pytest.raises(ValueError, match="one size"):
        blend_labels(image, np.zeros((2, 2), int), CAMVID11.palette)


def test_shares_count_the_pixels_that_are_not_ignored() -> None:
    labels = np.array([[3, 3, 3, 8], [1, 255, 255, 255]])
    assert class_shares(labels, CAMVID11) == {"Road": 0.6, "Building": 0.2, "Car": 0.2}
    assert list(class_shares(labels, CAMVID11)) == ["Road", "Building", "Car"]
    assert class_shares(np.full((2, 2), 255), CAMVID11) == {}


@pytest.mark.parametrize(("height", "width", "zoom"), [(40, 60, 8), (30, 480, 1), (30, 900, 1)])
def test_overlay_has_the_image_on_top_and_a_legend_of_the_present_classes_only(height, width, zoom) -> None:
    image = np.full((height, width, 3), 200, np.uint8)
    labels = np.full((height, width), CAMVID11.label2id["Road"])
    labels[:5] = CAMVID11.label2id["Car"]
    labels[5:6] = 255
    painted = overlay(image, labels, CAMVID11)
    assert painted.shape[1] == zoom * width
    blended = blend_labels(image, labels, CAMVID11.palette)
    assert np.array_equal(painted[: zoom * height : zoom, ::zoom], blended)
    legend = colours_of(painted[zoom * height :])
    assert {ROAD, CAR, (255, 255, 255)} <= legend
    absent = set(CAMVID11.palette) - {ROAD, CAR, SKY}  # the sky's grey also occurs at the edges of letters
    assert not absent & legend
    assert legend_of([labels], CAMVID11) == {"Road": ROAD, "Car": CAR}


def test_legend_flows_over_lines_and_stays_inside() -> None:
    labels = np.arange(11).repeat(50)[None].repeat(4, axis=0)
    image = overlay(np.zeros((4, 550, 3), np.uint8), labels, CAMVID11)
    legend = image[4:]
    assert set(CAMVID11.palette) <= colours_of(legend)
    assert colours_of(legend[:, -2:]) == {(255, 255, 255)}, "text runs into the right edge"
    assert colours_of(legend[-2:]) == {(255, 255, 255)}, "text runs into the lower edge"


def test_an_overlay_of_ignored_pixels_has_no_legend() -> None:
    image = np.full((20, 500, 3), 9, np.uint8)
    assert np.array_equal(overlay(image, np.full((20, 500), 255), CAMVID11), image)


def test_sixteen_bit_images_keep_their_values(tmp_path) -> None:
    values = np.array([[0, 1, 256, 65535]], np.uint16)
    write_image(tmp_path / "depth.png", values)
    assert np.array_equal(np.array(Image.open(tmp_path / "depth.png")), values)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half of the new te")
        raise RuntimeError
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file.txt": "old"}
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file.txt": "new"}


def test_every_kind_is_painted():
    generator = torch.Generator().manual_seed(0)
    image, disparity = torch.rand(3, 4, 6, generator=generator), torch.rand(2, 3, generator=generator)
    error = torch.rand(4, 6, generator=generator)
    maps = {
        "target": image,
        "warped": image.clone().requires_grad_(),
        "disparity": disparity,
        "error": error,
        "auto_mask": error > 0.5,
    }
    images = colourise_monitor(maps)
    assert list(images) == list(maps)
    for name, painted in images.items():
        assert painted.dtype == np.uint8 and painted.shape == ((2, 3, 3) if name == "disparity" else (4, 6, 3))
    expected = (image * 255).round().permute(1, 2, 0).numpy()
    assert all((images[name] == expected).all() for name in ("target", "warped"))
    np.testing.assert_array_equal(images["disparity"], colourise_inverse_depth(disparity.double().numpy()))
    np.testing.assert_array_equal(images["auto_mask"][..., 1], np.where(error > 0.5, 255, 0))


def test_error_has_a_fixed_scale():
    image = colourise_error(np.array([[0.0, ERROR_LIMIT / 2, ERROR_LIMIT, 1.0, np.nan, np.inf]]))
    ends = [list(matplotlib.colormaps["inferno"](share, bytes=True)[:3]) for share in (0.0, 0.5, 1.0)]
    assert image[0].tolist() == [ends[0], ends[1], ends[2], ends[2], ends[0], ends[2]]
    brightness = colourise_error(np.linspace(0, ERROR_LIMIT, 20)[None]).sum(-1)[0]
    assert brightness[0] < 10 and (np.diff(brightness.astype(int)) > 0).all()


def test_numbers_out_of_range_do_not_wrap_around():
    image = image_of(torch.tensor([-0.1, 1.2, float("nan")]).view(1, 1, 3).expand(3, 1, 3))
    assert image[0, :, 0].tolist() == [0, 255, 0]
