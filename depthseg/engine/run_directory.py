"""The directory of a run: who may write to it, what it held before, and how a run begins in it."""

from __future__ import annotations

import logging
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bad_steps import FOLDER as BAD_STEPS
from .checkpoint import FOLDER, find_checkpoint
from .config import changed_options, load_config
from .data_record import record_data, require_same_data
from .patience import agreed, wait_patiently
from .records import METRICS_FILE, RUN_RECORD, read_lines, write_json
from .run_fault import told_of_writing
from .run_lock import only_run
from .unreadable import UNREADABLE_FILE, SkippingDataset

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..data import SampleDataset
    from .options import RunConfig

logger = logging.getLogger(__name__)

RUN_ENTRIES = (
    *("config.yaml", RUN_RECORD, METRICS_FILE, "subset.json", "model", FOLDER, "report"),
    *("tensorboard", "wandb", BAD_STEPS, UNREADABLE_FILE),
)
"""What a run writes into its directory; nothing else there is ever touched."""

MODEL_REMAINS = (".model.partial", ".model.old")
"""What a run that is killed while it writes `model/` leaves."""

MAY_CHANGE = (
    *(f"run.{name}" for name in ("output_dir", "resume", "overwrite", "log_every", "checkpoint_every")),
    *("run.keep_last", "run.timeout", "optim.auto_batch_size", "optim.max_bad_steps"),
    *("data.on_error", "data.max_unreadable"),
    *("run.trackers", "run.report", "run.score_before", "run.cpu"),
    *("data.root", "data.video", "data.check", "data.num_workers"),
    *("data.cache", "data.cache_features", "data.cache_dir", "data.cache_limit"),
)
"""Options that may differ when a run is resumed: where nothing breaks, its numbers do not depend on them."""


def resume_point(config: RunConfig, run_dir: Path) -> Path | None:
    """Checkpoint to resume from; refuses a directory that holds a run unless the options say what to do with it."""
    found = [name for name in RUN_ENTRIES if (run_dir / name).exists()]
    if not found or config.run.overwrite:
        return None
    if not config.run.resume:
        raise FileExistsError(
            f"{run_dir} already holds a run ({', '.join(found)}). Set run.resume=true to resume it, "
            "run.overwrite=true to remove it, or another run.output_dir."
        )
    if (run_dir / "config.yaml").is_file():
        changes = changed_options(load_config(run_dir / "config.yaml", is_record=True), config, MAY_CHANGE)
        if changes:
            raise ValueError(
                f"The run in {run_dir} was started with other options, so it cannot be resumed with these: "
                f"{'; '.join(changes)}. Set them back, or take another run.output_dir."
            )
    checkpoint = find_checkpoint(run_dir / FOLDER)
    if checkpoint is None:
        _require_unfinished(config, run_dir)
        logger.warning(
            "%s holds a run that was interrupted before its first checkpoint; it starts from the first step.", run_dir
        )
    return checkpoint


def _require_unfinished(config: RunConfig, run_dir: Path) -> None:
    """Refuse to repeat a finished run whose checkpoints were removed: its weights would be replaced."""
    finished = config.schedule.steps in (line["step"] for line in read_lines(run_dir / METRICS_FILE))
    if finished and (run_dir / "model").is_dir() and not (run_dir / FOLDER).is_dir():
        raise ValueError(
            f"The run in {run_dir} is finished and its checkpoints were removed, so there is nothing to resume. Set "
            "run.overwrite=true to remove it and train from the first step, or take another run.output_dir."
        )


def start_directory(
    config: RunConfig,
    checkpoint: Path | None,
    accelerator: Accelerator,
    train_set: SampleDataset,
    data: dict[str, Any],
    held: ExitStack,
) -> None:
    """Take hold of the run directory and write down how the run begins; called by all processes together.

    Without a checkpoint the run begins, and what the directory held of a run goes. `data` is what `describe_data`
    found; `held` lets go of the directory when it is closed.

    Raises:
        FileExistsError: Another process trains in it.
        ValueError: The run began with other data.
        RunFault: It cannot be written to.
    """
    run_dir = Path(config.run.output_dir)
    # Nobody may still be looking at what the directory held before, or be reading data.
    wait_patiently(accelerator)

    def start() -> None:
        held.enter_context(only_run(run_dir))
        if checkpoint is None:
            _remove_run(run_dir)
            # Before the first checkpoint: a run without it is one whose checkpoints were removed when it had ended.
            (run_dir / FOLDER).mkdir()
        else:
            require_same_data(run_dir, data)
        for name in MODEL_REMAINS:  # the checkpoint knows the weights that were selected
            shutil.rmtree(run_dir / name, ignore_errors=True)
        config.save(run_dir / "config.yaml")
        record_data(run_dir, data)
        if config.data.subset_size:
            subset = {"size": config.data.subset_size, "seed": config.data.subset_seed, "names": train_set.names}
            write_json(run_dir / "subset.json", {"dataset": config.data.name, **subset})

    with told_of_writing("the run directory", run_dir, "Name another one with run.output_dir."):
        agreed(accelerator, start)
    if isinstance(train_set, SkippingDataset):
        train_set.keep_list(run_dir)


def _remove_run(run_dir: Path) -> None:
    for name in RUN_ENTRIES:
        path = run_dir / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
