"""`import depthseg`: costs nothing, offers every name, and lets transformers' Auto classes find the models."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import depthseg
from depthseg import models

TINY = Path(__file__).parents[1] / "model_cards" / "depthseg-tiny-world"


def run(program: str, *arguments: object) -> str:
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


SLOW = """
import depthseg, sys
slow = {"torch", "transformers", "numpy", "depthseg.models"}
print(sorted(slow & set(sys.modules)))
print(type(depthseg.models.ENCODERS).__name__, depthseg.DepthSegConfig.model_type)
print(sorted(slow & set(sys.modules)))
"""


def test_only_the_use_of_a_name_imports_torch_and_transformers():
    nothing, used, everything = run(SLOW).splitlines()
    assert (nothing, used) == ("[]", "dict depthseg")
    assert everything == "['depthseg.models', 'numpy', 'torch', 'transformers']"


def test_scipy_is_imported_where_it_is_used():
    for path in Path(depthseg.__file__).parent.rglob("*.py"):
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not [ast.unparse(node) for node in top if "scipy" in ast.unparse(node)], path


def test_all_lists_of_names_agree():
    tree = ast.parse(Path(depthseg.__file__).read_text())
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    static = {alias.asname or alias.name for node in guarded.body for alias in node.names}
    assert static and static | {"__version__"} == set(depthseg.__all__)
    assert set(dir(depthseg)) == {*depthseg.__all__, "models"}
    starred: dict[str, object] = {}
    exec("from depthseg import *", starred)
    assert set(depthseg.__all__) <= set(starred)
    for name in static:
        assert getattr(depthseg, name) is getattr(models, name) is starred[name]


def test_other_names_are_unknown():
    with pytest.raises(AttributeError, match="module 'depthseg' has no attribute 'DepthSegForSegmentation'"):
        depthseg.DepthSegForSegmentation  # noqa: B018
    with pytest.raises(ImportError):
        from depthseg import nothing  # noqa: F401


# Each call in a fork of its own: the first use of one class must not live on what another one imported.
AUTO_CLASSES = """
import os, sys
if sys.argv[2] == "transformers first":
    import transformers.models.auto.image_processing_auto, transformers.models.auto.configuration_auto
import depthseg
assert "depthseg.models" not in sys.modules
from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation
assert "depthseg.models" not in sys.modules
folder = sys.argv[1]
for call in (
    lambda: AutoModelForSemanticSegmentation.from_pretrained(folder),
    lambda: AutoImageProcessor.from_pretrained(folder),
    lambda: AutoConfig.from_pretrained(folder),
    lambda: AutoConfig.for_model("depthseg"),
    lambda: AutoConfig.for_model("bert"),
):
    child = os.fork()
    if child == 0:
        print(type(call()).__module__, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
print(AutoConfig.from_pretrained.__name__, "from a" in AutoConfig.from_pretrained.__doc__)
"""


@pytest.mark.parametrize("order", ["depthseg first", pytest.param("transformers first", marks=pytest.mark.heavy)])
def test_auto_classes_find_the_installed_classes(order):
    *found, other, documented = run(AUTO_CLASSES, TINY, order).splitlines()
    modules = ("modeling_depthseg", "image_processing_depthseg", *["configuration_depthseg"] * 2)
    assert found == [f"depthseg.models.{module}" for module in modules]
    assert other.startswith("transformers.models.bert.") and documented == "from_pretrained True"
