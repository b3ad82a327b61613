"""`depthseg study own`: short options, fitting to the data, the cut to hours, and the sentence at the end."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from depthseg.cli import main
from depthseg.data import load_dataset
from depthseg.models import DepthSegConfig
from depthseg.study import own
from depthseg.study.options import load_study
from depthseg.study.plan import Cost, stage_of
from depthseg.study.runner import save_study, trials_in_order
from depthseg.study.stored import STUDY_FILE, record_path


def save(folder, sequences, size=(48, 96)):
    """A folder of labelled images of these sequences: name -> number of images."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for sequence, count in sequences.items():
        for number in range(count):
            labels = rng.integers(0, 2, size).astype(np.uint8)
            image = 100 * labels[..., None] + rng.integers(0, 99, (*size, 3)).astype(np.uint8)
            Image.fromarray(image).save(folder / "images" / f"{sequence}_{number:03}.png")
            Image.fromarray(labels).save(folder / "labels" / f"{sequence}_{number:03}.png")
    (folder / "classes.txt").write_text("a\nb\n")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Options of two labelled sequences and of a film."""
    folder = tmp_path_factory.mktemp("own")
    save(folder / "labelled", {"long": 18, "short": 6})
    save(folder / "film", {"frame": 4})
    return [f"data.root={folder / 'labelled'}", f"data.video={folder / 'film' / 'images'}"]


def test_short_options_are_options_of_the_study():
    assert own.spelled_out(
        ["data.root=a", "data.video=b.mp4", "data.size=[64,96]", "imagenet=some/weights", "seeds.draws=6"]
    ) == [
        "finetune.data.root=a",
        "initialisations.film.pretrain.data.video=b.mp4",
        "pretrain.data.size=[64,96]",
        "finetune.data.size=[64,96]",
        'initialisations.imagenet={"title": "ImageNet", "checkpoint": "some/weights"}',
        "seeds.draws=6",
    ]


def test_the_plan_is_fitted_to_the_data(data, tmp_path):
    study = own.load_own(overrides=data)
    # 18 images to draw from: a quarter of them is 4. 48x96 is smaller than the networks see, so it stays.
    assert study.benchmarks["own"].num_labelled == [4, 8, 16]
    assert study.pretrain["data"]["size"] == study.finetune["data"]["size"] == [48, 96]
    options = study.finetune["data"]["options"]
    train, val = (
        load_dataset("folder", study.finetune["data"]["root"], split, **options) for split in ("train", "val")
    )
    assert {name.split("_")[0] for name in train.names} == {"long"} and len(train) == 18
    assert {name.split("_")[0] for name in val.names} == {"short"} and len(val) == 6
    assert study.pretrain["pretext"]["intrinsics"] == "one_camera"
    weights = tmp_path / "weights"
    DepthSegConfig(encoder_config={"model_type": "depthseg_mobilenet_v2"}, num_labels=2).save_pretrained(weights)
    given = ["data.size=[32,64]", "data.options={label_map: {7: ignore}}", "benchmarks.own.num_labelled=[2]"]
    study = own.load_own(overrides=[*data, *given, f"imagenet={weights}"])
    assert study.pretrain["data"]["size"] == study.finetune["data"]["size"] == [32, 64]
    assert study.finetune["data"]["options"]["split_by"] == "sequences"
    assert study.finetune["data"]["options"]["label_map"] == {"7": "ignore"}
    assert study.benchmarks["own"].num_labelled == [2]
    assert study.initialisations["imagenet"].checkpoint == str(weights)
    DepthSegConfig(encoder_config={"model_type": "depthseg_resnet"}, num_labels=2).save_pretrained(weights)
    with pytest.raises(ValueError, match="has the encoder depthseg_resnet, and the network of the other .*mobilenet"):
        own.load_own(overrides=[*data, f"imagenet={weights}"])
    with pytest.raises(ValueError, match="nowhere is no folder, and no Hub id either"):
        own.load_own(overrides=[*data, f"imagenet={tmp_path / 'nowhere'}"])


@pytest.mark.parametrize(
    ("size", "expected"),
    [((360, 480), (112, 144)), ((1024, 2048), (80, 176)), ((64, 64), (64, 64)), ((10, 90), (16, 96))],
)
def test_networks_see_the_shape_of_the_images(size, expected):
    assert own.network_size(*size) == expected


def test_what_is_lacking_is_said(data):
    for part in (data[:1], data[1:], []):
        with pytest.raises(ValueError, match="give data.root=FOLDER.*data.video=FILM"):
            own.load_own(overrides=part)
    with pytest.raises(ValueError, match="3 labelled images beside the test images: at least 4"):
        own.numbers_of_labels(3)
    for words, part in (
        (["world", "--hours", "2"], "--hours belongs to the study own"),
        (["own", "--hours", "2", "--shard", "1/2"], "leave out --shard"),
    ):
        with pytest.raises(SystemExit, match=part):
            main(["study", *words])


STEP, READING = 0.1, 7.0
REST = {"pretrain": 30.0, "finetune": 5.0}


def seconds(labels, draws, pretrainings, pretraining_steps, steps):
    """A plan of two initialisations by hand; the images of each of the two stages are read once."""
    pretraining = pretrainings * (STEP * pretraining_steps + REST["pretrain"])
    return 2 * READING + pretraining + 2 * labels * draws * (STEP * steps + REST["finetune"])


PLANS = [(3, 9, 9, 3000, 600), (3, 9, 9, 1500, 300), (3, 9, 6, 1500, 300), (3, 9, 3, 1500, 300)]
PLANS += [(2, 9, 3, 1500, 300), (1, 9, 3, 1500, 300), (1, 6, 3, 1500, 300), (1, 6, 3, 750, 150), (1, 6, 2, 750, 150)]


@pytest.fixture
def measured(monkeypatch):
    """Times of every stage as if they were measured; a list of the measured stages."""
    calls = []

    def measure(study, trial):
        calls.append(stage_of(trial))
        return Cost(STEP, 1.0, REST[trial.kind], READING, 1.0)

    monkeypatch.setattr("depthseg.study.plan.measure_cost", measure)
    return calls


@pytest.mark.parametrize("place", range(len(PLANS)))
def test_the_largest_plan_that_fits_is_taken(place, data, measured, tmp_path):
    study, plan = own.load_own(overrides=data), PLANS[place]
    cut, rows = own.within(study, tmp_path, 1.001 * seconds(*plan) / 3600)
    found = len(cut.benchmarks["own"].num_labelled), cut.seeds.draws, cut.seeds.pretrain
    assert (*found, cut.pretrain["schedule"]["steps"], cut.finetune["schedule"]["steps"]) == plan
    assert sum(row.seconds for row in rows) == pytest.approx(seconds(*plan))
    assert [row.trials for row in rows] == [plan[2], 2 * plan[0] * plan[1]] and len(measured) == 2


def test_plans_become_smaller_one_by_one():
    assert all(seconds(*larger) > seconds(*smaller) for larger, smaller in pairwise(PLANS))


def test_too_few_hours_are_said_with_those_that_suffice(data, measured, tmp_path):
    study, least = own.load_own(overrides=data), seconds(*PLANS[-1]) / 3600
    with pytest.raises(
        ValueError, match="hours do not suffice: the smallest plan, 6 draws of 4 labelled images"
    ) as error:
        own.within(study, tmp_path, 0.5 * least)
    suggested = float(str(error.value).split("Give --hours ")[1].split(",")[0])
    assert least <= suggested <= least + 0.1
    own.within(study, tmp_path, suggested)


def test_a_plan_that_is_not_finished_is_resumed_whatever_the_hours(data, measured, tmp_path):
    study = own.load_own(overrides=data)
    begun, _ = own.within(study, tmp_path, 1.001 * seconds(*PLANS[5]) / 3600)
    save_study(begun, tmp_path)
    measured.clear()
    assert own.within(study, tmp_path, 0.01) == (begun, None) and measured == []
    for trial in trials_in_order(begun, tmp_path):
        path = record_path(tmp_path, trial.key)
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    more, rows = own.within(study, tmp_path, 1000)
    assert len(more.benchmarks["own"].num_labelled) == 3 and len(measured) == 2 and rows
    assert (tmp_path / STUDY_FILE).is_file()


SETTING = {"architecture": "network", "mode": "full", "benchmark": "own"}


def numbers(value, difference, interval, swapped=False):
    """Numbers of a report: what a film gains with 16 labels, and `value` and its interval in labels."""
    pair = {"a": "none", "b": "film"} if swapped else {"a": "film", "b": "none"}
    row = {**SETTING, "num_labelled": 16, **pair, "runs": 9, "reason": "No interval: too few."}
    if swapped:
        difference, interval = -difference, interval and [-interval[1], -interval[0]]
    comparisons = [row | {"num_labelled": 32, "difference": 99.0, "interval": [98.0, 100.0]}]
    comparisons += [row | {"difference": difference, "interval": interval}]
    found = {"value": None, "interval": None, "reason": "Cannot be read off: one number."} | (value or {})
    pair = {"initialisation": "film", "reference": "none"}
    values = [{**SETTING, **pair, "num_labelled": count, **found} for count in (16, 32)]
    values[1] |= {"value": ["", 99], "interval": [["", 98], ["", 100]]}
    values.append(values[0] | {"reference": "imagenet", "value": ["", 77]})
    return {"comparisons": comparisons, "label_values": values[::-1]}


@pytest.mark.parametrize("swapped", [False, True])
def test_the_gain_is_said_in_labels(swapped):
    worth = {"value": ["", 32.4], "interval": [["", 22.6], ["more than ", 64]]}
    said = (
        "With 16 labelled images, depth pre-training on your film changes the mean IoU by +4.0 points against random "
        "weights (95 % interval +2.0 to +7.0, 9 runs each); random weights need 32 labelled images for that"
    )
    assert own.answer(numbers(worth, 4.0, [2.0, 7.0], swapped)) == f"{said} (23 to more than 64)."
    without = {"value": ["", 32.4], "interval": None}
    assert own.answer(numbers(without, 4.0, [2.0, 7.0], swapped)) == f"{said}, of which the interval is not known."


@pytest.mark.parametrize(
    ("difference", "interval", "part"),
    [
        (1.0, [-1.0, 3.0], r"\+1.0 points .*; the interval includes 0, so it cannot be said"),
        (-2.0, [-3.0, -1.0], r"-2.0 points .*; it does not help, so it cannot be said"),
        (4.0, [2.0, 6.0], r"; how many labels that is worth cannot be said. Cannot be read off: one number."),
        (4.0, None, r"\+4.0 points .*; how sure that is, .* cannot be said. No interval: too few."),
    ],
)
def test_what_cannot_be_said_is_not(difference, interval, part):
    assert re.search(part, own.answer(numbers(None, difference, interval)))


def test_without_runs_nothing_is_said():
    assert "too few runs are finished" in own.answer({"comparisons": [], "label_values": []})


@pytest.mark.heavy
def test_from_a_rendered_film_and_labels_to_the_sentence(tmp_path, monkeypatch, capsys):
    world = load_dataset("synthetic", tmp_path / "world", "train", count=24, size=[32, 64], frames=[-1, 1], workers=1)
    folder, film = tmp_path / "labelled", tmp_path / "film"
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(len(world)):
        sample = world[number]
        sequence = "first" if number < 16 else "second"
        Image.fromarray(sample.image).save(folder / "images" / f"{sequence}_{number:03}.png")
        Image.fromarray(sample.labels).save(folder / "labels" / f"{sequence}_{number:03}.png")
        (film / f"scene{number:02}").mkdir(parents=True)
        for place, image in enumerate((sample.frames[-1], sample.image, sample.frames[1])):
            Image.fromarray(image).save(film / f"scene{number:02}" / f"{place}.png")
    (folder / "classes.txt").write_text("\n".join(world.label_space.classes) + "\n")
    monkeypatch.chdir(tmp_path)
    command = ["study", "own", f"data.root={folder}", f"data.video={film}", "--hours", "10", "block_length=2"]
    command += [
        "seeds={pretrain: 2, draws: 4}",
        "benchmarks.own.num_labelled=[4,8]",
        "pretrain.run.cpu=true",
        "finetune.run.cpu=true",
        "pretrain.optim.batch_size=2",
    ]
    command += ["pretrain.schedule={steps: 4, warmup_steps: 0}", "finetune.schedule={steps: 4, warmup_steps: 0}"]
    command += ["architectures.mobilenet_v2.model.encoder={model_type: depthseg_mobilenet_v2, width_factor: 0.25}"]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code in (0, None), ended.value.code
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("With 4 labelled images, depth pre-training on your film changes the mean IoU by ")
    found = json.loads((tmp_path / "runs" / "study_own" / "report" / "results.json").read_text())
    assert found["missing"] == [] and {row["num_labelled"] for row in found["main"]} == {4, 8}
    assert all(row["runs"] == 4 for row in found["comparisons"])
    # Without interval there would be no number of labels; nothing is trained again.
    with pytest.raises(SystemExit):
        main([*command, "--report"])
    assert capsys.readouterr().out.splitlines()[-1] == said
    assert load_study("own").seeds.draws == 9
