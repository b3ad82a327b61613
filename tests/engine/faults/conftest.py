"""Every fault test states its row of `training/guides/when_a_run_breaks.md`, made of what really happened."""

from __future__ import annotations

import ast
import os
import platform
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthseg.data import Sample
from depthseg.engine.run import train

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[2] / "training" / "guides" / "when_a_run_breaks.md"
BEGIN, END = "<!-- table: faults -->\n", "<!-- end -->"
HEADER = "| what breaks | what you see | what is kept |\n|---|---|---|\n"
WRITING = "DEPTHSEG_WRITE_FAULTS"


def declared_faults():
    """The names of all rows, in the order of the test files."""
    names = []
    for path in sorted(FOLDER.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "row":
                names.append((path.name, node.lineno, ast.literal_eval(node.args[0])))
    return [name for *_, name in sorted(names)]


def rows_of_page():
    """The rows as they are written, by their names."""
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index(BEGIN) + len(BEGIN) + len(HEADER) : text.index(END)]
    return {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines()}


def _write(name, line):
    text = PAGE.read_text(encoding="utf-8")
    rows = {**rows_of_page(), name: line}
    table = "".join(f"{rows[each]}\n" for each in declared_faults() if each in rows)
    start, end = text.index(BEGIN), text.index(END)
    PAGE.write_text(text[:start] + BEGIN + HEADER + table + text[end:], encoding="utf-8")


@pytest.fixture
def row(tmp_path):
    """`row(fault, sees, kept)`: the row of the page is exactly this.

    `sees` is the text that the user got in this test; what differs from machine to machine is replaced in it.
    """

    def state(name, sees, kept):
        for path, word in ((tmp_path / "run", "RUN_DIR"), (tmp_path, "FOLDER"), (platform.node(), "HOST")):
            sees = sees.replace(str(path), word)
        sees = re.sub(r"(pid\(?s?\)?|process id|process) (\d{2,})", r"\1 N", sees)
        sees = re.sub(r"for \d+ s\b", "for N s", sees)
        line = " | ".join([f"| {name}", re.sub(r"\s+", " ", sees).replace("|", "\\|"), f"{kept} |"])
        if os.environ.get(WRITING):
            _write(name, line)
        assert rows_of_page().get(name) == line, f"stale: {WRITING}=1 python -m pytest -n 0 -m '' {FOLDER}"

    return state


class Faulty:
    """Images whose reading goes wrong as the tests ask.

    `errors`: index -> error. `when`: called with each index first.
    """

    def __init__(self, dataset, errors=(), when=None):
        self.names, self.label_space = dataset.names, dataset.label_space
        self._dataset, self._errors, self._when = dataset, dict(errors), when

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index) -> Sample:
        if self._when is not None:
            self._when(index)
        if index in self._errors:
            raise self._errors[index]
        return self._dataset[index]


@pytest.fixture
def faulty():
    return Faulty


@pytest.fixture
def run_tiny(tiny, tmp_path):
    """`run_tiny(*options, data=None)`: four steps on ten images in `tmp_path / "run"`, saved after each."""

    def run(*options, data=None, val=None, folder="run"):
        usual = ("schedule.steps=4", "run.checkpoint_every=1", "run.eval_every=2", "run.report=false")
        config = tiny.tiny_config(tmp_path / folder, *usual, *options)
        return train(config, data or tiny.Blocks(10), val or tiny.Blocks(2, seed=1))

    return run


@pytest.fixture
def folder(tmp_path):
    """Six images with label maps in the layout `folder`."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for index in range(6):
        Image.fromarray(rng.integers(0, 255, (32, 64, 3), dtype=np.uint8)).save(root / "images" / f"{index}.png")
        Image.fromarray(rng.integers(0, 2, (32, 64), dtype=np.uint8)).save(root / "labels" / f"{index}.png")
    (root / "classes.txt").write_text("ground\ntree\n")
    return root


@pytest.fixture
def run_folder(tiny, tmp_path, folder):
    def run(*options):
        usual = ("schedule.steps=3", "run.checkpoint_every=1", "run.report=false", "data.name=folder")
        return train(tiny.tiny_config(tmp_path / "run", *usual, f"data.root={folder}", *options))

    return run


@pytest.fixture(scope="session")
def whole(tiny, tmp_path_factory):
    """Weights after four steps of the run that nothing breaks."""
    folder = tmp_path_factory.mktemp("whole")
    usual = ("schedule.steps=4", "run.checkpoint_every=1", "run.eval_every=2", "run.report=false")
    train(tiny.tiny_config(folder / "run", *usual), tiny.Blocks(10), tiny.Blocks(2, seed=1))
    return (folder / "run" / "checkpoints" / "step_4" / "model.safetensors").read_bytes()


@pytest.fixture
def ends_like(whole, tmp_path):
    """Whether a run in `tmp_path` ended with the weights of the unbroken one, bit by bit."""

    def ends(folder="run"):
        return (tmp_path / folder / "checkpoints" / "step_4" / "model.safetensors").read_bytes() == whole

    return ends
