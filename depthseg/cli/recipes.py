"""`depthseg recipes`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..engine.atomic import atomic_path
from ..engine.command import one_sentence_errors
from ..engine.options import RunConfig
from ..reading import reference
from ..recipes import Recipe, find_recipe, recipes


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of the recipes."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this recipe; default: list all of them")
    parser.add_argument("--options", action="store_true", help="explain every option of a run, with its default")
    parser.add_argument("--copy-to", type=Path, metavar="FILE", help="write the recipe into a new YAML file")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """List the recipes, print one, copy one, or explain all options."""
    with one_sentence_errors():
        if options.options:
            if options.name is not None or options.copy_to is not None:
                raise ValueError("--options explains the options of all recipes; leave out NAME and --copy-to.")
            print(options_text())
            return
        if options.name is None:
            if options.copy_to is not None:
                raise ValueError("--copy-to needs the NAME of a recipe; `depthseg recipes` lists all of them.")
            print(table())
            return
        recipe = find_recipe(options.name)
        if options.copy_to is None:
            print(recipe.text, end="")
            return
        copy(recipe, options.copy_to)
        print(f"{options.copy_to} is a copy of {recipe.name}; use it as --config {options.copy_to}")


def copy(recipe: Recipe, path: Path) -> None:
    """Write a recipe into a new file."""
    if path.exists():
        raise FileExistsError(f"{path} exists already; choose another name for the copy.")
    with atomic_path(path) as temporary:
        temporary.write_text(recipe.text, encoding="utf-8")


def table() -> str:
    """Return one line a recipe: name, task, what it is for."""
    rows = [(recipe.name, recipe.task, recipe.summary) for recipe in recipes().values()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{name:<{widths[0]}}  {task:<{widths[1]}}  {summary}" for name, task, summary in rows]
    uses = "depthseg finetune --config NAME trains segmentation, depthseg pretrain all tasks."
    return "\n".join(
        [*lines, "", uses, "depthseg recipes NAME prints one, depthseg recipes --options explains all options."]
    )


def options_text() -> str:
    """Return the reference of all options of a run."""
    return f"""# Options of a run

On the command line write section.option=value, such as optim.lr=1e-4 or data.size=[96,320], and an
entry of a map as model.encoder.depth=18. In a YAML file write sections; `base: NAME|FILE` begins with
the options of a recipe or of another file. A map takes the place of the one below it, and another
decoder, encoder or data set drops the map of options of the one below.

{reference(RunConfig)}"""
