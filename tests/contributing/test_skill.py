"""The skill for coding agents: its commands parse here and run in `tests/test_wheel.py`, its facts are the code's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from depthseg.cli import COMMANDS, build_parser
from depthseg.engine.config import load_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / ".agents" / "skills" / "depthseg" / "SKILL.md").read_text()
LINES = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
PROJECT = (ROOT / "pyproject.toml").read_text()


def test_the_page_is_short_and_says_when_to_use_it():
    _, front, _ = PAGE.split("---\n", 2)
    assert set(yaml.safe_load(front)) == {"name", "description"}
    assert len(PAGE.splitlines()) < 120


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("depthseg ")])
def test_commands_are_those_of_the_parser(line):
    options = build_parser().parse_args(shlex.split(line)[1:])
    assert options.run
    if hasattr(options, "config"):
        load_config(options.config, options.overrides)


def test_the_way_leads_from_installing_to_publishing():
    assert LINES[0] == "python -m pip install -e ."
    named = [line.split()[1] for line in LINES[1:]]
    order = ["recipes", "datasets", "pretrain", "finetune", "evaluate", "predict", "export", "publish"]
    assert list(dict.fromkeys(named)) == order and set(order) <= set(COMMANDS)


def test_options_in_the_text_exist():
    spans = [shlex.split(span) for span in re.findall(r"`([^`\n']+)`", PAGE)]
    options = [words for words in spans if words and all(re.fullmatch(r"[a-z]+\.[a-z_.]+=.+", word) for word in words)]
    assert len(options) >= 6
    for words in options:
        load_config("folder_fewshot_resnet18", words)
    for name in re.findall(r"`((?:data|model|optim|schedule|run)\.\w+)`", PAGE):
        section, option = name.split(".")
        assert hasattr(getattr(load_config("folder_fewshot_resnet18", []), section), option), name


def test_facts_are_those_of_the_project():
    for requirement in re.findall(r"`((?:torch|transformers)>=[^`]+)`", PAGE):
        assert f'"{requirement}"' in PROJECT
    required = PROJECT.split("[project.scripts]")[0]
    assert "torch>=" in required and "torchvision" not in required and "timm" not in required
    for recipe, minutes in (("pretrain_synthetic_supervised", "12 min"), ("pretrain_video_mono", "15 min")):
        row = re.search(rf"^\| `{recipe}` \|.*$", (ROOT / "training" / "README.md").read_text(), re.MULTILINE)[0]
        assert minutes in row
    licences = (ROOT / "depthseg" / "models" / "README.md").read_text()
    assert "CC-BY-NC-4.0 for relative ViT-B, L and g" in licences
    assert re.search(r"`mae` .*CC-BY-NC-4.0", licences) and re.search(r"`monodepth2` .*non-commercial", licences)


@pytest.mark.heavy
def test_the_snippet_runs():
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", snippet], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "classifier" in done.stdout
