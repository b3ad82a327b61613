"""The folder that is published with a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from huggingface_hub import eval_result_entries_to_yaml

from ..engine.atomic import atomic_folder
from ..engine.config import compose_config
from ..engine.fingerprint import hashes_of
from ..engine.motion import MOTION_FILE
from ..engine.records import METRICS_FILE, RUN_RECORD, write_json
from ..engine.report import write_curves
from ..reading import literal
from .card import Card
from .licences import Licence, Source, check_licence, parse_licence
from .record import LINEAGE_FILE, Lineage, RunRecord, read_run
from .verify import (
    can_evaluate,
    check_loads_elsewhere,
    compare_scores,
    evaluate_checkpoint,
    model_of,
    write_evaluation,
)

if TYPE_CHECKING:
    from ..engine.options import RunConfig
    from .facts import Facts
    from .forms import Form

MANIFEST = "training/manifest.json"
"""SHA-256 of every other file of the publication."""

DTYPES = ("float32", "bfloat16", "float16")

NOT_PUBLISHED = ("*.pt", "*.bin", "__pycache__", ".*")


def prepare(
    run_dir: str | Path, repo_id: str, facts: Facts, folder: str | Path, overrides: Sequence[str] = ()
) -> RunRecord:
    """Write all files of a publication to a folder, and verify them.

    Args:
        run_dir: Directory of a finished run.
        repo_id: Its repository on the Hub; the snippet of its card loads the model from there.
        facts: Facts stated by its author.
        folder: The folder; the result of an earlier call is replaced.
        overrides: Options that differ on this machine when the weights are evaluated again, such as
            `data.root=/data/camvid`.

    Returns:
        The run.

    Raises:
        FileNotFoundError: No finished run, or its data are not at the path of its options.
        FileExistsError: The folder contains other files.
        ValueError: An unknown dtype, no licence or one that the licence of data or weights forbids, scores that differ
            from those of the record, or weights that do not load in a process without depthseg.
    """
    record = read_run(run_dir)
    licence, sources = checked_licence(record, facts)
    check_free(Path(folder))
    if facts.dtype and facts.dtype not in DTYPES:
        raise ValueError(
            f"dtype is {facts.dtype!r}; choose one of {', '.join(DTYPES)}, or leave it empty to keep the dtype."
        )
    if (facts.dtype or facts.test) and not can_evaluate(record):
        raise ValueError(
            f"The evaluation of {run_dir} cannot be repeated, because its images have no ground-truth depth; remove "
            "test and dtype from the facts."
        )
    check_loads_elsewhere(record.model_dir)
    here, evaluation = literal(record.config.to_dict()), None
    if can_evaluate(record):
        alignment = record.scores.get("alignment") or (None if record.lineage.knows_scale else "median")
        config = compose_config([("the run", here)], overrides)
        evaluation = evaluate_checkpoint(config, record.model_dir, alignment)
        compare_scores(evaluation.scores, record.scores, record.model_dir)
    with atomic_folder(Path(folder)) as partial:
        shutil.copytree(record.model_dir, partial, ignore=shutil.ignore_patterns(*NOT_PUBLISHED))
        if facts.dtype:
            model_of(record.model_dir).to(getattr(torch, facts.dtype)).save_pretrained(partial)
            check_loads_elsewhere(partial)
        if evaluation is not None:
            if facts.dtype or facts.test:
                # The record is verified; the card reports the published weights on the stated images.
                tested = compose_config([("the run", here)], [*overrides, *facts.test])
                evaluation = evaluate_checkpoint(tested, partial, alignment)
            write_evaluation(partial / "evaluation", evaluation)
        _write_training(partial, record, licence, sources)
        card = Card(repo_id, record, evaluation, facts, licence, sources)
        if entries := card.eval_entries():
            path = partial / ".eval_results" / f"{card.data}.yaml"
            path.parent.mkdir()
            path.write_text(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False), encoding="utf-8")
        (partial / "README.md").write_text(card.render(), encoding="utf-8")
        write_json(partial / MANIFEST, hashes_of(partial))
    return record


def checked_licence(weights: RunRecord | Form, facts: Facts, note: str = "") -> tuple[Licence, list[Source]]:
    """The licence that facts state for weights, and the data and other weights that they come from.

    Args:
        weights: A run, or weights without one.
        facts: Facts stated by their author.
        note: Added to the error.

    Raises:
        ValueError: Licences are missing, or that of data or weights forbids the stated one.
    """
    stated = {name: parse_licence(text) for name, text in facts.licences.items()}
    sources = weights.lineage.sources(stated)
    licence = parse_licence(facts.licence) if facts.licence else None
    if problems := check_licence(licence, sources):
        raise ValueError(" ".join([*problems, note]).strip())
    return licence, sources


def check_free(folder: Path) -> None:
    """Refuse to replace anything but the result of an earlier call."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise FileExistsError(
            f"{folder} contains other files; give a new folder, or one that this command has written before."
        )


def _write_training(folder: Path, record: RunRecord, licence: Licence, sources: Sequence[Source]) -> None:
    training = folder / "training"
    training.mkdir()
    without_paths(record.config).save(training / "config.yaml")
    for name in (METRICS_FILE, RUN_RECORD, "subset.json"):
        if (record.run_dir / name).is_file():
            shutil.copyfile(record.run_dir / name, training / name)
    if record.motion:
        write_json(training / MOTION_FILE, record.motion)
    write_curves(training / "curves.png", record.run_dir / METRICS_FILE)
    write_lineage(folder, record.lineage, licence, sources, record.parameters)


def write_lineage(
    folder: Path, lineage: Lineage, licence: Licence, sources: Sequence[Source], parameters: int
) -> None:
    """Write where the weights of a publication come from, with the licences of data and of other weights."""
    known = {(source.kind, source.name): source.licence.text for source in sources if source.licence}
    stages = [asdict(stage) | {"licence": known["data", lineage.data_name(stage)]} for stage in lineage.stages]
    ancestors = [[name, own or known["weights", name]] for name, own in lineage.ancestors]
    values = {"licence": licence.text, "stages": stages, "ancestors": ancestors}
    write_json(folder / LINEAGE_FILE, values | {"parameters": parameters})


def without_paths(config: RunConfig) -> RunConfig:
    """The options of a run without the folders of the machine that it ran on: only the last name of a path is kept."""
    data, model, run = config.data, config.model, config.run
    options = {name: _without_paths(getattr(data, name)) for name in ("options", "train_options", "val_options")}
    # All checkpoints are called `model`; the name of their run distinguishes them.
    start = model.pretrained and _shortened(model.pretrained, 2)
    return replace(
        config,
        data=replace(data, root=_without_paths(data.root), video=_without_paths(data.video), **options),
        model=replace(model, pretrained=start),
        run=replace(run, output_dir=_without_paths(run.output_dir)),
    )


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_paths(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_paths(inner) for inner in value]
    return _shortened(value, 1) if isinstance(value, str) else value


def _shortened(text: str, names: int) -> str:
    """The last names of a path outside the folder of the run; any other text unchanged."""
    path = Path(text)
    return "/".join(path.parts[-names:]) if path.is_absolute() or text.startswith(("~", "..")) else text
