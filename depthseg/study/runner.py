"""Running a study: a cell with a record is never run again, so a study can be interrupted and resumed at any time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..engine.atomic import atomic_path
from ..engine.loop import StopRequest
from ..engine.records import write_json
from ..reading import write_yaml
from .cells import read_record, record_path, repeat_pretraining, run_cell, weights_path
from .matrix import Cell, main_cells, pretraining_cells, rate_cells, shard_of
from .options import StudyOptions
from .rates import select_rate

logger = logging.getLogger(__name__)

STUDY_FILE = "study.yaml"
PLAN_FILE = "plan.json"


def run_study(study: StudyOptions, out: Path, shard: tuple[int, int] = (1, 1)) -> None:
    """Run all cells of a shard that have no record yet.

    Several shards can run in one directory at the same time. If the directory contains records but no weights, such
    as in another checkout, a pre-training is repeated when a fine-tuning without a record requires its weights.

    Args:
        study: The study.
        out: Its output directory.
        shard: Number of this shard, from 1, and number of shards.

    Raises:
        SystemExit: The study was stopped by SIGTERM or Ctrl-C; the finished cells are saved.
        ValueError: No such shard.
    """
    mine = shard_of(study, *shard)
    save_study(study, out)
    cells: dict[str, Cell] = {}
    with StopRequest() as stop:
        for cell in cells_in_order(study, out):
            cells[cell.key] = cell
            if (cell.labels["architecture"], cell.labels["arm"]) not in mine:
                continue
            if not record_path(out, cell.key).is_file():
                _bring_weights(cells, cell, out)
                logger.info("cell %s: %s", cell.key, describe(cell))
                run_cell(study, cell, out)
            if stop.received:
                # The signal came after training, so no run handled it.
                raise SystemExit(f"Stopped after cell {cell.key}, which is finished; the same command resumes.")
    write_json(out / PLAN_FILE, {"keys": list(cells)})


def _bring_weights(cells: Mapping[str, Cell], cell: Cell, out: Path) -> None:
    """Repeat the pre-trainings that a cell depends on and whose weights are missing."""
    if cell.parent is None or weights_path(out, cell.parent).is_dir():
        return
    parent = cells[cell.parent]
    _bring_weights(cells, parent, out)
    logger.info("cell %s: repeated because its weights are missing: %s", parent.key, describe(parent))
    repeat_pretraining(parent, out)


def save_study(study: StudyOptions, out: Path) -> None:
    """Save the options. Cells of an earlier version of the study are kept but not used."""
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / STUDY_FILE) as temporary:
        write_yaml(temporary, study.to_dict())


def cells_in_order(study: StudyOptions, out: Path) -> Iterator[Cell]:
    """Every cell, after those it depends on, by pre-training seed: an interrupted study is a smaller study.

    Learning rates are chosen when the runs of their selection are finished; until then the fixed rate is used.
    """
    pretraining = pretraining_cells(study)
    pretrained = keys_of(pretraining)
    choosing = rate_cells(study, pretrained)
    for seed in range(study.seeds.pretrain):
        yield from (cell for cell in pretraining if cell.labels["pretrain_seed"] == seed)
        if seed == 0:
            yield from choosing
            main = main_cells(study, pretrained, chosen_rates(choosing, out))
        yield from (cell for cell in main if cell.labels["pretrain_seed"] == seed)


def keys_of(cells: list[Cell]) -> dict[tuple[str, str, int], str]:
    """Architecture, arm and seed -> key, of pre-trainings."""
    return {(c.labels["architecture"], c.labels["arm"], c.labels["pretrain_seed"]): c.key for c in cells}


def chosen_rates(cells: Iterable[Cell], out: Path) -> dict[tuple[str, str, str], float]:
    """The best rate of each architecture, arm and mode whose runs are all finished.

    Args:
        cells: The runs of the learning-rate selection.
        out: Output directory of the study.
    """
    scores: dict[tuple[str, str, str], dict[float, list[float]]] = {}
    unfinished = set()
    for cell in cells:
        place = cell.labels["architecture"], cell.labels["arm"], cell.labels["mode"]
        record = read_record(out, cell.key)
        if record is None:
            unfinished.add(place)
            continue
        scores.setdefault(place, {}).setdefault(cell.labels["lr"], []).append(record["scores"]["mean_iou"])
    return {place: select_rate(table).rate for place, table in scores.items() if place not in unfinished}


def describe(cell: Cell) -> str:
    """A cell in words, for the log."""
    labels = ", ".join(f"{name} {value}" for name, value in cell.labels.items())
    return f"{cell.kind}, {labels}, {cell.steps} steps"
