import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from depthseg.data.image_folders import image_files
from depthseg.data.images import (
    bit_depth_of,
    check_ids,
    check_same_size,
    read_depth,
    read_image,
    read_labels,
    read_palette,
)


def write_png(path, rows, width, bit_depth, colour_type):
    """A PNG from packed rows, written by the letter of the format, without Pillow."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, len(rows), bit_depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def random_rgb(size=(7, 9), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_rgb_is_read_exactly(tmp_path):
    pixels = random_rgb()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), pixels)


def test_alpha_is_dropped_and_grey_is_repeated(tmp_path):
    pixels = random_rgb()
    Image.fromarray(np.dstack([pixels, pixels[..., 0]])).save(tmp_path / "rgba.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "rgba.png"), pixels)
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(pixels[..., :1], 3, axis=2))


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_grey_of_more_than_8_bits_keeps_its_values(tmp_path, ending):
    values = np.array([[0, 255, 256, 40000, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{ending}")
    read = read_image(tmp_path / f"a.{ending}")
    assert read.dtype == np.uint16 and np.array_equal(read, values)


def test_integers_of_32_bits_are_16_bits_where_they_fit(tmp_path):
    for name, values in (("fits", [0, 65535]), ("large", [0, 65536]), ("negative", [-1, 5])):
        Image.fromarray(np.array([values], np.int32)).save(tmp_path / f"{name}.tiff")
    read = read_image(tmp_path / "fits.tiff")
    assert read.dtype == np.uint16 and read.tolist() == [[0, 65535]]
    for name, found in (("large", "0 to 65536"), ("negative", "-1 to 5")):
        with pytest.raises(ValueError, match=f"{name}.tiff holds grey values from {found}"):
            read_image(tmp_path / f"{name}.tiff")


@pytest.mark.parametrize(
    ("largest", "bits"), [(0, 8), (255, 8), (256, 10), (1024, 12), (4095, 12), (4096, 14), (16384, 16), (65535, 16)]
)
def test_bit_depths(largest, bits):
    assert bit_depth_of(largest) == bits


def test_sixteen_bit_rgb_keeps_the_upper_byte(tmp_path):
    write_png(tmp_path / "a.png", [struct.pack(">6H", 0, 256, 65535, 40000, 30000, 511)], 2, 16, 2)
    assert read_image(tmp_path / "a.png").tolist() == [[[0, 1, 255], [40000 // 256, 30000 // 256, 1]]]


def test_cmyk_is_converted(tmp_path):
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - (0, 255, 255)).max() <= 2


def test_exif_orientation_is_applied(tmp_path):
    pixels = random_rgb((4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying; shown turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(pixels, -1))


def test_floating_point_images_keep_their_values_unless_they_are_no_numbers(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    read = read_image(tmp_path / "a.tiff")
    assert read.dtype == np.float32 and np.array_equal(read, values)
    values[1, 1] = np.nan
    Image.fromarray(values).save(tmp_path / "b.tiff")
    with pytest.raises(ValueError, match="b.tiff holds NaN"):
        read_image(tmp_path / "b.tiff")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_truncated_images_are_named(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(random_rgb((64, 64))).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"{name} is truncated or damaged"):
        read_image(path)


def test_a_damaged_byte_is_named(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(random_rgb((64, 64))).save(path)
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a.png is truncated or damaged"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image at all"])
def test_files_that_are_no_images_are_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match="a.png is not an image"):
        read_image(tmp_path / "a.png")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*a.png"):
        read_image(tmp_path / "a.png")


def test_palette_labels_are_indices_not_colours(tmp_path):
    ids = np.array([[0, 1, 2], [2, 255, 0]], dtype=np.uint8)
    image = Image.fromarray(ids, mode="P")
    # Two classes have the same colour: only the index tells them apart. (Pillow cuts the ids of a short palette off.)
    image.putpalette([10, 20, 30, 200, 0, 0, 200, 0, 0] + [0] * 759)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_labels(tmp_path / "a.png"), ids)
    assert read_palette(tmp_path / "a.png")[:3] == ((10, 20, 30), (200, 0, 0), (200, 0, 0))


@pytest.mark.parametrize(
    ("bit_depth", "packed", "ids"),
    [(1, [0b10110000], [1, 0, 1, 1]), (2, [0b00011011], [0, 1, 2, 3]), (4, [0x0A, 0x3F], [0, 10, 3, 15])],
)
@pytest.mark.parametrize("colour_type", [0, 3])
def test_packed_grey_and_palette_labels_keep_their_ids(tmp_path, bit_depth, packed, ids, colour_type):
    if colour_type == 3:
        image = Image.fromarray(np.array([ids], np.uint8), mode="P")
        image.putpalette(list(range(48)))
        image.save(tmp_path / "a.png", bits=bit_depth)
        assert (tmp_path / "a.png").read_bytes()[24] == bit_depth
    else:
        write_png(tmp_path / "a.png", [bytes(packed)], 4, bit_depth, colour_type)
    assert read_labels(tmp_path / "a.png").tolist() == [ids]


def test_sixteen_bit_labels_keep_their_ids(tmp_path):
    ids = np.array([[0, 300, 65535]], dtype=np.uint16)
    Image.fromarray(ids).save(tmp_path / "a.png")
    assert read_labels(tmp_path / "a.png").tolist() == ids.tolist()
    with pytest.raises(
        ValueError, match=r"a.png holds class ids outside .*: 300, 65535. Allowed are 0 to 10, and 255"
    ):
        check_ids(tmp_path / "a.png", read_labels(tmp_path / "a.png"), 11)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colour_labels_are_refused(tmp_path, channels):
    Image.fromarray(np.zeros((3, 3, channels), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png is a colour image"):
        read_labels(tmp_path / "a.png")


def test_depth_is_metres(tmp_path):
    Image.fromarray(np.array([[0, 256, 20480, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    depth = read_depth(tmp_path / "a.png")
    assert depth.dtype == np.float32
    assert depth.tolist() == [[0.0, 1.0, 80.0, 65535 / 256]]
    assert read_depth(tmp_path / "a.png", scale=1000).tolist() == [[0.0, *np.float32([0.256, 20.48, 65.535]).tolist()]]


def test_eight_bit_depth_is_refused(tmp_path):
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png has mode L, but a depth map is a 16-bit"):
        read_depth(tmp_path / "a.png")


def test_other_sizes_are_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"labels/a.png is 4x5 pixels, .*images/a.jpg is\s+6x5"):
        check_same_size("images/a.jpg", np.zeros((5, 6, 3)), "labels/a.png", np.zeros((5, 4)))


def test_image_files_are_sorted_and_hidden_ones_left_out(tmp_path):
    for name in ("b.JPG", "a.png", "c.jpeg", "._a.png", "notes.txt"):
        (tmp_path / name).touch()
    assert list(image_files(tmp_path)) == ["a", "b", "c"]
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ValueError, match="same stem"):
        image_files(tmp_path)


def test_folders_without_images_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no image"):
        image_files(tmp_path)
    with pytest.raises(FileNotFoundError, match="missing does not exist"):
        image_files(tmp_path / "missing")
