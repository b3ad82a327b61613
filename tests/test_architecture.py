"""The house stands as drawn: imports point down, nothing lies at the top level that does not belong there."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "depthseg"
# Lowest first; a part may import itself, the parts below it and `choices`, which imports
# nothing; models travel without the package.
MAY_IMPORT = {
    "choices": set(),
    "auto_classes": set(),
    "models": {"models"},
    "geometry": {"geometry"},
    "reading": {"reading"},
    "recipes": {"reading"},
    "data": {"data", "reading"},
    "metrics": {"metrics", "data"},
    "pretext": {"pretext", "models", "geometry", "data", "metrics"},
    "engine": {"engine", "recipes", "reading", "pretext", "models", "geometry", "data", "metrics"},
    "quickstart": {"engine", "pretext", "models", "geometry", "data", "metrics"},
    "study": {"study", "reading", "engine", "pretext", "models", "geometry", "data", "metrics"},
    "hub": {"hub", "convert", "export", "reading", "engine", "pretext", "models", "geometry", "data", "metrics"},
    "export": {"export", "engine", "models", "data"},
    "bench": {"geometry", "engine", "metrics", "models", "pretext", "data"},
    "convert": {"convert", "models", "engine", "data"},
    "cli": {
        "bench",
        "convert",
        "export",
        "quickstart",
        "hub",
        "study",
        "engine",
        "recipes",
        "reading",
        "pretext",
        "models",
        "geometry",
        "data",
        "metrics",
    },
    "__init__": {"models", "auto_classes"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_parts_of(source: str, place: tuple[str, ...]) -> set[str]:
    """Parts of depthseg that a source text imports, anywhere in it; `place` are the names of its path."""
    targets: list[list[str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            folder = list(place[: -node.level]) if node.level else []
            module = node.module.split(".") if node.module else []
            targets += [[*folder, *module, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            targets += [alias.name.split(".") for alias in node.names]
    return {target[1] for target in targets if target[0] == "depthseg" and len(target) > 1}


def test_every_part_is_in_the_table():
    missing = {part_of(path) for path in FILES} - set(MAY_IMPORT)
    assert not missing, f"give {sorted(missing)} a row in MAY_IMPORT, with the parts below it that it may import"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    part = part_of(path)
    found = imported_parts_of(path.read_text(), path.relative_to(ROOT).parts)
    allowed = MAY_IMPORT[part] | {part, "__version__"} | (set() if part == "models" else {"choices"})
    assert found <= allowed, (
        f"{part} imports {sorted(found - allowed)}, but it may import only {sorted(allowed)}: move the code to one of "
        "these, or to the part that imports both"
    )


def test_an_upward_import_is_seen():
    relative = imported_parts_of("from ..models import DepthSegConfig", ("depthseg", "data", "bad.py"))
    absolute = imported_parts_of("def f():\n    import depthseg.engine.run", ("depthseg", "data", "bad.py"))
    package = imported_parts_of("from .. import models", ("depthseg", "data", "bad.py"))
    assert (relative, absolute, package) == ({"models"}, {"engine"}, {"models"})


def test_top_level_holds_what_was_agreed():
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    agreed = {"pyproject.toml", "README.md", "LICENSE", "depthseg", "model_cards", "training", "tests"}
    made_by_tools = {"runs", "dist", "build", "depthseg.egg-info", "depthseg-quickstart", "data"}
    made_by_readme = {"my_data", "predictions", "model.onnx"}
    assert agreed - {"model_cards"} <= names
    strange = names - agreed - made_by_tools - made_by_readme
    assert not strange, (
        f"{sorted(strange)} at the top of the checkout: what is made goes into runs/ or data/, which git ignores"
    )
