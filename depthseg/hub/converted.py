"""Publishing a converted checkpoint, which has no run: its record is the report of its conversion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers
from huggingface_hub import ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from ..convert.saving import REPORT_FILE
from ..engine.atomic import atomic_folder
from ..engine.fingerprint import hashes_of
from ..engine.records import write_json
from ..engine.tasks import TASKS, Task
from .bundle import MANIFEST, NOT_PUBLISHED, check_free
from .licences import Source, check_licence, licence_of_weights, parse_licence
from .record import LINEAGE_FILE, count_parameters
from .verify import check_loads_elsewhere

if TYPE_CHECKING:
    from .facts import Facts


def is_converted(folder: str | Path) -> bool:
    """Whether `depthseg convert` wrote a folder."""
    return (Path(folder) / REPORT_FILE).is_file()


def prepare_converted(model_dir: str | Path, repo_id: str, facts: Facts, folder: str | Path) -> None:
    """Write all files of the publication of a converted checkpoint to a folder, and verify that it loads.

    Args:
        model_dir: The folder that `depthseg convert` wrote.
        repo_id: Its repository on the Hub.
        facts: Facts stated by its author; `test`, `dtype` and `data` are of runs.
        folder: The folder; the result of an earlier call is replaced.

    Raises:
        FileExistsError: The folder contains other files.
        ValueError: A bare encoder, facts of runs, no licence or one that the licence of the weights forbids, or
            weights that do not load in a process without depthseg.
    """
    model_dir, folder = Path(model_dir), Path(folder)
    report = json.loads((model_dir / REPORT_FILE).read_text())
    stored = json.loads((model_dir / "config.json").read_text())
    task = _task(model_dir, report)
    of_runs = [name for name in ("test", "dtype", "hub_datasets") if getattr(facts, name)]
    if of_runs:
        raise ValueError(f"The facts {', '.join(of_runs)} are of runs, and {model_dir} is a converted checkpoint.")
    kind = report["kind"]
    given = facts.licences.get(kind)
    source = Source(kind, "weights", parse_licence(given) if given else licence_of_weights(kind))
    licence = parse_licence(facts.licence) if facts.licence else None
    problems = check_licence(licence, [source])
    if problems:
        raise ValueError(f"{' '.join(problems)} The licence of {kind} as published: {report['licence']}.")
    check_free(folder)
    check_loads_elsewhere(model_dir)
    parameters = count_parameters(model_dir)
    with atomic_folder(folder) as partial:
        # `published` is the result of an earlier call.
        shutil.copytree(model_dir, partial, ignore=shutil.ignore_patterns(*NOT_PUBLISHED, folder.name))
        (partial / LINEAGE_FILE).parent.mkdir()
        lineage = {"licence": licence.text, "stages": [], "ancestors": [[kind, source.licence.text]]}
        write_json(partial / LINEAGE_FILE, lineage | {"parameters": parameters})
        metadata = ModelCardData(
            license=licence.id,
            license_name=licence.name or None,
            license_link=licence.link or None,
            library_name="transformers",
            pipeline_tag=task.pipeline,
            tags=["depthseg", *task.tags],
        )
        values = _values(report, stored, task, facts) | {"repo_id": repo_id, "parameters": f"{parameters / 1e6:.1f}"}
        values["licences"] = (licence.label, source.licence.label)
        environment = Environment(
            loader=PackageLoader(__package__, "."), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
        )
        text = environment.get_template("converted.md.jinja").render(**values)
        (partial / "README.md").write_text(f"---\n{metadata.to_yaml()}\n---\n\n{text}", encoding="utf-8")
        write_json(partial / MANIFEST, hashes_of(partial))


def _task(model_dir: Path, report: dict[str, Any]) -> Task:
    """The task of a converted model.

    Raises:
        ValueError: It is a bare encoder.
    """
    for task in TASKS.values():
        if task.model_class.__name__ == report["model_class"]:
            return task
    raise ValueError(
        f"{model_dir} is a bare encoder, which has no task; train it with depthseg finetune "
        f"model.pretrained={model_dir}, and publish that run."
    )


def _values(report: dict[str, Any], stored: dict[str, Any], task: Task, facts: Facts) -> dict[str, Any]:
    """Values of the template, apart from those of the publication."""
    code = {name: value for name, value in stored["auto_map"].items() if value.endswith(f".{report['model_class']}")}
    auto_class = next(name for name in code if hasattr(transformers, name))
    reasons: dict[str, int] = {}
    for reason in report["left_out"].values():
        reasons[reason] = reasons.get(reason, 0) + 1
    return {
        "title": facts.title or report["kind"],
        "summary": facts.summary or f"Published weights, converted with depthseg. {report['summary']}",
        "auto_class": auto_class,
        "example": task.example,
        "intended_use": facts.intended_use or "The author has not stated an intended use.",
        "limits": facts.limits,
        "encoder": stored["encoder_config"]["model_type"],
        "report": report,
        "converted": len(report["tensors"]),
        "left_out": reasons,
    }
