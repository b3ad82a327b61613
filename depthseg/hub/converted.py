"""A converted checkpoint as it is published: its record is the report of its conversion."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

from ..convert.saving import REPORT_FILE
from ..engine.tasks import TASKS
from .bundle import NOT_PUBLISHED
from .forms import Form
from .record import Lineage, count_parameters
from .verify import check_loads_elsewhere, class_of


def is_converted(folder: str | Path) -> bool:
    """Whether `depthseg convert` wrote a folder."""
    return (Path(folder) / REPORT_FILE).is_file()


def read_converted(model_dir: Path, published: str) -> Form:
    """Read a folder that `depthseg convert` wrote.

    Args:
        model_dir: The folder.
        published: Name of a folder in it that is the result of an earlier publication.

    Raises:
        ValueError: It is a bare encoder.
    """
    report = json.loads((model_dir / REPORT_FILE).read_text())
    stored = json.loads((model_dir / "config.json").read_text())
    task = next((task for task in TASKS.values() if task.model_class.__name__ == report["model_class"]), None)
    if task is None:
        raise ValueError(
            f"{model_dir} is a bare encoder, which has no task; train it with depthseg finetune "
            f"model.pretrained={model_dir}, and publish that run."
        )

    def write(folder: Path) -> int:
        check_loads_elsewhere(model_dir)
        ignored = shutil.ignore_patterns(*NOT_PUBLISHED, published)
        shutil.copytree(model_dir, folder, ignore=ignored, dirs_exist_ok=True)
        return count_parameters(model_dir)

    return Form(
        name="converted",
        what="a converted checkpoint",
        task=task,
        lineage=Lineage((), ((report["kind"], None),)),
        write=write,
        library="transformers",
        title=report["kind"],
        summary=f"Published weights, converted with depthseg. {report['summary']}",
        licence_note=f"The licence of {report['kind']} as published: {report['licence']}.",
        values={
            "auto_class": class_of(model_dir).auto_class,
            "encoder": stored["encoder_config"]["model_type"],
            "report": report,
            "converted": len(report["tensors"]),
            "left_out": Counter(report["left_out"].values()),
        },
    )
