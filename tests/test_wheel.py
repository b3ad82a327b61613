"""depthseg as installed from a wheel: the documented commands from an empty folder, far from a checkout."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthseg import __version__
from depthseg.data.synthetic.rendering import render

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.name for path in (ROOT / "training" / "configs").glob("*.yaml"))
PAGES = ("README.md", "training/README.md", "model_cards/README.md", ".agents/skills/depthseg/SKILL.md")
# Small enough for a test; which network and which data stay those of the command.
SHORT = ["schedule.steps=2", "schedule.warmup_steps=0", "run.eval_every=0", "optim.batch_size=2", "run.cpu=true"]
SMALL = {
    "pretrain_synthetic_supervised": ["data.size=[32,64]", "data.train_options.count=4", "data.val_options.count=2"],
    "pretrain_video_mono": ["data.size=[32,64]"],
    "folder_fewshot_resnet18": ["data.size=[32,64]"],
}
# Commands that take longer than a test may, or that need the Hub or measured data; each has tests of its own.
LEFT_OUT = [
    r"depthseg quickstart",
    r"depthseg study ",
    r"depthseg publish (?!.*--dry-run)",
    r"depthseg .*kitti_drive",
    r"depthseg convert mobilenet_v2-",
    r"depthseg .*camvid_imagenet_mobilenetv2",
]


def build(source: Path, output: Path, *targets: str) -> list[Path]:
    words = [sys.executable, "-m", "hatchling", "build", "-d", str(output)]
    for target in targets:
        words += ["-t", target]
    done = subprocess.run(words, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return [next(output.glob({"sdist": "*.tar.gz", "wheel": "*.whl"}[target])) for target in targets]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A source distribution and a wheel of this checkout."""
    return build(ROOT, tmp_path_factory.mktemp("dist"), "sdist", "wheel")


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A fresh environment with the wheel in it; everything else comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    words = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--no-deps", str(built[1])]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (packages,) = folder.glob("lib/python*/site-packages")
    # Folders named in a .pth file are searched after this one, and their own .pth files, of a checkout, are not read.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "others.pth").write_text("\n".join(others) + "\n")
    return folder


@pytest.fixture
def run(installed, tmp_path):
    """Run a command line of the fresh environment in an empty folder."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DEPTHSEG"))}
    environment["PATH"] = f"{installed / 'bin'}{os.pathsep}{environment['PATH']}"

    def run(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [str(word) for word in words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def test_both_distributions_hold_the_recipes_and_what_the_package_reads(built, tmp_path):
    source, wheel = built
    names = zipfile.ZipFile(wheel).namelist()
    assert sorted(Path(name).name for name in names if name.startswith("depthseg/configs/")) == RECIPES
    tracked = subprocess.run(["git", "ls-files", "depthseg"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode == 0:
        assert {name for name in tracked.stdout.split() if (ROOT / name).is_file()} <= set(names)
    assert {name.split("/")[0] for name in names} == {"depthseg", f"depthseg-{__version__}.dist-info"}
    with tarfile.open(source) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.2 has no argument for it
        archive.extractall(tmp_path)
    (unpacked,) = tmp_path.iterdir()
    parts = {path.name for path in unpacked.iterdir()}
    assert parts == {"depthseg", "training", "pyproject.toml", "README.md", "LICENSE", "PKG-INFO", ".gitignore"}
    (again,) = build(unpacked, tmp_path / "again", "wheel")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(names)


def test_commands_that_need_no_training(run, installed, tmp_path):
    imported = run("python", "-c", "import depthseg; print(depthseg.__file__)")
    assert Path(imported.stdout.strip()).is_relative_to(installed)
    assert run("depthseg", "--version").stdout == f"depthseg {__version__}\n"
    listed = run("depthseg", "recipes").stdout.split()
    assert {Path(name).stem for name in RECIPES} <= set(listed)
    run("depthseg", "recipes", "camvid_fewshot_resnet18", "--copy-to", "mine.yaml")
    missing = run("depthseg", "finetune", "--config", "camvid_fewshot_resnet19", code=1)
    assert "Did you mean 'camvid_fewshot_resnet18'?" in missing.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def documented_commands() -> list[str]:
    """Commands of the pages in their order, each once."""
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith("depthseg ")))


def write_users_data(folder: Path) -> None:
    """What a reader of the pages has: labelled images, a video, and a folder of frames with a calibration."""
    for part in ("my_data/images", "my_data/labels", "kitti_clip/image_2"):
        (folder / part).mkdir(parents=True)
    (folder / "my_data" / "classes.txt").write_text("ground\nsky\n")
    frames = [render(2, 4, (48, 96), time=step / 2, outputs=["image", "labels", "intrinsics"]) for step in range(5)]
    for number, frame in enumerate(frames):
        for place in ("my_data/images", "kitti_clip/image_2"):
            Image.fromarray(frame["image"]).save(folder / place / f"{number:06d}.png")
        labels = np.where(frame["labels"] == 0, 1, 0).astype(np.uint8)
        Image.fromarray(labels).save(folder / "my_data" / "labels" / f"{number:06d}.png")
    matrix = np.hstack([frames[0]["intrinsics"], np.zeros((3, 1))])
    (folder / "kitti_clip" / "calib.txt").write_text(" ".join(f"{value:.9e}" for value in matrix.ravel()))
    av = pytest.importorskip("av")
    with av.open(str(folder / "my_drive.mp4"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 96, "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame["image"], format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.heavy
def test_every_documented_command_runs_from_an_empty_folder(run, tmp_path):
    write_users_data(tmp_path)
    commands = [line for line in documented_commands() if not any(re.match(pattern, line) for pattern in LEFT_OUT)]
    assert {line.split()[1] for line in commands} >= {
        "datasets",
        "pretrain",
        "finetune",
        "evaluate",
        "predict",
        "publish",
    }
    for line in commands:
        words = shlex.split(line)
        if words[1] in ("pretrain", "finetune"):
            words += [*SHORT, *SMALL[words[words.index("--config") + 1]], "run.overwrite=true"]
        run(*words)
    assert (tmp_path / "runs" / "folder_fewshot" / "model" / "config.json").is_file()
    assert len(list((tmp_path / "predictions" / "labels").iterdir())) == 5
    # Everything is under the folders that the pages and the recipes name.
    made = {path.name for path in tmp_path.iterdir()} - {"my_data", "my_drive.mp4", "kitti_clip"}
    assert made <= {"runs", "data", "predictions"}


@pytest.mark.heavy
def test_a_copied_recipe_trains_and_a_study_is_planned(run, tmp_path):
    run("depthseg", "recipes", "finetune_synthetic_fewshot", "--copy-to", "mine.yaml")
    tiny = [*SHORT, "data.size=[32,64]", "data.train_options.count=8", "data.val_options.count=2"]
    run("depthseg", "pretrain", "--config", "pretrain_synthetic_stereo", *tiny)
    model = "model.pretrained=runs/pretrain_synthetic_stereo/model"
    run("depthseg", "finetune", "--config", "mine.yaml", model, *tiny, "data.subset_size=4")
    assert (tmp_path / "runs" / "finetune_synthetic_fewshot" / "model" / "config.json").is_file()
    # Only what is run is measured by a dry run.
    left_out = [f"initialisations.{name}=null" for name in ("classification", "depth_mono", "flow", "inpainting")]
    planned = run("depthseg", "study", "world", "--dry-run", "--scale", "smoke", *left_out)
    assert "pre-training" in planned.stdout and not (tmp_path / "runs" / "study_world_smoke" / "trials").exists()
