"""What is behind the web page: parts against label maps, limits, messages, and the folder of a Space."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import yaml
from engine.demo_models import CLASSES, write_film, write_model, write_street
from guide_commands import PROJECT, read_guide
from PIL import Image

from depthseg.cli import main
from depthseg.cli.demo import HOST, PORT
from depthseg.data.decoding import VideoFrames
from depthseg.data.images import read_image
from depthseg.data.label_spaces import LabelSpace
from depthseg.engine import demo, demo_space
from depthseg.engine.demo import Limits, ShownPrediction

SPACE = LabelSpace("three", ("road", "sky", "sign"), ((128, 64, 128), (70, 130, 180), (220, 220, 0)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "segmenter")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return demo.load_checkpoints([str(folder)])[0]


def test_parts_are_the_areas_of_the_classes_and_cover_the_image_once():
    labels = np.uint8([[0, 0, 0, 1], [0, 2, 255, 1]])
    prediction = ShownPrediction(
        np.full((2, 4, 3), 100, np.uint8), labels, None, {"road": 4 / 7, "sky": 2 / 7, "sign": 1 / 7}, SPACE
    )
    parts = {name: area.tolist() for area, name in prediction.parts()}
    assert list(parts) == ["road", "sky", "sign"]
    assert parts["sky"] == [[False, False, False, True], [False, False, False, True]]
    covered = sum(area.astype(int) for area, _ in prediction.parts())
    assert covered.tolist() == [[1, 1, 1, 1], [1, 1, 0, 1]]  # all but the pixel that is ignored
    assert prediction.overlay()[1, 3].tolist() == [round(0.45 * 100 + 0.55 * value) for value in (70, 130, 180)]
    assert prediction.overlay()[1, 2].tolist() == [100, 100, 100]
    assert demo.hex_colours(SPACE) == {"road": "#804080", "sky": "#4682b4", "sign": "#dcdc00"}


def test_a_prediction_is_the_prediction_of_the_image(checkpoint, tmp_path):
    image = read_image(write_street(tmp_path / "street.png"))
    ((labels, depth),) = checkpoint.network.maps([image])
    prediction = demo.predict_to_show(checkpoint, image)
    assert np.array_equal(prediction.labels, labels) and np.array_equal(prediction.image, image)
    assert prediction.depth.shape == image.shape and depth.shape == labels.shape
    counts = {name: (labels == index).mean() for index, name in enumerate(CLASSES) if (labels == index).any()}
    assert prediction.shares == pytest.approx(counts) and sum(prediction.shares.values()) == pytest.approx(1)
    for area, name in prediction.parts():
        assert np.array_equal(area, labels == CLASSES.index(name))


def test_a_large_prediction_is_made_smaller_for_the_page_and_its_ids_are_not_mixed(checkpoint):
    image = np.random.default_rng(0).integers(0, 256, (90, 2560, 3), np.uint8)
    prediction = demo.predict_to_show(checkpoint, image)
    assert prediction.image.shape == prediction.depth.shape == (45, 1280, 3) and prediction.labels.shape == (45, 1280)
    ((labels, _),) = checkpoint.network.maps([image])
    assert set(np.unique(prediction.labels)) <= set(np.unique(labels))


def test_a_depth_model_shows_its_depth(tmp_path):
    (checkpoint,) = demo.load_checkpoints([str(write_model(tmp_path / "depth", depth_only=True))])
    prediction = demo.predict_to_show(checkpoint, demo.example_images(1)[0])
    assert not checkpoint.has_labels and prediction.parts() == [] and prediction.shares == {}
    assert np.array_equal(prediction.overlay(), prediction.depth)


def test_a_film_gives_its_overlay_frame_by_frame(checkpoint, tmp_path):
    film = demo.read_upload(write_film(tmp_path / "film.mp4"), Limits())
    written = VideoFrames(demo.predict_film(checkpoint, film, tmp_path / "work"))
    assert len(written) == len(film) == 6 and written.size == film.size
    *_, (_, image) = film.up_to(0)
    *_, (_, shown) = written.up_to(0)
    close = np.abs(shown.astype(int) - demo.predict_to_show(checkpoint, image).overlay()).mean()
    assert close < 8 < np.abs(shown.astype(int) - image).mean()


def small(folder):
    return write_street(folder / "street.png")


def broken(folder):
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    return folder / "broken.png"


def broken_film(folder):
    (folder / "broken.mp4").write_bytes(bytes(5000))
    return folder / "broken.mp4"


def hundred_megapixels(folder):
    Image.new("1", (10000, 10000)).save(folder / "large.png")
    return folder / "large.png"


def ten_frames(folder):
    return write_film(folder / "film.mp4", 10, rate=2)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("write", "limits", "words"),
    [
        (small, Limits(megabytes=0), ["street.png has 0 MB", "at most 0 MB"]),
        (hundred_megapixels, Limits(), ["large.png has 100 megapixels", "at most 25"]),
        (broken, Limits(), ["broken.png is"]),
        (broken_film, Limits(), ["broken.mp4 is not a video that can be read"]),
        (ten_frames, Limits(film_seconds=4), ["film.mp4 has 4.5 seconds and 10 frames", "at most 4 seconds"]),
        (ten_frames, Limits(film_frames=9), ["10 frames", "and 9 frames"]),
        (ten_frames, Limits(film_width=95), ["have 96x64 pixels", "at most 95x1080"]),
        (ten_frames, Limits(film_height=63), ["at most 1920x63"]),
    ],
)
def test_what_is_beyond_a_limit_is_a_sentence(write, limits, words, tmp_path):
    path = write(tmp_path)
    with pytest.raises(ValueError) as error:
        demo.read_upload(path, limits)
    assert all(word in str(error.value) for word in words), error.value


def test_what_is_within_the_limits_is_read(tmp_path):
    assert demo.read_upload(small(tmp_path), Limits(megapixels=0.0185)).shape == (96, 192, 3)
    assert len(demo.read_upload(ten_frames(tmp_path), Limits(film_seconds=4.5, film_frames=10))) == 10


def test_the_limits_are_stated():
    sentence = (
        "Files up to 50 MB; images up to 25 megapixels; films up to 10 seconds, 300 frames and 1920x1080 pixels."
    )
    page = " ".join(read_guide("demo").split())
    assert str(Limits()) == sentence and sentence in page
    assert f"after {demo.KEPT_MINUTES} minutes" in page and f"http://{HOST}:{PORT}." in page


def test_without_gradio_the_command_names_the_extra(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "depthseg.engine.demo_page", raising=False)
    with pytest.raises(SystemExit) as end:
        main(["demo", str(folder)])
    assert end.value.code == "error: The web page needs gradio: pip install 'depthseg[demo]'"


@pytest.fixture
def as_installed(monkeypatch):
    """The metadata of a fresh installation, which those of an older checkout may differ from."""
    extras = PROJECT["optional-dependencies"].items()
    lines = [f'{line}; extra == "{extra}"' for extra, packages in extras for line in packages]
    monkeypatch.setattr(demo_space, "requires", lambda name: [*PROJECT["dependencies"], *lines])
    monkeypatch.setattr(demo_space, "version", lambda name: "6.31.0")


def test_a_space_has_its_models_and_requirements(folder, tmp_path, as_installed, monkeypatch, capsys):
    monkeypatch.setattr(demo_space, "check_available", lambda name: None)
    run = write_model(tmp_path / "runs" / "depth" / "model", seed=1)
    space = tmp_path / "space"
    with pytest.raises(SystemExit) as end:
        main(["demo", str(run), "me/other", "--space", str(space)])
    assert end.value.code in (0, None) and "hf upload" in capsys.readouterr().out
    _, front, text = (space / "README.md").read_text().split("---\n")
    front = yaml.safe_load(front)
    assert (front["sdk"], front["sdk_version"], front["app_file"]) == ("gradio", "6.31.0", "app.py")
    assert front["models"] == ["me/other"] and "`depth` and `me/other`" in text
    assert "load_checkpoints(['models/depth', 'me/other'])" in (space / "app.py").read_text()
    for file in ("config.json", "preprocessor_config.json", "model.safetensors"):
        assert (space / "models/depth" / file).read_bytes() == (run / file).read_bytes()
    lines = (space / "requirements.txt").read_text().splitlines()
    names = [line.partition("<")[0].partition(">")[0] for line in lines]
    assert "torch<2.14,>=2.11" in lines and {"av", "opencv-python-headless", "transformers"} <= set(names)
    assert not {"gradio", "pytest", "peft"} & set(names)
    with pytest.raises(SystemExit, match="exists already"):
        main(["demo", str(run), "--space", str(space)])


def test_two_models_of_one_name_have_folders_of_their_own(folder, tmp_path, as_installed):
    other = write_model(tmp_path / folder.name, seed=1)
    demo_space.write_space(tmp_path / "space", [str(folder), str(other)])
    assert (tmp_path / "space/models/segmenter-2/model.safetensors").read_bytes() == (
        other / "model.safetensors"
    ).read_bytes()
    assert "['models/segmenter', 'models/segmenter-2']" in (tmp_path / "space/app.py").read_text()
