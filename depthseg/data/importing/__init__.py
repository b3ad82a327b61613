"""What annotation tools export becomes a data folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ...choices import did_you_mean
from .annotations import Annotations
from .coco import read_coco
from .cvat import read_cvat
from .detect import tool_of
from .files import ImageFinder
from .label_studio import read_label_studio
from .labelme import read_labelme
from .roboflow import read_roboflow
from .voc import read_voc
from .write import FolderWriter, ImportOptions, ImportResult
from .yolo import read_yolo

__all__ = ["TOOLS", "ImportOptions", "ImportResult", "import_annotations"]

TOOLS: dict[str, Callable[[Sequence[Path], float, str], Annotations]] = {
    "coco": read_coco,
    "cvat": read_cvat,
    "label-studio": read_label_studio,
    "labelme": read_labelme,
    "roboflow": read_roboflow,
    "voc": read_voc,
    "yolo": read_yolo,
}
"""What reads the export of each tool: `read(sources, line_width, crowd)`."""


def import_annotations(
    sources: Sequence[str | Path],
    out: str | Path,
    tool: str | None = None,
    images: Sequence[str | Path] = (),
    options: ImportOptions | None = None,
    line_width: float = 10,
    crowd: str = "class",
) -> ImportResult:
    """Write what an annotation tool exports as a data folder: images, label maps, class names, lists of splits.

    Args:
        sources: Files or folders of the export.
        out: The data folder; it must not exist, or be empty.
        tool: A key of `TOOLS`; None = as its files say.
        images: Where the images are, if not beside the annotations.
        options: How annotations become label maps.
        line_width: Width of lines, pixels, above 0.
        crowd: What crowd regions of COCO are: `class` or `ignore`.

    Raises:
        FileNotFoundError: A source or a folder of images is missing.
        FileExistsError: `out` is not empty.
        ValueError: What cannot be used; the message names the file and what to do. Nothing is written then.
    """
    paths, folders = [Path(source) for source in sources], [Path(folder) for folder in images]
    for path in (*paths, *folders):
        if not path.exists():
            raise FileNotFoundError(f"There is no {path}.")
        if path.suffix.lower() == ".zip":
            raise ValueError(f"{path} is an archive; unpack it first, such as with: unzip {path} -d {path.stem}")
    if not line_width > 0:
        raise ValueError(f"--line-width {line_width} is out of range; it is in pixels, above 0.")
    tool = tool or tool_of(paths[0])
    if tool not in TOOLS:
        known = f"Known are {', '.join(TOOLS)}."
        if tool is None:
            raise ValueError(
                f"Which tool has written {paths[0]} cannot be told; say it with --from, or give the folder or "
                f"file that holds its annotations. {known}"
            )
        raise ValueError(f"--from {tool} is not known.{did_you_mean(tool, TOOLS)} {known}")
    try:
        annotations = TOOLS[tool](paths, line_width, crowd)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{paths[0]} is not as {tool} writes it: {type(error).__name__} {error}. Say which tool has written it "
            "with --from, or export it again."
        ) from error
    writer = FolderWriter(annotations, ImageFinder(folders), options or ImportOptions())
    record = {"sources": list(map(str, paths)), "tool": tool, "line_width": line_width, "crowd": crowd}
    return writer.write(Path(out), record)
