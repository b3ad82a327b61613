"""Every public name says what it is, its tensors say their shapes, and depths and focal lengths their units.

The rule. Public is what is in `depthseg.__all__` or in the `__all__` of a folder of the package, and the public
methods of these classes. Each has a docstring; that of a constant is the string after its assignment. Where the
annotations of a function, a method or the fields of a class name a tensor or an array, its docstring (for a
constructor and for fields that of the class) has a shape in backticks: `(B, C, H, W)`, `(3, 3)`, `()` for one number.
Where a number, a tensor or an array is called depth, disparity, focal (length), baseline or intrinsics, or where a
function of such a name returns one, the docstring has a unit: metres, pixels, levels (of nesting), or a sentence with
"unit", "scale" or "inverse depth" where there is none.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "depthseg"
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
TENSOR = re.compile(r"\b(Tensor|ndarray)\b")
NUMBER = re.compile(r"\b(Tensor|ndarray|float)\b")
SHAPE = re.compile(r"`\((\w[^`()]*)?\)`|`\[[^`]*\], \([^`]*\)`")
MEASURED = re.compile(r"(^|_)(depths?|disparity|focal|baseline|intrinsics)(_|$)")
# Of depth, but no depths: kinds, weights of a loss and so on.
NOT_MEASURED = re.compile(r"_(type|loss|weight|format|scale)$")
UNIT = re.compile(r"\b(metres?|pixels?|units?|scale|inverse depth|levels?)\b", re.IGNORECASE)


def assigned(node: ast.Assign | ast.AnnAssign) -> list[str]:
    """The names that a statement assigns to."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]


def definition(path: Path, name: str) -> tuple[ast.stmt, str]:
    """Where a name of a module is defined, through the imports of the package, and its docstring."""
    body = ast.parse(path.read_text()).body
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(node, DEFINITIONS) and node.name == name:
            return node, ast.get_docstring(node) or ""
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in assigned(node):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            return node, str(after.value.value) if is_text else ""
    for node in (node for statement in body for node in ast.walk(statement) if isinstance(node, ast.ImportFrom)):
        if node.level and name in [alias.asname or alias.name for alias in node.names]:
            folder = path.parents[node.level - 1].joinpath(*node.module.split("."))
            return definition(folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py"), name)
    raise AssertionError(f"{path} does not define {name}")


def public_names() -> Iterator[tuple[Path, str]]:
    """Every name of every `__all__`."""
    for path in sorted(PACKAGE.rglob("__init__.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and assigned(node) == ["__all__"]:
                yield from ((path, name) for name in ast.literal_eval(node.value) if name != "__version__")


def annotations(function: ast.FunctionDef) -> dict[str, str]:
    """Parameters and their types; what is returned goes by the name of the function."""
    given = function.args
    found = {part.arg: part.annotation for part in [*given.posonlyargs, *given.args, *given.kwonlyargs]}
    return {name: ast.unparse(node) for name, node in {**found, function.name: function.returns}.items() if node}


def complaints(name: str, types: dict[str, str], text: str) -> list[str]:
    """What a docstring lacks for these parameters or fields."""
    measured = [part for part in types if MEASURED.search(part) and not NOT_MEASURED.search(part)]
    found = [] if text else ["no docstring"]
    if any(TENSOR.search(kind) for kind in types.values()) and not SHAPE.search(text):
        found.append("no shape")
    if any(NUMBER.search(types[part]) for part in measured) and not UNIT.search(text):
        found.append("no unit")
    return [f"{name}: {what}" for what in found]


def complaints_of(node: ast.stmt, name: str, text: str) -> list[str]:
    """What a definition lacks, with the methods of a class."""
    if isinstance(node, ast.FunctionDef):
        return complaints(name, annotations(node), text)
    if not isinstance(node, ast.ClassDef):
        return complaints(name, {}, text)
    fields = {part.target.id: ast.unparse(part.annotation) for part in node.body if isinstance(part, ast.AnnAssign)}
    found = complaints(name, fields, text)
    for method in (part for part in node.body if isinstance(part, ast.FunctionDef)):
        if method.name == "__init__":
            found += complaints(f"{name}()", annotations(method), text)
        elif not method.name.startswith("_") and "setter" not in "".join(map(ast.unparse, method.decorator_list)):
            found += complaints(f"{name}.{method.name}", annotations(method), ast.get_docstring(method) or "")
    return found


def test_public_names_have_docstrings_with_shapes_and_units():
    names = list(public_names())
    assert len(names) > 100
    found = [line for path, name in names for line in complaints_of(*given(path, name))]
    assert not found, "\n".join(found)


def given(path: Path, name: str) -> tuple[ast.stmt, str, str]:
    node, text = definition(path, name)
    return node, name, text


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ('def f(x: Tensor) -> int:\n    """Sum of `(B, C)`."""', []),
        ('def f(x: Tensor) -> int:\n    """Sum."""', ["no shape"]),
        ('def f() -> np.ndarray:\n    """Call `x()` or `f(a, b)`."""', ["no shape"]),
        ("def f(x: int) -> int:\n    return x", ["no docstring"]),
        ('def f(focal: float) -> int:\n    """The focal length."""', ["no unit"]),
        ('def f(focal: float) -> int:\n    """The focal length in pixels."""', []),
        ('def read_depth() -> Tensor:\n    """Depth `(H, W)`."""', ["no unit"]),
        ('def f(depth_loss: float, depth: int) -> int:\n    """Layers."""', []),
        ('class C:\n    """Maps."""\n    maps: list[Tensor]', ["no shape"]),
        ('class C:\n    """Maps."""\n    def forward(self, x: Tensor) -> None:\n        """Go."""', ["no shape"]),
        ('class C:\n    """Maps."""\n    def _inner(self, x: Tensor) -> None: ...', []),
        ("F = 3", ["no docstring"]),
    ],
)
def test_what_is_missing_is_seen(source, missing):
    (node,) = ast.parse(source).body
    text = ast.get_docstring(node) or "" if isinstance(node, DEFINITIONS) else ""
    assert [line.split(": ")[1] for line in complaints_of(node, "f", text)] == missing
