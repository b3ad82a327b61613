import contextlib
import io
import json
import logging
import os
import signal
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from rounding import assert_same_ids, rounding_bound
from transformers import ViTConfig, ViTForImageClassification

from depthseg.cli import main
from depthseg.data import load_dataset
from depthseg.data.images import read_depth
from depthseg.data.label_spaces import CAMVID11, LABEL_SPACES, LabelSpace
from depthseg.engine.predict import label_space_of, predict
from depthseg.engine.prediction_files import write_maps
from depthseg.engine.prediction_inputs import find_inputs, unique_names
from depthseg.engine.stopping import Stopped
from depthseg.engine.visualization import (
    DEPTH_COLOURMAP,
    colourise_depth,
    colourise_inverse_depth,
    colourise_labels,
    overlay,
)
from depthseg.models import (
    DepthSegConfig,
    DepthSegForDepthEstimation,
    DepthSegForSemanticSegmentation,
    DepthSegImageProcessor,
)

SIZES = {"wide": (30, 70), "tall": (64, 21)}
NEXT_COLOUR = np.abs(
    np.diff(np.array(matplotlib.colormaps[DEPTH_COLOURMAP](range(256), bytes=True), int), axis=0)
).max()


def save_model(folder: Path, cls: type, seed: int = 0, **options) -> torch.nn.Module:
    torch.manual_seed(seed)
    encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
    model = cls(DepthSegConfig(encoder_config=encoder, **options)).eval()
    model.save_pretrained(folder)
    DepthSegImageProcessor(size={"height": 32, "width": 64}).save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, images: Path):
    """A segmenter that kept its depth predictor, its folder, and the folder of its predictions."""
    folder = tmp_path_factory.mktemp("both")
    names = {"id2label": CAMVID11.id2label, "label2id": CAMVID11.label2id}
    model = save_model(folder / "model", DepthSegForSemanticSegmentation, keep_depth=True, **names)
    # On the CPU, as `by_hand` is: a GPU rounds convolutions to ten bits (TF32) unless it is told otherwise.
    result = predict(folder / "model", [images], folder / "out", device="cpu")
    assert (sorted(result.names), result.failures) == (sorted(SIZES), ())
    return model, folder


def by_hand(model: torch.nn.Module, path: Path, key: str) -> np.ndarray:
    """The forward pass written out: Pillow's resize, ImageNet's scaling, bilinear upsampling of the output."""
    with Image.open(path) as image:
        pixels = np.asarray(image.resize((64, 32), Image.Resampling.BILINEAR), np.float32) / 255
        size = image.size[::-1]
    pixels = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    with torch.no_grad():
        output = model(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()))[key]
    output = output if output.dim() == 4 else output[:, None]
    return torch.nn.functional.interpolate(output, size=size, mode="bilinear", align_corners=False)[0].numpy()


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def assert_painted(image: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for single pixels between two colours: sums of floats depend on their order, which is not fixed."""
    difference = np.abs(image.astype(int) - expected.astype(int)).max(-1)
    assert (difference > 0).mean() < 0.002
    assert difference.max() <= NEXT_COLOUR


@pytest.mark.parametrize("name", SIZES)
def test_label_png_holds_the_models_ids_at_the_images_own_size(both, images: Path, name: str) -> None:
    model, folder = both
    labels = read(folder / "out" / "labels" / f"{name}.png")
    assert labels.shape == SIZES[name]
    assert len(np.unique(labels)) > 1
    assert_same_ids(labels, by_hand(model, images / f"{name}.png", "logits"))
    with Image.open(folder / "out" / "labels" / f"{name}.png") as painted:
        np.testing.assert_array_equal(painted.convert("RGB"), colourise_labels(labels, CAMVID11.palette))
    image = read(images / f"{name}.png")
    np.testing.assert_array_equal(read(folder / "out" / "overlay" / f"{name}.png"), overlay(image, labels, CAMVID11))


@pytest.mark.parametrize("name", SIZES)
def test_depth_png_holds_metres_in_kittis_form(both, images: Path, name: str) -> None:
    model, folder = both
    expected = by_hand(model, images / f"{name}.png", "predicted_depth")[0]
    assert expected.max() < 256
    depth = read_depth(folder / "out" / "depth" / f"{name}.png")
    assert depth.shape == SIZES[name]
    np.testing.assert_allclose(depth, expected, atol=0.5 / 256 + rounding_bound(expected))
    assert_painted(read(folder / "out" / "depth_colour" / f"{name}.png"), colourise_depth(expected))


def test_json_says_what_was_seen_in_which_image_by_which_model(both, images: Path) -> None:
    model, folder = both
    record = json.loads((folder / "out" / "json" / "wide.json").read_text())
    labels = read(folder / "out" / "labels" / "wide.png")
    assert record["image"] == str(images / "wide.png")
    assert record["model"] == str(folder / "model")
    assert (record["height"], record["width"]) == SIZES["wide"]
    assert record["classes"] == pytest.approx(
        {CAMVID11.classes[i]: float((labels == i).mean()) for i in np.unique(labels)}
    )
    assert sum(record["classes"].values()) == pytest.approx(1)
    assert record["depth"]["type"] == "disparity"
    assert (record["depth"]["file_scale"], record["depth"]["file_offset"]) == (256, 0)


def test_predictions_are_labels_and_depth_of_a_data_folder(both, images: Path, tmp_path: Path) -> None:
    out = both[1] / "out"
    (tmp_path / "images").symlink_to(images)
    for kind in ("labels", "depth"):
        (tmp_path / kind).symlink_to(out / kind)
    (tmp_path / "classes.txt").write_text("\n".join(CAMVID11.classes))
    samples = {sample.name: sample for sample in load_dataset("folder", tmp_path, "all")}
    for name in SIZES:
        np.testing.assert_array_equal(samples[name].labels, read(out / "labels" / f"{name}.png"))
        np.testing.assert_array_equal(samples[name].depth, read_depth(out / "depth" / f"{name}.png"))


@pytest.mark.parametrize(("depth_type", "sign"), [("relative_inverse", 1), ("relative", -1)])
def test_a_relative_depth_model_says_how_to_read_its_file(
    tmp_path: Path, images: Path, depth_type: str, sign: int
) -> None:
    model = save_model(tmp_path / "model", DepthSegForDepthEstimation, depth_type=depth_type)
    with torch.no_grad():
        for parameter in model.depth_predictor.parameters():
            parameter.add_(0.05)  # away from the zeros of the ReLU
    model.save_pretrained(tmp_path / "model")
    assert predict(tmp_path / "model", [images / "wide.png"], tmp_path / "out", device="cpu").failures == ()
    expected = by_hand(model, images / "wide.png", "predicted_depth")[0]
    assert expected.std() > 0
    record = json.loads((tmp_path / "out" / "json" / "wide.json").read_text())
    assert "classes" not in record
    assert not (tmp_path / "out" / "labels").exists()
    stored = read(tmp_path / "out" / "depth" / "wide.png").astype(np.float64)
    value = stored / record["depth"]["file_scale"] + record["depth"]["file_offset"]
    step = 1.01 * (expected.max() - expected.min()) / 65535
    np.testing.assert_allclose(value, expected, atol=step + rounding_bound(expected))
    coloured = read(tmp_path / "out" / "depth_colour" / "wide.png")
    # Near is bright: what is large where it is inverse depth, and what is small where it is depth.
    assert_painted(coloured, colourise_inverse_depth(sign * expected))


def test_metres_beyond_sixteen_bits_are_clipped_and_zero_stays_unknown(tmp_path: Path, images: Path) -> None:
    for name, limits in {"far": (500.0, 900.0), "near": (1e-4, 1e-3)}.items():
        options = {"depth_type": "disparity", "min_depth": limits[0], "max_depth": limits[1]}
        save_model(tmp_path / name, DepthSegForDepthEstimation, **options)
        predict(tmp_path / name, [images / "tall.png"], tmp_path / "out" / name)
    assert set(np.unique(read(tmp_path / "out" / "far" / "depth" / "tall.png"))) == {65535}
    assert set(np.unique(read(tmp_path / "out" / "near" / "depth" / "tall.png"))) == {1}


def test_an_image_that_cannot_be_read_does_not_stop_the_others(both, images: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "truncated.png").write_bytes((images / "wide.png").read_bytes()[:1500])
    (bad / "text.jpg").write_text("no image")
    wanted = [tmp_path / "absent.png", bad, images / "tall.png"]
    result = predict(both[1] / "model", wanted, tmp_path / "out")
    assert result.names == ("tall",)
    assert len(result.failures) == 3
    for name in ("absent.png", "truncated.png", "text.jpg"):
        assert sum(name in sentence for sentence in result.failures) == 1
    assert {path.name for path in (tmp_path / "out").rglob("*.*")} == {"tall.png", "tall.json"}


def test_images_of_one_stem_get_names_of_their_own(both, images: Path, tmp_path: Path) -> None:
    for folder, name in (("a", "x.png"), ("b", "x.png"), ("b", "x-2.png")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes((images / "tall.png").read_bytes())
    files = [tmp_path / "b" / "x-2.png", tmp_path / "a", tmp_path / "b" / "x.png"]
    result = predict(both[1] / "model", files, tmp_path / "out")
    assert result.names == ("x-2", "x", "x-3")
    sources = {path.stem: json.loads(path.read_text())["image"] for path in (tmp_path / "out" / "json").iterdir()}
    assert sources == {"x-2": str(files[0]), "x": str(tmp_path / "a" / "x.png"), "x-3": str(files[2])}
    assert unique_names([Path("street.png"), Path("Street.jpg")]) == ["street", "Street-2"]


def test_a_file_named_twice_is_done_once_and_nothing_is_an_error(images: Path, tmp_path: Path) -> None:
    found = find_inputs([images / "wide.png", images, images / ".." / images.name / "wide.png"])
    assert [file.name for file in found.images] == ["wide.png", "tall.png"]
    assert (found.videos, found.faults, found.skipped) == ([], [], [])
    nothing = f"no image to predict. {tmp_path} holds no image and no video; images end in .bmp, .jpeg"
    with pytest.raises(ValueError, match=nothing):
        find_inputs([tmp_path])
    with pytest.raises(ValueError, match=f"There are some in {images}."):
        find_inputs([images.parent])


@pytest.mark.parametrize("ending", [".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".TIF", ".WebP", ".PNG"])
def test_images_of_every_format_are_found_whatever_the_case(tmp_path: Path, ending: str) -> None:
    Image.new("RGB" if ending != ".pgm" else "L", (4, 3), 7).save(tmp_path / f"a{ending}")
    assert find_inputs([tmp_path]).images == [tmp_path / f"a{ending}"]


def test_patterns_and_lists_are_taken_apart(images: Path, tmp_path: Path, monkeypatch) -> None:
    for name in ("b/frame10.png", "b/frame2.png", "b/c/deep.jpg", "b/clip.MP4", "list[1].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_inputs([f"{tmp_path}/b/*.png", f"{tmp_path}/**/*.jpg", tmp_path / "list[1].png", f"{tmp_path}/*.gif"])
    assert [path.name for path in found.images] == ["frame2.png", "frame10.png", "deep.jpg", "list[1].png"]
    assert [str(fault) for fault in found.faults] == [f"No file matches {tmp_path}/*.gif."]
    lines = f"{tmp_path}/b\n\n{tmp_path}/b/c/*\r\n-\n{images}\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    found = find_inputs(["-"])
    names = [path.name for path in found.images]
    assert names == ["frame10.png", "frame2.png", "deep.jpg", "tall.png", "wide.png"]
    assert [path.name for path in found.videos] == ["clip.MP4"]
    assert [str(fault) for fault in found.faults] == ["There is no file -."]


def test_images_of_one_size_go_through_together(both, images: Path, tmp_path: Path, monkeypatch) -> None:
    """A broken image among them and outputs that are not finite are the fault of one alone."""
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = read(images / "wide.png")
    for index in range(5):
        Image.fromarray(np.roll(pixels, 7 * index, axis=1)).save(folder / f"{index}.png")
    (folder / "2.png").write_bytes(b"broken")
    seen = []
    processed = DepthSegImageProcessor.preprocess

    def counted(self, images, *words, **options):
        seen.append(len(images))
        return processed(self, images, *words, **options)

    monkeypatch.setattr(DepthSegImageProcessor, "preprocess", counted)
    result = predict(both[1] / "model", [folder], tmp_path / "out", batch_size=3, device="cpu")
    assert seen == [3, 1]
    assert result.names == ("0", "1", "3", "4") and "2.png" in result.failures[0]
    seen.clear()
    predict(both[1] / "model", [folder], tmp_path / "single", device="cpu")
    assert seen == [1] * 4
    for name in result.names:
        together, alone = (read(tmp_path / out / "labels" / f"{name}.png") for out in ("out", "single"))
        assert (together == alone).mean() > 0.999


def logits_of_whole(model, file: Path) -> torch.Tensor:
    pixels = read(file).astype(np.float32) / 255
    pixels = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    with torch.no_grad():
        return model(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())).logits[0]


def test_a_native_prediction_sees_the_image_at_its_own_size(both, images: Path, tmp_path: Path) -> None:
    model, folder = both
    Image.fromarray(read(images / "wide.png")[:24, :50]).save(tmp_path / "part.png")
    predict(folder / "model", [tmp_path / "part.png"], tmp_path, native=True, device="cpu")
    assert_same_ids(read(tmp_path / "labels" / "part.png"), logits_of_whole(model, tmp_path / "part.png"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"smooth": 0.5}, "--smooth follows the motion of videos, and there is none"),
        ({"smooth": 1.5}, "--smooth is 1.5; it is the weight of earlier frames, above 0 and below 1"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"batch_size": 4}, "--batch-size 4 has no effect: no two images that follow each other have the same size"),
        ({"tile": (64, 64)}, "--tile 64x64 has no effect: the network sees at most 32x64 .* With --native"),
    ],
)
def test_options_without_effect_are_refused(both, images: Path, tmp_path: Path, options, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        predict(both[1] / "model", [images], tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_native_tile_as_large_as_the_image_shows_it_whole(both, images: Path, tmp_path: Path) -> None:
    """Without it, an image of more pixels than the processor's 32x64 is cut."""
    model, folder = both
    Image.fromarray(read(images / "wide.png")).resize((96, 64)).save(tmp_path / "large.png")
    predict(folder / "model", [tmp_path / "large.png"], tmp_path, native=True, tile=(64, 96), device="cpu")
    assert_same_ids(read(tmp_path / "labels" / "large.png"), logits_of_whole(model, tmp_path / "large.png"))
    Image.new("RGB", (48, 32)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="--tile 80x80 has no effect: the network sees at most 32x48 .* Leave it out"):
        predict(folder / "model", [tmp_path / "small.png"], tmp_path / "out", native=True, tile=(80, 80))


def test_native_is_refused_where_it_changes_nothing(both, tmp_path: Path) -> None:
    Image.new("RGB", (64, 32)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="--native has no effect: all inputs have the size .* 32x64"):
        predict(both[1] / "model", [tmp_path / "a.png"], tmp_path / "out", native=True)
    both[0].save_pretrained(tmp_path / "model")
    DepthSegImageProcessor().save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="--native has no effect: the image processor of this model does not resize"):
        predict(tmp_path / "model", [tmp_path / "a.png"], tmp_path / "out", native=True)


def test_a_signal_between_images_keeps_what_is_done(both, images: Path, tmp_path: Path, monkeypatch) -> None:
    written = []

    def write(*words):
        written.append(1)
        os.kill(os.getpid(), signal.SIGINT) if len(written) == 1 else None
        return write_maps(*words)

    monkeypatch.setattr("depthseg.engine.predict_images.write_maps", write)
    for count in (1, 2):
        with pytest.raises(Stopped) if count == 1 else contextlib.nullcontext():
            result = predict(both[1] / "model", [images], tmp_path, device="cpu")
        assert len(list((tmp_path / "labels").iterdir())) == count == len(written)
    assert result.names == ("tall", "wide") and not (tmp_path / ".unfinished").exists()


def test_what_is_skipped_is_counted_and_named(both, images: Path, tmp_path: Path, caplog) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("b.heic", "notes.txt", ".DS_Store", "Thumbs.db"):
        (folder / name).write_text("no image")
    (folder / "a.png").write_bytes((images / "tall.png").read_bytes())
    result = predict(both[1] / "model", [folder, folder], tmp_path / "out")
    assert (result.names, result.failures) == (("a",), ())
    assert result.skipped == (folder / "b.heic", folder / "notes.txt")
    assert "2 files are not images or videos that are read and were skipped: b.heic, notes.txt." in caplog.messages
    (folder / "notes.txt").unlink()
    predict(both[1] / "model", [folder], tmp_path / "other")
    assert "1 file is not an image or video that is read and was skipped: b.heic." in caplog.messages


def test_images_with_the_same_fault_are_one_message(both, images: Path, tmp_path: Path, capsys) -> None:
    for index in range(4):
        (tmp_path / f"broken{index}.png").write_bytes((images / "wide.png").read_bytes()[: 1500 + index])
    with pytest.raises(SystemExit) as end:
        main(["predict", str(both[1] / "model"), str(tmp_path), str(images), "--output-dir", str(tmp_path / "out")])
    assert end.value.code == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {tmp_path}/broken0.png is truncated or damaged")
    assert errors[0].endswith("4 files have this fault: broken0.png, broken1.png, broken2.png, ....")


@pytest.mark.parametrize("kind", ["labels", "depth", "json"])
def test_existing_files_are_kept_unless_asked(both, images: Path, tmp_path: Path, kind: str) -> None:
    precious = tmp_path / kind / ("tall.json" if kind == "json" else "tall.png")
    precious.parent.mkdir()
    precious.write_text("drawn by hand")
    with pytest.raises(FileExistsError, match=str(precious)):
        predict(both[1] / "model", [images], tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [precious]
    assert precious.read_text() == "drawn by hand"
    predict(both[1] / "model", [images / "tall.png"], tmp_path, overwrite=True)
    assert precious.read_bytes() != b"drawn by hand"


def test_damaged_weights_never_become_a_image(images: Path, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", DepthSegForSemanticSegmentation, num_labels=3)
    with torch.no_grad():
        next(model.classifier.parameters()).view(-1)[0] = float("nan")
    model.save_pretrained(tmp_path / "model")
    result = predict(tmp_path / "model", [images / "tall.png"], tmp_path / "out")
    assert result.names == ()
    assert len(result.failures) == 1
    assert "tall.png" in result.failures[0] and "not finite" in result.failures[0]
    assert not (tmp_path / "out").exists()


def test_checkpoints_of_others_and_folders_without_one_get_a_sentence(images: Path, tmp_path: Path) -> None:
    tiny = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=16)
    logging.disable(logging.WARNING)
    ViTForImageClassification(tiny).save_pretrained(tmp_path / "vit")
    logging.disable(logging.NOTSET)
    with pytest.raises(ValueError, match="model of type 'vit'"):
        predict(tmp_path / "vit", [images], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        predict(tmp_path, [images], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_classes_have_their_usual_colours_where_they_have_some() -> None:
    known = DepthSegConfig(id2label=CAMVID11.id2label, label2id=CAMVID11.label2id)
    assert label_space_of(known) is CAMVID11
    other = label_space_of(DepthSegConfig(id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1}))
    assert isinstance(other, LabelSpace) and other.classes == ("cat", "dog") and len(set(other.palette)) == 2
    one = label_space_of(DepthSegConfig(num_labels=1, id2label={0: "crack"}))
    assert one.classes == ("background", "crack") and one.one_class
    for name, space in LABEL_SPACES.items():
        found = label_space_of(DepthSegConfig(id2label=space.id2label, label2id=space.label2id))
        changed = [ours for ours, usual in zip(found.palette, space.palette, strict=True) if ours != usual]
        assert found.classes == space.classes and min(map(max, found.palette)) > 0
        assert len(changed) == space.palette.count((0, 0, 0)), name
    assert min(map(max, (*one.palette, *other.palette))) > 0
