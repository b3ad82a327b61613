"""One training run, from its options to its run directory."""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, set_seed

from ..data.doctor import examine_video
from ..data.transforms import TrainTransform
from .atomic import atomic_folder
from .bad_steps import FOLDER as BAD_STEPS
from .bad_steps import BatchSource
from .batches import Collate, StreamDataset, micro_batches
from .before_after import record_scores_before, write_before_after
from .build import build_datasets, build_model, model_config, set_value_range, source_of
from .checkpoint import FOLDER, find_checkpoint, load_checkpoint, restore_selected
from .config import changed_options, load_config
from .data_record import describe_data, record_data, require_same_data
from .feature_cache import CachedProcessor, cached_stream, check_cacheable, open_cache
from .fingerprint import first_encoder_hash, record_encoder_hash
from .heartbeat import Heartbeat
from .loop import Training, fit
from .lora import save_weights
from .motion import write_motion_report
from .optim import build_optimizer
from .options import RunConfig
from .panel import write_prediction_panel
from .predict import load_model
from .records import METRICS_FILE, RUN_RECORD, RunLog, read_lines, read_run_record, write_json
from .report import write_curves
from .run_fault import RunFault, told_of_writing
from .run_lock import only_run
from .sampling import MicroBatches, stream_of
from .scoring import Scorer
from .sound_data import require_sound_data
from .state import Progress
from .sync_batch_norm import synchronise_batch_norm
from .tasks import task_of
from .unreadable import UNREADABLE_FILE, SkippingDataset, read_unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from ..data import Sample, SampleDataset

logger = logging.getLogger(__name__)

Found = TypeVar("Found")

RUN_ENTRIES = (
    *("config.yaml", RUN_RECORD, METRICS_FILE, "subset.json", FOLDER, "model", "report", "tensorboard"),
    *(BAD_STEPS, UNREADABLE_FILE),
)
"""What a run writes into its directory; nothing else there is ever touched."""

KEPT = "model/ and the checkpoints are as they were. Mend that and resume with run.resume=true."
"""What is true when something else than a checkpoint cannot be written."""

MODEL_REMAINS = (".model.partial", ".model.old")
"""What a run that is killed while it writes `model/` leaves."""

MAY_CHANGE = (
    *(f"run.{name}" for name in ("output_dir", "resume", "overwrite", "log_every", "checkpoint_every")),
    *("run.keep_last", "run.timeout", "optim.auto_batch_size", "optim.max_bad_steps"),
    *("data.on_error", "data.max_unreadable"),
    *("run.tensorboard", "run.report", "run.score_before", "run.cpu"),
    *("data.root", "data.video", "data.check", "data.num_workers"),
    *("data.cache_features", "data.cache_dir", "data.cache_limit"),
)
"""Options that may differ when a run is resumed: where nothing breaks, its numbers do not depend on them."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves.

    Attributes:
        run_dir: The run directory.
        model_dir: The selected weights with config and processor, ready for `from_pretrained`.
        scores: The line of metrics.jsonl that belongs to these weights: `step`, `train_loss`, `lr` and the scores.
        is_main_process: Whether this is the process that may tell others about the run.
    """

    run_dir: Path
    model_dir: Path
    scores: dict[str, Any]
    is_main_process: bool = True


def train(
    config: RunConfig,
    train_set: SampleDataset | None = None,
    val_set: SampleDataset | None = None,
    model: nn.Module | None = None,
    processor: Any = None,
) -> RunResult:
    """Train a network and write its run directory; under a launcher every process calls this.

    Args:
        config: The options.
        train_set: Data set to train on, in place of the one that `config.data` names.
        val_set: Data set to evaluate on, likewise.
        model: Model to train, in place of the one that `config.model` describes; needs `processor`.
        processor: Image processor of `model`.

    Raises:
        FileExistsError: The output directory holds a run, and neither `run.resume` nor `run.overwrite` is set.
        ValueError: Options that do not go together, data that does not fit them, a frozen encoder that changed, or a
            run to resume none of whose checkpoints is undamaged, or whose data are others.
        FloatingPointError: The loss stopped being a finite number.
        RunFault: Disk, memory, a reading process or another process of the launch failed.
        SystemExit: The run was asked to stop by SIGTERM or Ctrl-C; a checkpoint was saved.
    """
    with ExitStack() as held:
        return _train(config, train_set, val_set, model, processor, held)


def _train(
    config: RunConfig,
    train_set: SampleDataset | None,
    val_set: SampleDataset | None,
    model: nn.Module | None,
    processor: Any,
    held: ExitStack,
) -> RunResult:
    config.validate()
    task = task_of(config)
    run_dir = Path(config.run.output_dir)
    accelerator = make_accelerator(config)
    checkpoint = _agreed(accelerator, lambda: _resume_point(config, run_dir))
    # Built before the directory is touched: a mistake in the options must not cost the run that is there.
    plan = MicroBatches(0, 1, config.optim.batch_size, config.optim.accumulation_steps, 0, accelerator.num_processes)
    if model is None and config.model.pretrained is None:
        model_config(config.model)  # data may take long to open or to render
    train_set, val_set = _open_data(config, accelerator, checkpoint, train_set, val_set)
    first = train_set[0]
    set_seed(config.run.seed)
    if model is None:
        model, processor = build_model(config, train_set)
        set_value_range(processor, train_set, first)
    objective = task.objective(config, model, train_set).train()
    scorer = Scorer(config, objective, processor, val_set, accelerator)
    if config.data.cache_features:
        check_cacheable(model.encoder, train_set)
    scorer.batch_of(first)  # what samples lack is found here, too
    _start_directory(config, checkpoint, accelerator, train_set, describe_data(train_set, val_set, first), held)
    # Convolutions are faster with the channels innermost, on CPUs and on tensor cores.
    objective = objective.to(accelerator.device, memory_format=torch.channels_last)
    if config.run.score_before:
        record_scores_before(run_dir / RUN_RECORD, accelerator, scorer, train_set, val_set)
    encoder_hash = first_encoder_hash(run_dir / RUN_RECORD, accelerator, model.encoder)
    _record_class_weights(config, run_dir, accelerator, model)
    training = _assemble(config, run_dir, accelerator, objective, processor, scorer, checkpoint)
    plan = replace(
        plan, first_step=training.progress.step, last_step=config.schedule.steps, rank=accelerator.process_index
    )
    training.source = _batch_source(config, train_set, plan, first)
    data = config.data
    stream = StreamDataset(train_set, build_transform(config, processor), config.run.seed, data.augmented_copies)
    collate = Collate(processor, task.batch(config), data.label_stride)
    if data.cache_features:
        features = open_cache(data, model, processor, accelerator)
        stream, collate = cached_stream(features, stream, collate)
        scorer.read_features(CachedProcessor(features, processor))
    batches = micro_batches(stream, collate, plan, data.num_workers, accelerator.device)
    held.callback(batches.close)
    training.heartbeat = held.enter_context(Heartbeat(accelerator, config.run.timeout))
    try:
        with told_of_writing("a record of the run", run_dir, KEPT):
            fit(training, batches)
    finally:
        training.log.close()
        _record_unreadable(run_dir, accelerator)
    record_encoder_hash(run_dir / RUN_RECORD, accelerator, model.encoder, encoder_hash, config.model.freeze_encoder)
    _report(training, scorer, val_set)
    return RunResult(run_dir, run_dir / "model", training.progress.selected, accelerator.is_main_process)


def _record_class_weights(config: RunConfig, run_dir: Path, accelerator: Accelerator, model: nn.Module) -> None:
    """Write the class weights that the options ask for into `run.json`."""
    if accelerator.is_main_process and config.model.class_weights is not None:
        record = read_run_record(run_dir / RUN_RECORD)
        write_json(run_dir / RUN_RECORD, record | {"class_weights": model.config.class_weights})


def _record_unreadable(run_dir: Path, accelerator: Accelerator) -> None:
    """Write the training samples that could not be read into `run.json`."""
    found = read_unreadable(run_dir) if accelerator.is_main_process else []
    if found:
        logger.warning("%d training samples could not be read; run.json lists them.", len(found))
        write_json(run_dir / RUN_RECORD, read_run_record(run_dir / RUN_RECORD) | {"unreadable": found})


def _batch_source(config: RunConfig, train_set: SampleDataset, plan: MicroBatches, first: Sample) -> BatchSource:
    """Where the batches of a run are from, in words."""
    order = stream_of(train_set, config.run.seed)

    def names(step: int) -> list[list[str]]:
        positions = replace(plan, first_step=step, last_step=step + 1)
        return [[str(train_set.names[order.index(position)]) for position in each] for each in positions]

    aspect = train_set.pixel_aspect(0) if hasattr(train_set, "pixel_aspect") else 1.0
    return BatchSource(names, first.image.shape[:2], aspect)


def _report(training: Training, scorer: Scorer, val_set: SampleDataset) -> None:
    """Write what the options ask to be shown of a finished run; called by all processes together."""
    config, accelerator = training.config, training.accelerator
    if accelerator.is_main_process and config.run.report:
        write_report(training.run_dir, config, scorer, val_set, accelerator.device)
        if config.run.score_before:
            write_before_after(training.run_dir, task_of(config).scores, training.progress.selected)
    accelerator.wait_for_everyone()


def _open_data(
    config: RunConfig,
    accelerator: Accelerator,
    checkpoint: Path | None,
    train_set: SampleDataset | None,
    val_set: SampleDataset | None,
) -> tuple[SampleDataset, SampleDataset]:
    """Say what is known of the data beforehand, check them if that is asked for and the run begins, and open them."""
    if train_set is None and accelerator.is_main_process:
        log_video_report(config)
    if config.data.check and checkpoint is None and None in (train_set, val_set):
        _agreed(accelerator, lambda: require_sound_data(config.data))
    train_set, val_set = build_datasets(config.data, train_set, val_set)
    if config.data.on_error == "skip":
        train_set = SkippingDataset(train_set, config.data.max_unreadable)
    return train_set, val_set


def log_video_report(config: RunConfig) -> None:
    """Say how the camera of a video moves before a network is to learn from it."""
    name, root = source_of(config.data)
    if name != "video":
        return
    options = {**config.data.options, **config.data.train_options}
    chosen = {key: options[key] for key in ("stride", "calibration", "depth") if key in options}
    try:
        logger.info("%s", examine_video(root, **chosen))
    except ImportError as error:
        logger.warning("The video was not examined: %s", error)


def build_transform(config: RunConfig, processor: Any) -> TrainTransform:
    """What happens to a training sample before the processor of the model normalises it."""
    data = config.data
    return TrainTransform(
        data.size,
        data.hflip,
        data.crop_scale,
        data.colour_jitter,
        random_crop=data.random_crop,
        scale_range=data.scale_range,
        shortest_edges=data.shortest_edges,
        longest_edge=data.longest_edge,
        max_class_share=data.max_class_share,
        to_rgb=getattr(processor, "to_rgb", None),
        **task_of(config).transform_options(config),
    )


def write_report(
    run_dir: Path, config: RunConfig, scorer: Scorer, val_set: SampleDataset, device: torch.device
) -> None:
    """Write the images of a run: its curves, predictions of the weights in `model/`, and the camera's motion.

    The motion is that of the networks after the last step, because pose networks are not kept in `model/`.
    """
    folder = run_dir / "report"
    write_curves(folder / "curves.png", run_dir / METRICS_FILE)
    if task_of(config).predicts_maps:
        model, processor = load_model(run_dir / "model", device=str(device))
        write_prediction_panel(folder / "panel.png", model, processor, val_set)
    if scorer.sees_motion:
        write_motion_report(folder, scorer.objective, val_set, scorer.batch_of, device)


def make_accelerator(config: RunConfig) -> Accelerator:
    """Set up device, precision and processes.

    Raises:
        ValueError: float16 on a CPU.
        RuntimeError: The launcher started several processes that do not find each other.
    """
    # Without cpu=True the processes of a plain torchrun on a machine without GPU would each train alone.
    cpu = config.run.cpu or not torch.accelerator.is_available()
    if cpu and config.run.precision == "fp16":
        raise ValueError("run.precision=fp16 needs a GPU; on a CPU take bf16 or no.")
    # Squared gradients and ELU tails fall below the smallest normal float, where a CPU is many times slower.
    torch.set_flush_denormal(True)
    seconds = config.run.timeout
    handlers = [] if seconds is None else [InitProcessGroupKwargs(timeout=timedelta(seconds=seconds))]
    accelerator = Accelerator(mixed_precision=config.run.precision, cpu=cpu, kwargs_handlers=handlers)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise RuntimeError(
            f"The launcher started {launched} processes (WORLD_SIZE), but Accelerate sees "
            f"{accelerator.num_processes}: they would train apart. Start them with torchrun, or unset WORLD_SIZE for "
            "a single process."
        )
    return accelerator


def _agreed(accelerator: Accelerator, find: Callable[[], Found]) -> Found:
    """What the first process finds, or the error that it raises, is what all processes return or raise."""
    found, error = None, None
    if accelerator.is_main_process:
        try:
            found = find()
        except (ValueError, OSError, RunFault) as problem:
            error = problem
    found, error = broadcast_object_list([found, error])
    if error is not None:
        raise error
    return found


def _resume_point(config: RunConfig, run_dir: Path) -> Path | None:
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


def _start_directory(
    config: RunConfig,
    checkpoint: Path | None,
    accelerator: Accelerator,
    train_set: SampleDataset,
    data: dict[str, Any],
    held: ExitStack,
) -> None:
    """Take hold of the run directory and write down how the run begins; called by all processes together."""
    run_dir = Path(config.run.output_dir)
    accelerator.wait_for_everyone()  # nobody may still be looking at what the directory held before

    def start() -> None:
        held.enter_context(only_run(run_dir))
        if checkpoint is None:
            _remove_run(run_dir)
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
        _agreed(accelerator, start)
    if isinstance(train_set, SkippingDataset):
        train_set.keep_list(run_dir)


def _remove_run(run_dir: Path) -> None:
    for name in RUN_ENTRIES:
        path = run_dir / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _assemble(
    config: RunConfig,
    run_dir: Path,
    accelerator: Accelerator,
    objective: nn.Module,
    processor: Any,
    scorer: Scorer,
    checkpoint: Path | None,
) -> Training:
    """Objective, optimiser and progress on their device, as they were at the checkpoint."""
    model = objective.model
    if accelerator.num_processes > 1:
        synchronise_batch_norm(objective)
    optimizer = build_optimizer(objective, model.encoder, config.optim)
    progress = Progress()
    prepared, optimizer = accelerator.prepare(objective, optimizer)
    if checkpoint is not None:
        load_checkpoint(checkpoint, accelerator, objective, optimizer, progress)
    if accelerator.is_main_process:
        state = f"resumed after step {progress.step}" if checkpoint else "started"
        logger.info("%s: %s on %d x %s", run_dir, state, accelerator.num_processes, accelerator.device.type)

    def save_model() -> None:
        """Put model and processor in the place of the ones before, whole or not at all."""
        with (
            told_of_writing(f"the weights of step {progress.step}", run_dir, KEPT),
            atomic_folder(run_dir / "model") as partial,
        ):
            save_weights(model, partial, config.model)
            processor.save_pretrained(partial)

    if checkpoint is not None and accelerator.is_main_process:
        restore_selected(checkpoint, run_dir, save_model)
    return Training(
        config=config,
        run_dir=run_dir,
        accelerator=accelerator,
        objective=prepared,
        count_valid=objective.count_valid,
        optimizer=optimizer,
        progress=progress,
        log=RunLog(run_dir, accelerator, config, progress.step, progress.seconds),
        score=scorer,
        selection=scorer.selection,
        show=scorer.show,
        save_model=save_model,
    )
