"""The tiny run as a fixture: test files are imported one by one and cannot import each other."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def no_images():
    """Drawing takes longer than the tiny runs; the tests of the recipes look for the images."""
    patch = pytest.MonkeyPatch()
    patch.setattr("depthseg.engine.run.write_report", lambda run_dir, *_: (run_dir / "report").mkdir(exist_ok=True))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def tiny():
    """The module `tiny_run.py` beside this file."""
    spec = importlib.util.spec_from_file_location("tiny_run", Path(__file__).with_name("tiny_run.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
