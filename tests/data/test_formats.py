"""Which files are read: formats, endings of either case, and what is refused or left out."""

import numpy as np
import pytest
from PIL import Image

from depthseg.data import CamVid, FolderDataset, StereoPairs, VideoSequences
from depthseg.data.image_folders import LABEL_SUFFIXES, MapFiles
from depthseg.data.images import read_depth, read_image, read_labels, read_thumbnail

IDS = np.array([[0, 1, 2, 3], [4, 200, 255, 7]], np.uint8)


def random_rgb(size=(6, 8), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("ending", ["bmp", "ppm", "png", "tif", "TIFF", "webp"])
def test_lossless_photographs_are_read_exactly(tmp_path, ending):
    pixels = random_rgb()
    Image.fromarray(pixels).save(tmp_path / f"a.{ending}", **({"lossless": True} if ending == "webp" else {}))
    assert np.array_equal(read_image(tmp_path / f"a.{ending}"), pixels)


@pytest.mark.parametrize("ending", ["png", "PNG", "tif", "TIFF", "bmp", "gif"])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_label_maps_keep_their_ids_in_every_format(tmp_path, ending, mode):
    image = Image.fromarray(IDS)
    if mode == "P":
        image = Image.fromarray(IDS, mode="P")
        image.putpalette([value for index in range(256) for value in (index * 7 % 256, index, 255 - index)])
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (4, 2)).save(tmp_path / "images" / "a.webp")
    image.save(tmp_path / "labels" / f"a.{ending}", **({"optimize": False} if ending == "gif" else {}))
    (tmp_path / "classes.txt").write_text("\n".join(f"class {index}" for index in range(201)))
    sample = FolderDataset(tmp_path, "train", val_fraction=0)[0]
    assert sample.labels.tolist() == IDS.tolist()


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_label_maps_of_four_bits_keep_their_ids_in_tiff(tmp_path, compression):
    ids = np.array([[0, 10, 3, 15]], np.uint8)
    # Pillow writes no grey TIFF of 4 bits: one strip of two bytes, by the letter of the format.
    tags = [(256, 4), (257, 1), (258, 4), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 2)]
    body = b"".join(np.array([tag, 3], "<u2").tobytes() + np.array([1, value], "<u4").tobytes() for tag, value in tags)
    header = b"II*\0" + np.array([10], "<u4").tobytes() + bytes([0x0A, 0x3F])
    path = tmp_path / "a.tif"
    path.write_bytes(header + np.array([len(tags)], "<u2").tobytes() + body + bytes(4))
    if compression:
        palette = Image.fromarray(ids, mode="P")
        palette.putpalette(list(range(48)))
        palette.save(path, compression=compression)
    assert read_labels(path).tolist() == ids.tolist()


def test_jpeg_and_webp_are_no_label_maps(tmp_path):
    assert not {".jpg", ".jpeg", ".webp"} & set(LABEL_SUFFIXES)
    Image.fromarray(IDS.astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="a.tif holds floating-point values, but a label map holds whole numbers"):
        read_labels(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.PNG", "a.tif", "a.TIFF"])
def test_depth_of_sixteen_bits_is_found_whatever_its_ending(tmp_path, name):
    Image.fromarray(np.array([[0, 256, 65535]], np.uint16)).save(tmp_path / name)
    assert read_depth(MapFiles(tmp_path).find("a")).tolist() == [[0, 1, 65535 / 256]]


def test_a_tiff_of_floating_point_numbers_holds_metres(tmp_path):
    Image.fromarray(np.array([[0, 1.5, np.nan, np.inf]], np.float32)).save(tmp_path / "a.tif")
    assert read_depth(tmp_path / "a.tif", scale=1000).tolist() == [[0, 1.5, 0, 0]]
    Image.fromarray(np.array([[-1, 1.5]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="a.tif holds negative values, the lowest is -1"):
        read_depth(tmp_path / "a.tif")
    Image.fromarray(np.array([[-5, 1]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="a.tif holds negative values, the lowest is -5"):
        read_depth(tmp_path / "a.tif")


def test_camvid_takes_endings_in_upper_case(tmp_path):
    for folder in ("val", "valannot"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "val" / "s_1.png")
    Image.new("L", (3, 2), 5).save(tmp_path / "valannot" / "s_1.PNG")
    assert np.unique(CamVid(tmp_path, "val")[0].labels).tolist() == [5]


def test_pairs_and_frames_are_of_any_format(tmp_path):
    for side in ("left", "right", "disparity", "frames"):
        (tmp_path / side).mkdir()
    pixels = random_rgb()
    Image.fromarray(pixels).save(tmp_path / "left" / "a.tif")
    Image.fromarray(pixels).save(tmp_path / "right" / "a.BMP")
    Image.fromarray(np.full((6, 8), 512, np.uint16)).save(tmp_path / "disparity" / "a.PNG")
    pair = StereoPairs(tmp_path)[0]
    assert np.array_equal(pair.stereo, pixels) and np.unique(pair.depth).tolist() == [8 * 1 / 2]
    for index, ending in enumerate(("webp", "tif", "bmp")):
        Image.fromarray(random_rgb(seed=index)).save(tmp_path / "frames" / f"{index}.{ending}", lossless=True)
    assert np.array_equal(VideoSequences(tmp_path / "frames")[0].image, random_rgb(seed=1))


def test_a_file_too_many_is_named_only_where_there_are_two(tmp_path):
    Image.new("L", (1, 1)).save(tmp_path / "a.png")
    Image.new("L", (1, 1)).save(tmp_path / "a.tif")
    Image.new("L", (1, 1)).save(tmp_path / "b.png")
    files = MapFiles(tmp_path, LABEL_SUFFIXES)
    assert files.find("b") == tmp_path / "b.png" and files.find("c") is None
    assert MapFiles(tmp_path / "missing").find("a") is None
    with pytest.raises(ValueError, match=r"a.png and .*a.tif belong to the same image; remove all but one"):
        files.find("a")


@pytest.mark.parametrize("ending", ["webp", "gif", "tif", "png"])
def test_several_images_in_one_file_are_refused(tmp_path, ending):
    frames = [Image.fromarray(random_rgb(seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=f"a.{ending} holds 3 images .* Save each of them as its own file"):
        read_image(tmp_path / f"a.{ending}")


def test_smaller_copies_in_a_tiff_and_previews_in_a_phones_jpeg_do_not_count(tmp_path):
    full, small = Image.fromarray(random_rgb()), Image.fromarray(random_rgb((3, 4)))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    full.save(tmp_path / "a.tif", save_all=True, append_images=[small])
    with Image.open(tmp_path / "a.tif") as image:
        assert image.n_frames == 2
    assert np.array_equal(read_image(tmp_path / "a.tif"), random_rgb())
    full.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[small])
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    assert read_image(tmp_path / "a.jpg").shape == (6, 8, 3)


def test_a_file_that_unfolds_to_too_many_pixels_is_a_sentence(tmp_path, monkeypatch):
    Image.new("L", (30, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(ValueError, match=r"a.png has more than 800 pixels, .* Resize it or cut it into tiles"):
        read_image(tmp_path / "a.png")


def test_formats_that_start_other_programs_are_not_opened(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png is not an image that can be read"):
        read_image(tmp_path / "a.png")


def test_files_that_are_not_read_are_named_once(tmp_path, caplog):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (4, 2)).save(tmp_path / "images" / f"{name}.bmp")
        Image.new("L", (4, 2)).save(tmp_path / "labels" / f"{name}.PNG")
    for name in ("images/c.heic", "images/d.heic", "images/e.heic", "images/f.heic", "labels/a.json"):
        (tmp_path / name).touch()
    (tmp_path / "images" / ".hidden").touch()
    (tmp_path / "classes.txt").write_text("a\nb\n")
    for split in ("train", "val"):
        FolderDataset(tmp_path, split)
    named = [message for message in caplog.messages if "not read" in message]
    assert len(named) == 2
    assert named[0].startswith(f"4 files in {tmp_path}/images are not read: c.heic, d.heic, e.heic, .... Images end")
    assert named[1].startswith(f"1 file in {tmp_path}/labels is not read: a.json. Labels end in")


def test_a_thumbnail_is_the_mean_of_what_it_covers(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (4, 6)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = values.reshape(2, 2, 3, 2).mean(axis=(1, 3))
    assert np.allclose(read_thumbnail(tmp_path / "a.png", (3, 2)), expected, rtol=1e-5)
