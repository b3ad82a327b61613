"""Files that travel to the Hub may import only what is there: each other, a few packages, the standard library.

`save_pretrained` finds the files to copy by searching their text, so other forms of import are lost without a word.
"""

import ast
import re
import sys
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_relative_imports

MODELS = Path(__file__).resolve().parents[2] / "depthseg" / "models"
TRAVELLING = sorted(MODELS.glob("*_depthseg.py"))
PACKAGES = {"torch", "transformers", "huggingface_hub", "numpy", "PIL", *sys.stdlib_module_names}


def complaints(path: Path) -> list[str]:
    """What is wrong with the imports of a file, one sentence each.

    An import inside `try` is for a package that may be missing; transformers does not ask for it either.
    """
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    tried = {id(node) for block in nodes if isinstance(block, ast.Try) for node in ast.walk(block)}
    relative = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
    outright = [node for node in nodes if id(node) not in tried]
    absolute = [node.module for node in outright if isinstance(node, ast.ImportFrom) and not node.level]
    absolute += [alias.name for node in outright if isinstance(node, ast.Import) for alias in node.names]
    names = {getattr(node, "id", None) or getattr(node, "attr", None) for node in nodes}

    found = [f"imports {name}" for name in absolute if name.partition(".")[0] not in PACKAGES]
    found += [f"imports by a computed name: {name}" for name in names & {"import_module", "__import__"}]
    for node in relative:
        name = node.module or ""
        if node.level > 1 or not re.fullmatch(r"\w+_depthseg", name):
            found.append(f"imports from {'.' * node.level}{name}, which is not a sibling *_depthseg")
        elif not (path.parent / f"{name}.py").is_file():
            found.append(f"imports from .{name}, which does not exist")
    by_text, by_python = set(get_relative_imports(path)), {node.module or "" for node in relative}
    if by_text != by_python:
        found.append(f"transformers finds the imports {by_text} in the text, but Python {by_python}")
    return found


def test_the_travelling_files_are_found() -> None:
    names = {path.name for path in TRAVELLING}
    assert {"configuration_depthseg.py", "modeling_depthseg.py", "image_processing_depthseg.py"} <= names
    assert {path.name for path in MODELS.rglob("*.py")} - names == {"__init__.py"}, "all of models/ travels, flat"


@pytest.mark.parametrize("path", TRAVELLING, ids=lambda path: path.stem)
def test_travelling_files_import_only_what_travels(path: Path) -> None:
    assert complaints(path) == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("from . import b_depthseg", "not a sibling"),
        ("from .other import X", "not a sibling"),
        ("from .heads.b_depthseg import X", "not a sibling"),
        ("from ..b_depthseg import X", "not a sibling"),
        ("from .c_depthseg import X", "does not exist"),
        ("from depthseg.models.b_depthseg import X", "imports depthseg"),
        ("import depthseg.models.b_depthseg", "imports depthseg"),
        ("def f():\n    import timm", "imports timm"),
        ("import importlib\nimportlib.import_module('.b_depthseg', __package__)", "computed name"),
        ('"""\nfrom .c_depthseg import X\n"""', "in the text"),
    ],
)
def test_each_form_that_would_be_lost_is_complained_of(tmp_path: Path, line: str, complaint: str) -> None:
    allowed = "import os\nfrom torch.nn import functional\nfrom .b_depthseg import (\n    X,\n)\n"
    (tmp_path / "b_depthseg.py").write_text("X = 1\n")
    (tmp_path / "a_depthseg.py").write_text(allowed)
    assert complaints(tmp_path / "a_depthseg.py") == []
    (tmp_path / "a_depthseg.py").write_text(allowed + line + "\n")
    assert any(complaint in sentence for sentence in complaints(tmp_path / "a_depthseg.py"))
