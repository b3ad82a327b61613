"""CONTRIBUTING is right: its five additions work in a copy of the package, and its map names the folders that exist.

The files in `additions/` are those that the page tells to copy from. They go into the copy as the page says, with one
row in each table; the copy is then what Python imports.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
ADDITIONS = Path(__file__).parent / "additions"
PLACES = {
    "heads_example_depthseg.py": "models",
    "encoders_example_depthseg.py": "models",
    "stripes.py": "data",
}
# File -> what is found there, and what follows it from now on.
LINES = {
    "models/heads_depthseg.py": {
        "from .heads_fcn_depthseg": "from .heads_example_depthseg import ExampleHead, ExampleHeadConfig",
        "HEADS: dict[str, HeadEntry] = {": """    "example": HeadEntry(
            ExampleHead, ExampleHeadConfig, "dense", ("depth", "segmentation"), 1, "An example.", "none"
        ),""",
    },
    "models/encoders_depthseg.py": {
        "from .encoders_families_depthseg": "from .encoders_example_depthseg import ExampleConfig, ExampleEncoder",
        "ENCODERS: dict[str, EncoderEntry] = {": """    "depthseg_example": EncoderEntry(
            ExampleEncoder, ExampleConfig, "An example.", "none"
        ),""",
    },
    "data/__init__.py": {
        "from .stereo": "from .stripes import Stripes",
        "DATASETS: dict[str, DatasetEntry] = {": """    "stripes": DatasetEntry(
            Stripes, Stripes.splits, summary="one stripe in each image", licence="Apache-2.0", is_sequence=False
        ),""",
    },
    "engine/options.py": {
        "        power: Power of `poly`.": "        floor: The rate never falls below `optim.lr` times this.",
        "    power: Positive = 0.9": "    floor: NotNegative = 0.0",
    },
    "engine/optim.py": {
        "    factor = learning_rate_factor(step, schedule)": "    factor = max(factor, schedule.floor)",
    },
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A folder with the package and the five additions."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "depthseg", folder / "depthseg", ignore=shutil.ignore_patterns("__pycache__"))
    for name, place in PLACES.items():
        shutil.copy(ADDITIONS / name, folder / "depthseg" / place / name)
    for name, additions in LINES.items():
        path = folder / "depthseg" / name
        lines = path.read_text().splitlines()
        for found, added in additions.items():
            (index,) = [number for number, line in enumerate(lines) if line.startswith(found)]
            lines.insert(index + 1, added)
        path.write_text("\n".join(lines) + "\n")
    shutil.copy(ADDITIONS / "study.yaml", folder)
    (folder / "mine.yaml").write_text(BLOCK)
    return folder


def run(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


BLOCK = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]
USE = """
import pathlib, torch, depthseg
from depthseg.data import load_dataset
from depthseg.engine.config import load_config
from depthseg.study.matrix import pretraining_trials
from depthseg.study.options import load_study

assert pathlib.Path(depthseg.__file__).parents[1] == pathlib.Path.cwd()
encoder = {"model_type": "depthseg_example", "width": 4}
config = depthseg.DepthSegConfig(encoder_config=encoder, head_type="example", head_config={"width": 6}, num_labels=2)
model = depthseg.DepthSegForSemanticSegmentation(config).eval()
image = torch.rand(1, 3, 30, 50)
model.save_pretrained("model")
again = depthseg.DepthSegForSemanticSegmentation.from_pretrained("model").eval()
print(list(model(image).logits.shape), torch.equal(model(image).logits, again(image).logits))
data = load_dataset("stripes", "nowhere", "val", count="2", metres=3)
print(len(data), sorted(set(data[1].depth.flat)), data.label_space.classes[data[1].labels.max()])
options = ["model.encoder={model_type: depthseg_example}", "schedule.floor=0.25"]
print(load_config(None, options).schedule.floor)
for name in ("study.yaml", "mine.yaml"):
    print({trial.labels["initialisation"] for trial in pretraining_trials(load_study(name))})
"""


@pytest.mark.heavy
def test_the_additions_are_known(copy):
    logits, data, option, trials, in_world = run(copy, "-c", USE).splitlines()
    assert (logits, data) == ("[1, 2, 8, 13] True", "2 [np.float32(3.0), np.float32(12.0)] stripe")
    assert (option, trials) == ("0.25", "{'depth'}")
    assert "'inpainting_long'" in in_world and "'depth_mono'" in in_world
    # The code of the model travels with it.
    assert {"heads_example_depthseg.py", "encoders_example_depthseg.py"} <= {
        p.name for p in (copy / "model").iterdir()
    }


@pytest.mark.heavy
def test_a_study_runs_with_all_of_them(copy):
    run(copy, "-m", "depthseg.cli", "study", "study.yaml", "--output-dir", "out")
    records = [json.loads(path.read_text()) for path in (copy / "out" / "trials").glob("*.json")]
    assert sorted((record["kind"], record["initialisation"]) for record in records) == [
        *[("finetune", "depth")] * 2,
        *[("finetune", "none")] * 2,
        ("pretrain", "depth"),
    ]
    assert "depth of stripes" in (copy / "out" / "report" / "report.md").read_text()
    lines = [json.loads(line) for path in (copy / "out").rglob("metrics.jsonl") for line in path.open()]
    # Cosine from 0.01: 0.0015 in the last of four steps, but for the floor.
    assert lines and all(line["lr"] >= 0.005 for line in lines if "mean_iou" in line)


def test_the_page_names_every_addition_and_what_exists():
    for name, place in PLACES.items():
        assert f"`tests/contributing/additions/{name}`" in PAGE and f"depthseg/{place}" in PAGE
    named = set(re.findall(r"`((?:depthseg|training|tests|\.ci)/[\w./-]+)`", PAGE))
    assert len(named) > 20
    assert not [name for name in named if "NAME" not in name and not (ROOT / name).exists()]
    for table in ("HEADS", "ENCODERS", "DATASETS", "RunConfig"):
        assert f"`{table}`" in PAGE


def folders() -> list[str]:
    """Every folder with files in it, but of records of studies only the top."""
    found = {
        path.parent.relative_to(ROOT).as_posix()
        for top in ("depthseg", "training", "tests")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(name for name in found if not name.startswith("training/studies/results/"))


def test_the_map_has_every_folder_once_with_a_sentence():
    rows = re.findall(r"^\| `([\w/-]+)/` \| (.*) \|$", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == sorted({*folders(), "training/studies/results"})
    assert not [sentence for _, sentence in rows if not sentence.endswith(".") or ". " in sentence]


def test_the_glossary_is_in_order_and_one_sentence_each():
    rows = re.findall(r"^- \*\*(.+?)\*\*: (.*(?:\n  .*)*)$", PAGE, re.MULTILINE)
    words = [word.lower() for word, _ in rows]
    assert len(words) >= 25 and words == sorted(words)
    assert all(" ".join(text.split()).endswith(".") and ". " not in text.replace("\n", " ") for _, text in rows)


ROOM = r"^python -m pytest (.*)$"


def test_the_commands_for_one_room_collect_tests():
    commands = re.findall(ROOM, PAGE, re.MULTILINE)
    assert commands
    for words in commands:
        (place,) = [word for word in words.split() if word.startswith("tests")]
        assert list((ROOT / place).rglob("test_*.py")) or (ROOT / place).is_file()
