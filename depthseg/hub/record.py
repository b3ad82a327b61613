"""The record of a run directory: its weights, their scores and the trainings that they come from."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
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
from safetensors import safe_open

from ..convert.saving import REPORT_FILE
from ..data import DATASETS, OWN_LICENCE
from ..engine.build import source_of
from ..engine.config import load_config
from ..engine.lora import is_adapter
from ..engine.motion import MOTION_FILE
from ..engine.options import RunConfig
from ..engine.records import METRICS_FILE, RUN_RECORD, read_lines
from ..engine.tasks import WITHOUT_TRUTH, task_of
from ..engine.wrapping import wrapped_by
from .licences import Licence, Source, licence_of_data, licence_of_weights, parse_licence

LINEAGE_FILE = "training/lineage.json"
"""The file of a published checkpoint with the trainings that it comes from."""

LOCAL = "./"
"""Prefix of the name of a folder that is not a run; the last two names of its path are kept."""

JOINT = "labels_and_depth"
"""Supervision of a segmenter that also predicts depth."""

FORMER_WORDS = {"pictures": "images", "reconstruction": "inpainting"}
"""Supervision or task of a stage in the lineage of older checkpoints -> its name now."""

UNNAMED = "unnamed"
"""Data that a program passed to `train`."""


@dataclass(frozen=True)
class Stage:
    """One training of the weights.

    Attributes:
        name: Of the run.
        task: Its task.
        supervision: `labels` or `labels_and_depth`; `mono`, `stereo` or `mono_stereo` for depth without labels;
            `images` for other tasks without labels.
        data: Name of the data set.
        root: Last name of the folder or file of a user's own data; empty for data sets of depthseg.
        start: Initialisation: the previous stage, the name of a checkpoint, or empty for random weights.
        steps: Optimiser steps.
        batch_size: Images per step.
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
    """The trainings and checkpoints that weights come from.

    Attributes:
        stages: The known trainings, oldest first; the last one is the run itself.
        ancestors: Checkpoints that initialised them, with their licence if the checkpoint states it.
    """

    stages: tuple[Stage, ...]
    ancestors: tuple[tuple[str, str | None], ...]

    def data_name(self, stage: Stage) -> str:
        """Name of the data of a stage, such as `folder`; `folder/streets` if there are several folders."""
        roots = {other.root for other in self.stages if other.data == stage.data}
        return f"{stage.data}/{stage.root}" if len(roots) > 1 else stage.data

    def sources(self, stated: dict[str, Licence]) -> list[Source]:
        """Data and weights, each once, with their licences.

        A `stated` licence takes precedence over a known one, but not over that of the data of a published checkpoint.
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
        """The checkpoint of the Hub that initialised the last stage with one."""
        # Back to the first stage that begins with a checkpoint, whose name has a slash, or with random weights.
        starts = (stage.start for stage in reversed(self.stages))
        start = next((start for start in starts if not start or "/" in start), "")
        return None if not start or start.startswith(LOCAL) else start

    @property
    def knows_scale(self) -> bool:
        """Whether depth has a scale: the last depth stage used more than monocular video."""
        taught = [stage.supervision for stage in self.stages if stage.task == "depth" or stage.supervision == JOINT]
        return not taught or taught[-1] != "mono"


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Attributes:
        run_dir: Its directory, or that of a published checkpoint.
        model_dir: The weights.
        parameters: Number of parameters, including statistics of norm layers.
        config: Its options.
        scores: The line of metrics.jsonl of the weights in `model/`.
        curve: All lines, in order.
        launches: Device and versions of each launch.
        seconds: Training time of all launches; None if it is unknown.
        lineage: The trainings and checkpoints that the weights come from.
        subset: The labelled images of a few-shot run; empty if it used all.
        motion: Errors of camera motion, as in the report of the run; empty for most tasks.
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
        FileNotFoundError: It is not a run directory.
        ValueError: The run is not finished.
    """
    run_dir = Path(run_dir)
    for name in ("config.yaml", METRICS_FILE, RUN_RECORD, "model/config.json"):
        if not (run_dir / name).is_file():
            raise FileNotFoundError(
                f"{run_dir} is not a finished run: it has no {name}. Give the run.output_dir of depthseg finetune or "
                "pretrain."
            )
    config, model_dir = load_config(run_dir / "config.yaml", is_record=True), run_dir / "model"
    if is_adapter(model_dir):
        raise ValueError(
            f"{model_dir} holds adapters of {config.model.pretrained}, which cannot be evaluated like a whole model. "
            "Publish them with depthseg publish, or train with model.lora.merge=true."
        )
    check_finished(config, run_dir)
    return _record(run_dir, run_dir, model_dir, count_parameters(model_dir), trace(config, run_dir))


def check_finished(config: RunConfig, run_dir: Path) -> None:
    """Refuse a run that stopped early.

    Raises:
        ValueError: It did.
    """
    done = max((line["step"] for line in read_lines(run_dir / METRICS_FILE)), default=0)
    if done < config.schedule.steps:
        raise ValueError(
            f"The run in {run_dir} stopped after step {done} of {config.schedule.steps}. Finish it with "
            "run.resume=true, then publish."
        )


def read_published(folder: str | Path) -> RunRecord:
    """Read the record next to published weights; the weights themselves may be missing.

    Raises:
        FileNotFoundError: The folder has no record.
    """
    folder = Path(folder)
    if not (folder / LINEAGE_FILE).is_file():
        raise FileNotFoundError(f"{folder} contains no record of `depthseg publish`: it has no {LINEAGE_FILE}.")
    parameters = json.loads((folder / LINEAGE_FILE).read_text())["parameters"]
    return _record(folder, folder / "training", folder, parameters, _read_lineage(folder / LINEAGE_FILE))


def _record(run_dir: Path, files: Path, model_dir: Path, parameters: int, lineage: Lineage) -> RunRecord:
    config, curve = load_config(files / "config.yaml", is_record=True), read_lines(files / METRICS_FILE)
    launches = json.loads((files / RUN_RECORD).read_text())["launches"]
    subset = files / "subset.json"
    motion = next((path for path in (files / "report" / MOTION_FILE, files / MOTION_FILE) if path.is_file()), None)
    # The first releases did not sum the training time of all launches.
    is_summed = all(not launch["first_step"] or "seconds_before" in launch for launch in launches)
    return RunRecord(
        run_dir=run_dir,
        model_dir=model_dir,
        parameters=parameters,
        config=config,
        scores=_selected(config, curve),
        curve=curve,
        launches=launches,
        seconds=curve[-1]["seconds"] if is_summed else None,
        lineage=lineage,
        subset=json.loads(subset.read_text()) if subset.is_file() else {},
        motion=json.loads(motion.read_text()) if motion else {},
    )


def count_parameters(model_dir: Path) -> int:
    """Number of parameters of a checkpoint, including statistics of norm layers."""
    total = 0
    for path in model_dir.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    return total


def trace(config: RunConfig, run_dir: Path) -> Lineage:
    """Trace the weights of a run back through all earlier runs.

    Args:
        config: The options of the run.
        run_dir: Its directory.

    Raises:
        FileNotFoundError: The checkpoint that initialised the run does not exist.
        ConnectionError: The Hub, which has that checkpoint, does not respond.
        ValueError: The run, or one before it, was trained with known faults.
    """
    refuse_faults(wrapped_by(run_dir), run_dir)
    before, start = _before(config, run_dir)
    name, path = source_of(config.data)
    own = name is None or name not in DATASETS or DATASETS[name].licence == OWN_LICENCE
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


def refuse_faults(faults: Sequence[str], path: Path) -> None:
    """Raise a ValueError if weights were trained with known faults, see `depthseg.engine.wrapping`."""
    if faults:
        raise ValueError(
            f"The weights of {path} were trained with known faults, to measure what these cost ({', '.join(faults)}), "
            "or from weights that were. They are not published. Train without them: depthseg pretrain, then depthseg "
            "finetune."
        )


def _supervision(config: RunConfig) -> str:
    if not task_of(config).needs_labels:
        return "images"
    joint = config.task == "segmentation" and config.model.keep_depth and config.model.depth_weight > 0
    return JOINT if joint else config.pretext.supervision


def _before(config: RunConfig, run_dir: Path) -> tuple[Lineage, str]:
    """The lineage of the initialisation of a run, and its name in the stage."""
    start, revision = config.model.pretrained, config.model.revision
    stored = run_dir / "model" / "config.json"
    transfers = json.loads(stored.read_text()).get("weight_lineage") or [] if stored.is_file() else []
    if start is None:
        if not transfers:
            return Lineage((), ()), ""
        # The program that called `train` passed a model with weights.
        start, revision = transfers[-1]["source"], transfers[-1]["revision"]
        if revision is None:
            return Lineage((), ((LOCAL + start, None),)), LOCAL + start
    folder = Path(start)
    if not folder.is_dir():
        loaded = [transfer["revision"] for transfer in transfers if transfer["source"] == start]
        return published_lineage(start, loaded[-1] if loaded else revision), start
    # No id of the Hub has this prefix, so that a folder is never taken for a checkpoint of the same name.
    local = LOCAL + "/".join(folder.resolve().parts[-2:])
    if (folder / LINEAGE_FILE).is_file():
        return _read_lineage(folder / LINEAGE_FILE, local), local
    if (folder / REPORT_FILE).is_file():
        return Lineage((), ((json.loads((folder / REPORT_FILE).read_text())["kind"], None),)), local
    if (folder.parent / "config.yaml").is_file():
        before = trace(load_config(folder.parent / "config.yaml", is_record=True), folder.parent)
        return before, before.stages[-1].name
    return Lineage((), ((local, None),)), local


def published_lineage(repo_id: str, revision: str | None) -> Lineage:
    """The lineage of a checkpoint of the Hub, including the checkpoint itself."""
    try:
        path = hf_hub_download(repo_id, LINEAGE_FILE, revision=revision)
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"The Hub does not respond, so the licence and training data of {repo_id} cannot be determined. Try again "
            "when it is reachable."
        ) from error
    except (EntryNotFoundError, GatedRepoError):  # a checkpoint of another library
        return Lineage((), ((repo_id, None),))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise FileNotFoundError(
            f"The run was initialised from {repo_id}, which is neither a local folder nor a repository that this "
            "token can read, so the licence of its weights cannot be determined. Publish from the folder in which "
            "training was started, or restore the checkpoint."
        ) from error
    return _read_lineage(Path(path), repo_id)


def _read_lineage(path: Path, name: str = "") -> Lineage:
    """The lineage of a published checkpoint; with the name of the checkpoint, including itself."""
    values = json.loads(path.read_text())
    ancestors = [*values["ancestors"], *([(name, values["licence"])] if name else [])]
    stages = (
        Stage(**stage | {name: FORMER_WORDS.get(stage[name], stage[name]) for name in ("task", "supervision")})
        for stage in values["stages"]
    )
    return Lineage(tuple(stages), tuple(map(tuple, ancestors)))


def _selected(config: RunConfig, curve: list[dict[str, Any]]) -> dict[str, Any]:
    """The evaluation of the weights that a run keeps; of equal ones the later."""
    if config.run.select == "last":
        return curve[-1]
    score = task_of(config).scores[0]
    if score.name not in curve[-1]:
        score = WITHOUT_TRUTH
    best = score.better(line[score.name] for line in curve)
    return [line for line in curve if line[score.name] == best][-1]
