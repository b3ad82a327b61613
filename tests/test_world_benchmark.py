"""The benchmark in training/data_cards/depthseg-world: its frames, its scorer and the numbers of its card."""

import hashlib
import json
import re
import shlex
import statistics
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from depthseg.cli import main
from depthseg.data import load_dataset
from depthseg.data.synthetic import VARIANTS, WORLD_VERSION, render

ROOT = Path(__file__).parents[1]
CARD = ROOT / "training" / "data_cards" / "depthseg-world"
PAGE = (CARD / "README.md").read_text()
FRAMES = json.loads((CARD / "frames.json").read_text())
BASELINES = json.loads((CARD / "baselines.json").read_text())["baselines"]
TINY = ROOT / "model_cards" / "depthseg-tiny-world"
TRIALS = ROOT / "training" / "studies" / "results" / "world" / "trials"
SCORES = ("mean_iou", "pixel_accuracy", "mean_accuracy")
COUNT = 3


def command(monkeypatch, capsys, place, *words):
    """Scores that the command of the card with `place` in it prints for the first frames."""
    (line,) = [
        line
        for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
        for line in block.splitlines()
        if place in line
    ]
    line = line.replace(f"count={len(FRAMES['frames'])}", f"count={COUNT}").replace(*words)
    with pytest.raises(SystemExit) as end:
        main([*shlex.split(line)[1:], "--json", "--option", "workers=1"])
    assert end.value.code in (0, None), end.value.code
    return json.loads(capsys.readouterr().out)


def snippet(count):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    changed = code.replace(f"count={len(FRAMES['frames'])}", f"count={count}, workers=1")
    assert changed != code
    return changed


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Where the snippet of the card wrote the first frames, and rendered them."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(snippet(COUNT), {})
    return folder


def test_the_first_frames_are_those_of_the_card(written):
    assert (FRAMES["world_version"], FRAMES["seed"]) == (WORLD_VERSION, VARIANTS["first"].seeds["test"])
    for index, (name, expected) in enumerate(list(FRAMES["frames"].items())[:COUNT]):
        # The renderer itself, without data set and cache.
        frame = render(FRAMES["seed"], index, FRAMES["size"], outputs=("image", "labels"))
        saved = np.asarray(Image.open(written / "world_test" / "labels" / f"{name}.png"))
        np.testing.assert_array_equal(saved, frame["labels"])
        assert hashlib.sha256(saved.tobytes()).hexdigest()[:16] == expected["labels_sha256"]
        image = np.asarray(Image.open(written / "world_test" / "images" / f"{name}.png"))
        assert image.mean((0, 1)) == pytest.approx(expected["mean_rgb"], abs=FRAMES["image_tolerance"])


@pytest.mark.heavy
def test_all_frames_have_the_hash_of_the_card(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(snippet(len(FRAMES["frames"])), {})
    assert capsys.readouterr().out.split()[-1] == FRAMES["labels_sha256"]
    for path, expected in zip(sorted(Path("world_test/labels").iterdir()), FRAMES["frames"].values(), strict=True):
        labels = np.asarray(Image.open(path))
        assert hashlib.sha256(labels.tobytes()).hexdigest()[:16] == expected["labels_sha256"]


def test_the_written_files_are_a_folder_and_a_table(written):
    size = [64, 192]
    frames = load_dataset("synthetic", written / "data" / "world", "test", count=COUNT, size=size, workers=1)
    names = written / "world_test" / "test.parquet"
    table = load_dataset("hub", names, "test", name_column="name", classes=list(frames.label_space.classes))
    folder = load_dataset("folder", written / "world_test", "all")
    for other in (table, folder):
        assert list(other.names) == frames.names
        np.testing.assert_array_equal(other[1].image, frames[1].image)
        np.testing.assert_array_equal(other[1].labels, frames[1].labels)
    assert folder.label_space.classes == frames.label_space.classes


def test_label_maps_in_files_score_as_their_model(written, monkeypatch, capsys):
    monkeypatch.chdir(written)
    with pytest.raises(SystemExit) as end:
        main(["predict", str(TINY), "world_test/images", "--output-dir", "out"])
    assert end.value.code == 0
    capsys.readouterr()
    of_files = command(monkeypatch, capsys, "--predictions", "FOLDER", "out/labels")
    of_model = command(monkeypatch, capsys, "--model", "MODEL", str(TINY))
    assert {name: of_files[name] for name in (*SCORES, "per_class_iou", "images", "protocol")} == {
        name: of_model[name] for name in (*SCORES, "per_class_iou", "images", "protocol")
    }
    assert of_files["mean_iou"] > 0.1
    assert of_files["stamp"]["label_space"] == of_model["stamp"]["label_space"]
    assert of_files["stamp"]["digest"] != of_model["stamp"]["digest"]  # who resized is not known
    predicted, labels = (
        np.stack([np.asarray(Image.open(path)) for path in sorted((written / place).iterdir())])
        for place in ("out/labels", "world_test/labels")
    )
    assert of_files["pixel_accuracy"] == pytest.approx((predicted == labels).mean())


def test_files_that_do_not_fit_are_named(written, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(written)
    labels = tmp_path / "labels"
    labels.mkdir()
    words = ["evaluate", "--dataset", "folder", "--root", "world_test", "--split", "all", "--predictions", str(labels)]

    def sentence(*more):
        with pytest.raises(SystemExit) as end:
            main([*words, *more])
        return str(end.value.code)

    first = labels / f"{next(iter(FRAMES['frames']))}.png"
    assert f"There is no {first}" in sentence()
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(first)
    assert f"{first} is 40x30 pixels, but its image is 192x64" in sentence()
    Image.fromarray(np.full((64, 192), 255, np.uint8)).save(first)
    assert f"{first} holds class ids outside the label space: 255. Allowed are 0 to 10." in sentence()
    assert "--flip, --calibration need a model" in sentence("--flip", "--calibration")
    assert "--protocol needs a model" in sentence("--protocol", "paper-text")


def test_the_constant_is_what_counting_pixels_gives():
    """Pixels of each class from the matrices of a study that evaluated the same frames, and from the card."""
    matrices, _ = runs_of(BASELINES[2]["study"])[0]
    with np.load(matrices) as arrays:
        counts = arrays["confusion"].sum((0, 2))
    shares = [float(share) for share in re.findall(r"^\| \d+ \| \w+ \| ([\d.]+) \|$", PAGE, re.MULTILINE)]
    assert shares == pytest.approx(100 * counts / counts.sum(), abs=0.0501)
    constant = BASELINES[0]
    most = counts.max() / counts.sum()  # its IoU; the other ten are 0
    assert [constant[name] for name in SCORES] == pytest.approx([most / 11, most, 1 / 11])


def test_the_card_has_the_numbers_of_its_baselines():
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+)(?: ± ([\d.]+))? \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert [row[0] for row in rows] == [baseline["name"] for baseline in BASELINES]
    for (_, iou, spread, *others), baseline in zip(rows, BASELINES, strict=True):
        assert [iou, *others] == [f"{100 * baseline[name]:.1f}" for name in SCORES]
        if "study" in baseline:
            runs = [scores for _, scores in runs_of(baseline["study"])]
            assert baseline["mean_iou_of_runs"] == pytest.approx([run["mean_iou"] for run in runs])
            for name in SCORES:
                assert baseline[name] == pytest.approx(statistics.mean(run[name] for run in runs))
            assert spread == f"{100 * statistics.stdev(baseline['mean_iou_of_runs']):.1f}" and len(runs) == 6
    assert FRAMES["labels_sha256"] in PAGE and FRAMES["world_version"] in PAGE


def runs_of(study):
    """Files with the matrices, and scores, of the trials of a baseline, which evaluated the frames of the card."""
    trials = [(path, json.loads(path.read_text())) for path in sorted(TRIALS.glob("*.json"))]
    wanted = {key: study[key] for key in ("initialisation", "mode", "num_labelled")} | {"role": "main"}
    chosen = [(path, trial) for path, trial in trials if all(trial.get(key) == value for key, value in wanted.items())]
    for path, _ in chosen:
        with np.load(path.with_suffix(".npz")) as arrays:
            assert arrays["names"].tolist() == list(FRAMES["frames"])
    return [(path.with_suffix(".npz"), trial["scores"]) for path, trial in chosen]


@pytest.mark.heavy
def test_the_tiny_checkpoint_reaches_its_row(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (row,) = [row for row in BASELINES if row["name"] == TINY.name]
    words = [str(TINY) if word == f"model_cards/{TINY.name}" else word for word in shlex.split(row["command"])[1:]]
    with pytest.raises(SystemExit):
        main([*words, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [found[name] for name in SCORES] == pytest.approx([row[name] for name in SCORES], abs=2e-3)
    assert found["baselines"]["majority class: mean_iou"] == pytest.approx(BASELINES[0]["mean_iou"])


def test_the_hub_can_read_card_and_benchmark():
    """The fields of https://huggingface.co/docs/hub/eval-results and of data cards."""
    head = yaml.safe_load(PAGE.split("---\n")[1])
    assert head["license"] == "apache-2.0" and head["task_categories"] == ["image-segmentation"]
    ((config,),) = [head["configs"]]
    ((files,),) = [config["data_files"]]
    benchmark = yaml.safe_load((CARD / "eval.yaml").read_text())
    assert set(benchmark) == {"name", "description", "evaluation_framework", "tasks"}
    (task,) = benchmark["tasks"]
    assert (task["config"], task["split"]) == (config["config_name"], files["split"])
    (score,) = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
    assert score["dataset"]["task_id"] == task["id"]
    (tiny,) = [row for row in BASELINES if row["name"] == TINY.name]
    assert score["value"] == round(tiny["mean_iou"], 4)
