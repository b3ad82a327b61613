"""What a run directory knows about the weights in it, and what those came from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from ..data import DATASETS, OWN_TERMS
from ..engine.build import source_of
from ..engine.config import load_config
from ..engine.motion import MOTION_FILE
from ..engine.options import RunConfig
from ..engine.records import METRICS_FILE, RUN_RECORD
from ..engine.scoring import SELECTION, WITHOUT_TRUTH
from .licences import Licence, Source, licence_of_data, licence_of_weights, parse_licence

LINEAGE_FILE = "training/lineage.json"
"""Where a published checkpoint says what it came from."""

LOCAL = "./"
"""What the name of a folder that is no run begins with; of its path, the last two names stay."""

JOINT = "labels_and_depth"
"""Supervision of a segmenter that learns depth as well."""

UNLABELLED = ("flow", "reconstruction")
"""Tasks whose truth is in the pictures."""

UNNAMED = "unnamed"
"""Data that a program passed to `train` itself."""


@dataclass(frozen=True)
class Stage:
    """One training that the weights went through.

    Attributes:
        name: Of the run.
        task: What was learned.
        supervision: What from: `labels`, `labels_and_depth`; `mono`, `stereo` or `mono_stereo` for depth without
            labels; `pictures` for other tasks without labels.
        data: Name of the data set.
        root: Last name of the folder or file that somebody's own data lies in; empty for data sets that we know.
        start: What the weights were before: the stage before, the name of a checkpoint, or empty for random ones.
        steps: Optimiser steps.
        batch_size: Images in a step.
        seed: Of the run.
        licence: Of the data, as a published checkpoint states it; None = not stated there.
    """

    name: str
    task: str
    supervision: str
    data: str
    root: str
    start: str
    steps: int
    batch_size: int
    seed: int
    licence: str | None = None


@dataclass(frozen=True)
class Lineage:
    """Where weights come from.

    Attributes:
        stages: The trainings that are known, oldest first; the last one is the run itself.
        ancestors: Checkpoints that they began with, and their licence where they say it themselves.
    """

    stages: tuple[Stage, ...]
    ancestors: tuple[tuple[str, str | None], ...]

    def data_name(self, stage: Stage) -> str:
        """Name of the data of a stage, such as `folder`; `folder/streets` where there are several folders."""
        roots = {other.root for other in self.stages if other.data == stage.data}
        return f"{stage.data}/{stage.root}" if len(roots) > 1 else stage.data

    def sources(self, stated: dict[str, Licence]) -> list[Source]:
        """Data and weights, each once, with their licences.

        What is `stated` counts before what we know, but never before what a published checkpoint says of its data.
        """
        found = []
        for stage in self.stages:
            name = self.data_name(stage)
            published = parse_licence(stage.licence) if stage.licence else None
            found.append(Source(name, "data", published or stated.get(name) or licence_of_data(stage.data)))
        for name, own in self.ancestors:
            known = stated.get(name) or (parse_licence(own) if own else licence_of_weights(name))
            found.append(Source(name, "weights", known))
        return list(dict.fromkeys(found))

    @property
    def base_model(self) -> str | None:
        """The checkpoint of the Hub that the last of the stages outside it began with."""
        for stage in reversed(self.stages):
            if "/" in stage.start:
                return None if stage.start.startswith(LOCAL) else stage.start
            if not stage.start:
                return None
        return None

    @property
    def knows_scale(self) -> bool:
        """Whether depth has a unit: the last stage that taught it had more than the video of one camera."""
        taught = [stage.supervision for stage in self.stages if stage.task == "depth" or stage.supervision == JOINT]
        return not taught or taught[-1] != "mono"


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Attributes:
        run_dir: Its directory, or that of a published checkpoint.
        model_dir: The weights.
        parameters: Numbers in them, statistics of norm layers included.
        config: Its options.
        scores: The line of metrics.jsonl of the weights in `model/`.
        curve: All lines, in order.
        launches: How it was run: device, versions.
        seconds: Time of training of all launches, None where it is not known.
        lineage: What the weights come from.
        subset: The labelled images of a few-shot run; empty if it had all.
        motion: How well the camera's motion in a video was found, as the report of the run has it; mostly empty.
    """

    run_dir: Path
    model_dir: Path
    parameters: int
    config: RunConfig
    scores: dict[str, Any]
    curve: list[dict[str, Any]]
    launches: list[dict[str, Any]]
    seconds: float | None
    lineage: Lineage
    subset: dict[str, Any]
    motion: dict[str, Any]


def read_run(run_dir: str | Path) -> RunRecord:
    """Read a run directory.

    Raises:
        FileNotFoundError: It is none.
        ValueError: The run has not come to its end.
    """
    run_dir = Path(run_dir)
    for name in ("config.yaml", METRICS_FILE, RUN_RECORD, "model/config.json"):
        if not (run_dir / name).is_file():
            raise FileNotFoundError(
                f"{run_dir} is no finished run: it has no {name}. Give the run.output_dir of depthseg finetune or "
                "pretrain."
            )
    config = load_config(run_dir / "config.yaml")
    curve = _read_curve(run_dir)
    if curve[-1]["step"] < config.schedule.steps:
        raise ValueError(
            f"The run in {run_dir} stopped after step {curve[-1]['step']} of {config.schedule.steps}. Finish it with "
            "run.resume=true, then publish."
        )
    model_dir = run_dir / "model"
    return _record(run_dir, run_dir, model_dir, count_parameters(model_dir), trace(config, run_dir))


def read_published(folder: str | Path) -> RunRecord:
    """Read the record beside published weights; these themselves may be missing.

    Raises:
        FileNotFoundError: No record lies there.
    """
    folder = Path(folder)
    if not (folder / LINEAGE_FILE).is_file():
        raise FileNotFoundError(f"{folder} holds no record of `depthseg publish`: it has no {LINEAGE_FILE}.")
    known = json.loads((folder / LINEAGE_FILE).read_text())
    return _record(folder, folder / "training", folder, known["parameters"], _read_lineage(known))


def _record(run_dir: Path, files: Path, model_dir: Path, parameters: int, lineage: Lineage) -> RunRecord:
    config, curve = load_config(files / "config.yaml"), _read_curve(files)
    launches = json.loads((files / RUN_RECORD).read_text())["launches"]
    subset = files / "subset.json"
    motion = next((path for path in (files / "report" / MOTION_FILE, files / MOTION_FILE) if path.is_file()), None)
    return RunRecord(
        run_dir=run_dir,
        model_dir=model_dir,
        parameters=parameters,
        config=config,
        scores=_selected(config, curve),
        curve=curve,
        launches=launches,
        seconds=_seconds(curve, launches),
        lineage=lineage,
        subset=json.loads(subset.read_text()) if subset.is_file() else {},
        motion=json.loads(motion.read_text()) if motion else {},
    )


def _read_curve(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def count_parameters(model_dir: Path) -> int:
    """Numbers in the weights of a checkpoint, statistics of norm layers included."""
    from safetensors import safe_open

    total = 0
    for path in sorted(model_dir.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dictionary
                count = 1
                for side in file.get_slice(name).get_shape():
                    count *= side
                total += count
    return total


def trace(config: RunConfig, run_dir: Path) -> Lineage:
    """Follow the weights of a run back through the runs they began in.

    Args:
        config: The options of the run.
        run_dir: Its directory.

    Raises:
        FileNotFoundError: It began with a checkpoint that is nowhere to be found.
        ConnectionError: It began with a checkpoint of the Hub, which does not answer.
    """
    before, start = _before(config, run_dir)
    name, path = source_of(config.data)
    own = name is None or name not in DATASETS or DATASETS[name].terms == OWN_TERMS
    stage = Stage(
        name=run_dir.resolve().name,
        task=config.task,
        supervision=_supervision(config),
        data=name or UNNAMED,
        root=Path(path).name if own and path else "",
        start=start,
        steps=config.schedule.steps,
        batch_size=config.optim.batch_size * config.optim.accumulation_steps,
        seed=config.run.seed,
    )
    return Lineage((*before.stages, stage), before.ancestors)


def _supervision(config: RunConfig) -> str:
    if config.task in UNLABELLED:
        return "pictures"
    joint = config.task == "segmentation" and config.model.keep_depth and config.model.depth_weight > 0
    return JOINT if joint else config.pretext.supervision


def _before(config: RunConfig, run_dir: Path) -> tuple[Lineage, str]:
    """What a run began with, and what its stage calls that."""
    start, revision = config.model.pretrained, config.model.revision
    stored = run_dir / "model" / "config.json"
    transfers = json.loads(stored.read_text()).get("weight_lineage") or [] if stored.is_file() else []
    if start is None:
        if not transfers:
            return Lineage((), ()), ""
        # The program that called `train` brought a model with weights.
        start, revision = transfers[-1]["source"], transfers[-1]["revision"]
        if revision is None:
            return Lineage((), ((LOCAL + start, None),)), LOCAL + start
    folder = Path(start)
    if not folder.is_dir():
        loaded = [transfer["revision"] for transfer in transfers if transfer["source"] == start]
        return _published(start, loaded[-1] if loaded else revision), start
    # No id of the Hub begins like this, so that a folder never passes for the checkpoint that it is named after.
    local = LOCAL + "/".join(folder.resolve().parts[-2:])
    if (folder / LINEAGE_FILE).is_file():
        values = json.loads((folder / LINEAGE_FILE).read_text())
        before = _read_lineage(values)
        return Lineage(before.stages, (*before.ancestors, (local, values["licence"]))), local
    if (folder.parent / "config.yaml").is_file():
        before = trace(load_config(folder.parent / "config.yaml"), folder.parent)
        return before, before.stages[-1].name
    return Lineage((), ((local, None),)), local


def _published(repo_id: str, revision: str | None) -> Lineage:
    """What a checkpoint of the Hub says it came from, and the checkpoint itself."""
    nowhere = (
        f"The run began with {repo_id}, which is no folder here and no repository that the Hub shows to this token, "
        "so nobody can tell what it was made from. Publish from the folder that training was started in, or put it "
        "back."
    )
    try:
        path = hf_hub_download(repo_id, LINEAGE_FILE, revision=revision)
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"The Hub does not answer, so nobody can tell what {repo_id} was made from and under which licence."
        ) from error
    except (EntryNotFoundError, GatedRepoError):  # a checkpoint of another library
        return Lineage((), ((repo_id, None),))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise FileNotFoundError(nowhere) from error
    values = json.loads(Path(path).read_text())
    before = _read_lineage(values)
    return Lineage(before.stages, (*before.ancestors, (repo_id, values["licence"])))


def _read_lineage(values: dict[str, Any]) -> Lineage:
    return Lineage(
        tuple(Stage(**stage) for stage in values["stages"]),
        tuple((name, licence) for name, licence in values["ancestors"]),
    )


def _selected(config: RunConfig, curve: list[dict[str, Any]]) -> dict[str, Any]:
    """The scored weights that a run keeps; of equal ones the later."""
    if config.run.select == "last":
        return curve[-1]
    name, better = SELECTION[config.task]
    if name not in curve[-1]:
        name, better = WITHOUT_TRUTH
    best = better(line[name] for line in curve)
    return [line for line in curve if line[name] == best][-1]


def _seconds(curve: list[dict[str, Any]], launches: list[dict[str, Any]]) -> float | None:
    """Time of training of all launches; the first releases did not add it up, so that it is unknown there."""
    if any(launch["first_step"] and "seconds_before" not in launch for launch in launches):
        return None
    return curve[-1]["seconds"]
