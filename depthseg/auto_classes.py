"""transformers' Auto classes find the installed models of depthseg, and neither package is imported before its use.

`import depthseg` alone makes `AutoModelForSemanticSegmentation.from_pretrained(FOLDER)` find our classes. Importing
`depthseg.models` registers them, but it imports torch, which takes seconds. Whatever the Auto classes load, they begin
with one of the methods in `ENTRANCES`: a model class asks `AutoConfig` first. Each of these methods is made to import
`depthseg.models` before it does its own work. Where transformers is not imported yet, that happens when the module
of the method is imported.
"""

from __future__ import annotations

import functools
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

ENTRANCES = {
    "transformers.models.auto.configuration_auto": ("AutoConfig", ("from_pretrained", "for_model")),
    "transformers.models.auto.image_processing_auto": ("AutoImageProcessor", ("from_pretrained",)),
}
"""Module -> class, and its class methods."""


def register_on_first_use() -> None:
    """Let the Auto classes import `depthseg.models` when they are first used."""
    for name in ENTRANCES.keys() & sys.modules.keys():
        _import_models_first(sys.modules[name])
    sys.meta_path.insert(0, _AutoModuleFinder())


class _AutoModuleFinder(MetaPathFinder):
    """Finds the modules of `ENTRANCES` as Python does, and changes them when they have been executed."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the module's own specification, whose loader also changes the module; None for other modules."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname in ENTRANCES else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_change(module: ModuleType) -> None:
                execute(module)
                _import_models_first(module)

            spec.loader.exec_module = execute_and_change
        return spec


def _import_models_first(module: ModuleType) -> None:
    class_name, methods = ENTRANCES[module.__name__]
    owner = getattr(module, class_name)
    for name in methods:
        setattr(owner, name, _after_models(vars(owner)[name]))


def _after_models(method: classmethod) -> classmethod:
    @functools.wraps(method.__func__)
    def with_models(cls: type, *args: Any, **kwargs: Any) -> Any:
        import_module("depthseg.models")
        return method.__func__(cls, *args, **kwargs)

    return classmethod(with_models)
