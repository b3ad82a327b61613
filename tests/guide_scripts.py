"""The scripts beside the guides, which are no modules of the package."""

import importlib.util
from pathlib import Path

GUIDES = Path(__file__).parents[1] / "training" / "guides"


def load_script(name):
    """The module of `training/guides/NAME.py`."""
    spec = importlib.util.spec_from_file_location(name, GUIDES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
