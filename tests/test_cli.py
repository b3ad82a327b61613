"""The command line: what it prints, how it ends, and that a user's mistake is one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthseg import DepthSegConfig, DepthSegForSemanticSegmentation, DepthSegImageProcessor, __version__
from depthseg.cli import COMMANDS, main
from depthseg.data import DATASETS


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    code = exit_info.value.code
    return 0 if code is None else code


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = DepthSegConfig(
        encoder_config={"model_type": "depthseg_resnet", "width_factor": 0.125},
        head_config={"decoder_channels": [8, 8, 8, 8, 8]},
        id2label={0: "low", 1: "high"},
        keep_depth=True,
    )
    DepthSegForSemanticSegmentation(config).save_pretrained(folder)
    DepthSegImageProcessor(size={"height": 32, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture
def data_dir(tmp_path):
    for split, count in (("images", 3), ("labels", 3)):
        (tmp_path / split).mkdir()
        for index in range(count):
            pixels = np.full((20, 30, 3) if split == "images" else (20, 30), index % 2, np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / f"{index}.png")
    (tmp_path / "classes.txt").write_text("low\nhigh\n")
    (tmp_path / "train.txt").write_text("0\n1\n")
    (tmp_path / "val.txt").write_text("2\n")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    assert run(command, "--help") == 0
    assert f"usage: depthseg {command}" in capsys.readouterr().out


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"depthseg {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pretrian",), ["'pretrian'", "Did you mean 'pretrain'?", "quickstart"]),
        (("--verison",), ["'--verison'", "Did you mean '--version'?"]),
        (("datasets", "chek", "folder", "x"), ["'chek'", "Did you mean 'check'?", "doctor"]),
        # Not that --output-dir is missing: that is what was meant.
        (("predict", "m", "x.png", "--ouput-dir", "o"), ["'--ouput-dir'", "Did you mean '--output-dir'?"]),
        (("finetune", "--confg=x.yaml"), ["'--confg'", "Did you mean '--config'?"]),
        (("datasets", "doctor", "x", "--strid=1", "--sride", "2"), ["'--sride'", "Did you mean '--stride'?"]),
        (("finetune",), ["required: --config"]),
        (("evaluate", "--crop", "gard"), ["--crop", "'garg'"]),
        ((), ["quickstart", "pretrain", "--version"]),
        (("datasets",), ["list", "doctor"]),
    ],
)
def test_mistyped_words_are_answered_with_near_ones(words, said, capsys):
    assert run(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and all(word in captured.err for word in said)


def test_words_behind_two_dashes_are_no_options(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "no image to predict" in str(run("predict", "--output-dir", "o", "m", "--", "--street.png"))


# A process that runs one command, or a script, and then prints which of the slow packages it imported.
WHAT_IS_IMPORTED = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    if sys.argv[0].endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        from depthseg.cli import main
        main(sys.argv[1:])
except SystemExit as end:
    code = end.code
slow = ("torch", "transformers", "accelerate", "matplotlib", "datasets", "evaluate", "numpy", "omegaconf")
print(code if isinstance(code, int) else 0 if code is None else 1, *(name for name in slow if name in sys.modules))
"""
TRAINING = Path(__file__).parents[1] / "training"


def imported_by(*words: object, folder: Path) -> list[str]:
    command = [sys.executable, "-c", WHAT_IS_IMPORTED, *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()[-1].split()


ANSWERS = [
    *[((command, "--help"), "0") for command in COMMANDS],
    *[(("datasets", command, "--help"), "0") for command in ("list", "check", "doctor", "render")],
    (("recipes",), "0"),
    (("recipes", "pretrain_video_mono"), "0"),
    (("recipes", "--options"), "0"),
    (("datasets", "list"), "0"),
    (("finetune",), "2"),
    (("evaluate", "--crop", "gard"), "2"),
    (("evaluate", "--model", "m", "--dataset", "camvit", "--root", "r"), "2"),
    (("study", "world", "--shard", "two"), "2"),
    (("datasets", "render", "x", "--split", "trian"), "2"),
    (("bench", "--repeats", "many"), "2"),
    (("bench", "nothing"), "1"),
    (("study", "wold"), "1"),
    (("publish", "run"), "1"),
    (("recipes", "pretrain_vide_mono"), "1"),
    (("datasets", "check", "folder", "nowhere"), "1"),
    (("pretrain", "--config", "missing.yaml"), "1"),
    (("finetune", "--config", "pretrain_synthetic_flow"), "1"),
    (("finetune", "--config", "folder_fewshot_resnet18", "optim.lrr=1"), "1"),
]


@pytest.mark.parametrize(("words", "code"), ANSWERS, ids=lambda value: " ".join(value))
def test_answers_need_no_torch(words, code, tmp_path):
    found = imported_by("depthseg", *words, folder=tmp_path)
    assert found[0] == code
    assert not {"torch", "transformers", "accelerate", "matplotlib", "datasets", "evaluate"} & set(found)


@pytest.mark.parametrize("words", [("--help",), ("--version",), (), ("pretrian",), ("predict", "--help")], ids=str)
def test_the_first_answers_need_nothing_at_all(words, tmp_path):
    assert len(imported_by("depthseg", *words, folder=tmp_path)) == 1


@pytest.mark.parametrize("script", ["evaluate", "finetune_segmentation", "pretrain_depth"])
def test_help_of_a_script_needs_no_torch(script, tmp_path):
    found = imported_by(TRAINING / f"{script}.py", "--help", folder=tmp_path)
    assert found[0] == "0" and "torch" not in found


def test_the_probe_sees_imports(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import matplotlib, transformers\nraise SystemExit(3)\n")
    assert {"3", "transformers", "matplotlib"} <= set(imported_by(script, folder=tmp_path))


def test_a_closed_pipe_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "depthseg.cli", "recipes"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    "words",
    [
        ("study", "world", "seeds.finetune=6", "seeds.pretrain=4", "--dry-run"),
        ("study", "world", "--dry-run", "seeds.finetune=6", "seeds.pretrain=4"),
        ("study", "--dry-run", "world", "seeds.finetune=6", "--scale", "full", "seeds.pretrain=4"),
    ],
)
def test_options_of_a_study_may_stand_anywhere_behind_its_name(words, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("depthseg.study.plan.plan_study", lambda study, *_: seen.append(study.seeds))
    monkeypatch.setattr("depthseg.study.plan.plan_text", str)
    assert run(*words) == 0
    assert [(seeds.finetune, seeds.pretrain) for seeds in seen] == [(6, 4)]


@pytest.mark.parametrize("words", [("study", "world", "--dry-run", "six"), ("datasets", "list", "size=3")])
def test_words_that_nobody_asked_for(words, capsys):
    assert run(*words) == 2
    assert f"unrecognized arguments: {words[-1]}" in capsys.readouterr().err


def test_the_installed_command_starts():
    command = Path(sys.executable).with_name("depthseg")
    done = subprocess.run([command, "datasets", "list"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "camvid" in done.stdout


def test_datasets_list_names_every_row(capsys):
    assert run("datasets", "list") == 0
    printed = capsys.readouterr().out
    assert DATASETS and all(name in printed and entry.licence in printed for name, entry in DATASETS.items())


def test_datasets_check_counts_and_finds_fault(data_dir, capsys):
    assert run("datasets", "check", "folder", data_dir) == 0
    assert "high" in capsys.readouterr().out
    Image.fromarray(np.full((20, 30), 7, np.uint8)).save(data_dir / "labels" / "1.png")
    assert run("datasets", "check", "folder", data_dir) == 1
    printed = capsys.readouterr().out
    assert "1.png" in printed and "7" in printed


def test_datasets_render_writes_frames(tmp_path, capsys):
    assert run("datasets", "render", tmp_path, "--split", "val", "--count", 2, "--size", 32, 64) == 0
    assert "2 frames" in capsys.readouterr().out
    assert list(tmp_path.rglob("*.npy"))


def test_evaluate_prints_the_scores_as_json(model_dir, data_dir, capsys):
    assert run("evaluate", "--model", model_dir, "--dataset", "folder", "--root", data_dir, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    # The one image of val holds class 0 alone, so accuracy is class 0's IoU.
    assert scores["pixel_accuracy"] == pytest.approx(scores["per_class_iou"]["low"])
    assert (scores["dataset"], scores["split"], scores["images"]) == ("folder", "val", 1)


def test_evaluate_says_on_what_and_rounds(model_dir, data_dir, capsys):
    words = ("evaluate", "--model", model_dir, "--dataset", "folder", "--root", data_dir, "--split", "train")
    assert run(*words) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "folder, split train: 2 images evaluated"
    assert run(*words, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    shown = dict(line.split() for line in lines if len(line.split()) == 2)
    flat = scores | scores["per_class_iou"]
    assert {"mean_iou", "pixel_accuracy", "low", "high"} < set(shown)
    assert all(value == f"{flat[name]:.4g}" for name, value in shown.items() if name != "absent_classes")
    assert shown["absent_classes"] == "none"


def test_evaluate_measures_the_depth_of_a_segmenter_too(model_dir, data_dir, capsys):
    (data_dir / "depth").mkdir()
    for index in range(3):
        Image.fromarray(np.full((20, 30), 256 * (2 + index), np.uint16)).save(data_dir / "depth" / f"{index}.png")
    Image.fromarray(np.zeros((20, 30), np.uint16)).save(data_dir / "depth" / "1.png")  # nothing known
    words = ("evaluate", "--model", model_dir, "--dataset", "folder", "--root", data_dir, "--alignment", "median")
    assert run(*words, "--split", "train", "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["mean_iou"] <= 1 and scores["alignment"] == "median"
    assert (scores["images"], scores["images_without_depth"]) == (2, 1)


def test_predict_does_the_good_images_and_names_the_bad_one(model_dir, data_dir, tmp_path, capsys):
    bad = data_dir / "images" / "2.png"
    bad.write_bytes(bad.read_bytes()[:50])
    out = tmp_path / "out"
    assert run("predict", model_dir, data_dir / "images", "--output-dir", out) == 1
    captured = capsys.readouterr()
    assert "2 images done" in captured.out and str(bad) in captured.err
    assert np.asarray(Image.open(out / "labels" / "0.png")).shape == (20, 30)
    assert "already" in str(run("predict", model_dir, data_dir / "images" / "0.png", "--output-dir", out))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "--model", "nowhere/model", "--dataset", "camvid", "--root", "nowhere"], ["nowhere"]),
        (["finetune", "--config", "missing.yaml"], ["missing.yaml"]),
        (["datasets", "check", "camvid", "nowhere"], ["nowhere"]),
        (["predict", "nowhere/model", "nowhere.png", "--output-dir", "out"], ["nowhere.png"]),
    ],
)
def test_a_users_mistake_is_one_sentence(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = run(*arguments)
    said = f"{code} {''.join(capsys.readouterr())}"
    assert code not in (0, None) and "Traceback" not in said
    assert all(word in said for word in words)


def test_processes_of_a_launcher_close_their_connections(tmp_path, capsys):
    """Gloo's threads abort a process that ends while they run."""
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    assert run("recipes") == 0 and not distributed.is_initialized()
