"""The recipes: complete configurations of runs that come with depthseg and are known by name from any folder.

Their home is training/configs; a wheel holds them inside the package. A recipe begins with comments, the first of
which says in one line what it is for.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from .choices import did_you_mean
from .reading import Written, read_with_bases

logger = logging.getLogger(__name__)

SUFFIXES = (".yaml", ".yml")

FORMER_NAMES = {"pretrain_synthetic_reconstruction": "pretrain_synthetic_inpainting"}
"""Former name of a recipe -> the name now. Users may write it for one version, with a warning."""


@dataclass(frozen=True)
class Recipe:
    """One recipe.

    Attributes:
        name: What `--config` takes.
        path: Its file.
    """

    name: str
    path: Path

    @property
    def text(self) -> str:
        """The file, a copy of which works in any folder."""
        return self.path.read_text(encoding="utf-8")

    @property
    def summary(self) -> str:
        """What it is for, in one line."""
        return self.text.partition("\n")[0].removeprefix("# ")

    @property
    def task(self) -> str:
        """What it trains: its own task, or that of the recipe that it is based on."""
        return next(layer.value["task"].value for layer in reversed(read_config(self.path)) if "task" in layer.value)


def recipes() -> dict[str, Recipe]:
    """Return every recipe by name, in alphabetical order."""
    packaged = Path(__file__).parent / "configs"
    folder = packaged if packaged.is_dir() else Path(__file__).parents[1] / "training" / "configs"
    return {path.stem: Recipe(path.stem, path) for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        FileNotFoundError: No recipe has this name; near names are given.
    """
    known = recipes()
    if name in FORMER_NAMES:
        old, name = name, FORMER_NAMES[name]
        logger.warning("The recipe %s is called %s now; the old name goes with the next version.", old, name)
    if name not in known:
        raise FileNotFoundError(
            f"There is no recipe {name!r}, and no file of that name.{did_you_mean(name, known)} "
            "`depthseg recipes` lists all of them."
        )
    return known[name]


def config_path(config: str | Path, folder: str | Path = ".") -> Path:
    """Return the file that `--config` or the `base:` of a file means.

    Args:
        config: Path of a YAML file, or name of a recipe. A file of that very name comes first.
        folder: Where relative paths begin.

    Raises:
        FileNotFoundError: There is neither such a file nor such a recipe.
    """
    path = Path(folder, config)
    if path.is_file():
        return path
    if Path(config).suffix in SUFFIXES or len(Path(config).parts) != 1:
        name = FORMER_NAMES.get(Path(config).stem, Path(config).stem)
        hint = f" Recipes go by their name alone: {name}." if name in recipes() else ""
        raise FileNotFoundError(f"There is no configuration file {path}.{hint}")
    return find_recipe(str(config)).path


def read_config(config: str | Path) -> list[Written]:
    """Read a configuration and the files that it is based on, the lowest one first.

    Args:
        config: As of `config_path`.

    Raises:
        FileNotFoundError: No such file or recipe.
        ValueError: Not YAML, not a map of options, or a file that is its own base.
    """
    return read_with_bases(config_path(config), config_path, "`model:` and `data:`")
