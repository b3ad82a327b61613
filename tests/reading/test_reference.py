"""The reference of all options: printed by a command, made from the dataclasses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
import yaml

from depthseg.cli import main
from depthseg.engine.config import load_config
from depthseg.engine.options import RunConfig
from depthseg.reading import Allowed, Count, reference


@dataclass
class Tide:
    """When the water comes.

    Attributes:
        hours: Hours between two floods, of which there are many more than fit into one line of a terminal, so
            that the text goes on in the next one.
        moon: Phase of the moon.
    """

    hours: Annotated[float, Allowed("a number from 11 to 13", lambda hours: 11 <= hours <= 13)] = 12.4
    moon: Literal["new", "full"] | None = None


@dataclass
class Beach:
    """Where to swim.

    Attributes:
        name: Its name.
        tide: The tide.
        depths: Of the water.
        guarded: Whether a person watches.
        signs: What signs say.
        places: Of towels.
    """

    name: str = "north"
    tide: Tide = field(default_factory=Tide)
    depths: list[float] = field(default_factory=lambda: [0.5, 2.0])
    guarded: bool = True
    signs: dict[str, Any] = field(default_factory=dict)
    places: Count = 0


def test_a_reference_has_name_values_default_and_meaning_of_every_option():
    assert (
        reference(Beach)
        == """Where to swim.

- `name` (text; default north): Its name.
- `depths` (a list of numbers; default [0.5, 2.0]): Of the water.
- `guarded` (true or false; default true): Whether a person watches.
- `signs` (a map such as {name: value}; default {}): What signs say.
- `places` (a whole number of at least 0; default 0): Of towels.

## tide

When the water comes.

- `tide.hours` (a number from 11 to 13; default 12.4): Hours between two floods, of which there are
  many more than fit into one line of a terminal, so that the text goes on in the next one.
- `tide.moon` (one of new, full or null; default null): Phase of the moon."""
    )


def test_recipes_explains_every_option_of_a_run_with_its_default(capsys):
    with pytest.raises(SystemExit):
        main(["recipes", "--options"])
    printed = re.sub(r"\n +", " ", capsys.readouterr().out)
    found = dict(re.findall(r"^- `([\w.]+)` \(.*?; default (.*?)\): \S", printed, re.MULTILINE))
    expected = {}
    for section, values in RunConfig().to_dict().items():
        expected |= {f"{section}.{name}": value for name, value in values.items()} if section != "task" else {}
    expected |= {f"model.lora.{name}": value for name, value in expected.pop("model.lora").items()}
    assert {name: yaml.safe_load(text) for name, text in found.items() if name not in ("task", "run.precision")} == {
        name: value for name, value in expected.items() if name != "run.precision"
    }
    assert (found["task"], found["run.precision"]) == ("segmentation", "no")
    assert "- `optim.lr` (a finite number above 0; default 0.0001): Peak learning rate." in printed


@pytest.mark.parametrize("words", [["pretrain_folder", "--options"], ["--options", "--copy-to", "x.yaml"]])
def test_the_reference_is_of_all_recipes(words):
    with pytest.raises(SystemExit, match="--options explains the options of all recipes"):
        main(["recipes", *words])


@pytest.mark.parametrize("command", ["finetune", "pretrain"])
def test_help_and_mistakes_point_to_it(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "`depthseg recipes NAME`" in shown and "`depthseg recipes --options`" in shown
    with pytest.raises(ValueError, match="'optim.lrr'.*`depthseg recipes --options` explains every option.$"):
        load_config(None, ["optim.lrr=1"])
