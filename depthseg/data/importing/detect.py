"""Which tool has written a file or folder."""

from __future__ import annotations

from pathlib import Path

from .files import read_json, read_xml
from .voc import is_voc


def tool_of(source: Path) -> str | None:
    """The tool that a file or folder comes from, by its files; None if that cannot be told."""
    if source.is_file():
        return _tool_of_file(source)
    if any(source.rglob("_annotations.coco.json")) or any(source.rglob("_classes.csv")):
        return "roboflow"
    if is_voc(source):
        return "cvat" if (source / "labelmap.txt").is_file() else "voc"
    if any((source / name).is_file() for name in ("data.yaml", "data.yml", "dataset.yaml")):
        return "yolo"
    if any(source.rglob("task-*-annotation-*.png")):
        return "label-studio"
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".json", ".xml"))
    return next(filter(None, map(_tool_of_file, files)), None)


def _tool_of_file(path: Path) -> str | None:
    if path.suffix.lower() == ".xml":
        return "cvat" if read_xml(path).tag == "annotations" else None
    if path.suffix.lower() != ".json":
        return None
    content = read_json(path)
    if isinstance(content, list):
        tasks = bool(content) and isinstance(content[0], dict) and {"data", "annotations"} <= content[0].keys()
        return "label-studio" if tasks else None
    if isinstance(content, dict):
        if {"images", "annotations", "categories"} <= content.keys():
            return "coco"
        return "labelme" if "shapes" in content else None
    return None
