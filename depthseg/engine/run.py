"""One training run, from its options to its run directory."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, set_seed

from ..data.check import check_dataset, check_options
from ..data.doctor import examine_video
from ..data.transforms import TrainTransform
from .atomic import atomic_folder
from .bad_steps import BatchSource
from .batches import Collate, StreamDataset, micro_batches
from .before_after import record_scores_before, write_before_after
from .build import build_datasets, build_model, model_config, set_value_range, source_of
from .checkpoint import load_checkpoint, restore_selected
from .data_record import describe_data
from .decoded_cache import DecodedCache, decoded_cache
from .feature_cache import CachedProcessor, FeatureCache, cached_stream, check_cacheable
from .fingerprint import first_encoder_hash, record_encoder_hash
from .heartbeat import Heartbeat
from .label_range import LabelRange
from .loop import Training, fit
from .lora import save_weights
from .motion import write_motion_report
from .optim import build_optimizer
from .options import RunConfig
from .panel import write_prediction_panel
from .patience import agreed
from .predict import load_model
from .records import METRICS_FILE, RUN_RECORD, RunLog, read_run_record, write_json
from .report import write_curves
from .run_directory import resume_point, start_directory
from .run_fault import told_of_writing
from .run_losses import keep_losses, record_losses, set_losses
from .sampling import MicroBatches
from .scoring import Scorer
from .sharding import collect, copy_to_shard, shard_on_cpu, sharding_plugin
from .state import Progress
from .sync_batch_norm import synchronise_batch_norm
from .tasks import task_of
from .tensor_store import open_store
from .unreadable import UNREADABLE_FILE, SkippingDataset, read_unreadable
from .wrapping import Wrapping, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from ..data import Sample, SampleDataset
    from .options import DataOptions
    from .pending import Batch

logger = logging.getLogger(__name__)

KEPT = "model/ and the checkpoints are as they were. Mend that and resume with run.resume=true."
"""What is true when something else than a checkpoint cannot be written."""


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
    wrapping: Wrapping | None = None,
) -> RunResult:
    """Train a network and write its run directory; under a launcher every process calls this.

    Args:
        config: The options.
        train_set: Data set to train on, in place of the one that `config.data` names.
        val_set: Data set to evaluate on, likewise.
        model: Model to train, in place of the one that `config.model` describes, of which only the options of the
            loss are read then; needs `processor`.
        processor: Image processor of `model`.
        wrapping: What is put around the parts of the run; its weights cannot be published then.

    Raises:
        FileExistsError: The output directory holds a run, and neither `run.resume` nor `run.overwrite` is set.
        ValueError: Options that do not go together, data that does not fit them, a frozen encoder that changed, or a
            run to resume none of whose checkpoints is undamaged, or whose data are others.
        FloatingPointError: Loss or gradient were not finite in several steps in a row.
        RunFault: Disk, memory, a reading process or another process of the launch failed.
        Stopped: The run was asked to stop by SIGTERM, SIGUSR1 or Ctrl-C; a checkpoint was saved.
    """
    config.validate()
    # What the run holds of the system while it trains.
    with decoded_cache(config.data) as decoded, ExitStack() as held:
        run_dir = Path(config.run.output_dir)
        record = run_dir / RUN_RECORD
        accelerator = make_accelerator(config)
        checkpoint = agreed(accelerator, lambda: resume_point(config, run_dir))
        # Built before the directory is touched: a mistake in the options must not cost the run that is there.
        optim, rank, processes = config.optim, accelerator.process_index, accelerator.num_processes
        plan = MicroBatches(0, config.schedule.steps, optim.batch_size, optim.accumulation_steps, rank, processes)
        if model is None and config.model.pretrained is None:
            model_config(config.model)  # data may take long to open or to render
        train_set, val_set = _open_data(config, accelerator, checkpoint, train_set, val_set)
        first = train_set[0]
        _agree_on_room(decoded, accelerator, first, len(train_set) + len(val_set))
        set_seed(config.run.seed)
        if model is None:
            model, processor = build_model(config, train_set)
            set_value_range(processor, train_set, first)
            if checkpoint is not None:
                keep_losses(config, model, run_dir, checkpoint)
        else:
            set_losses(config, model, train_set)
        objective = task_of(config).objective(config, model, train_set).train()
        scorer = Scorer(config, objective, processor, val_set, accelerator)
        if config.data.cache_features:
            check_cacheable(model.encoder, train_set)
        scorer.batch_of(first)  # what samples lack is found here, too
        start_directory(config, checkpoint, accelerator, train_set, describe_data(train_set, val_set, first), held)
        # Convolutions are faster with the channels innermost, on CPUs and on tensor cores.
        objective = objective.to(accelerator.device, memory_format=torch.channels_last)
        if config.run.score_before:
            record_scores_before(record, accelerator, scorer, train_set, val_set)
        encoder_hash = first_encoder_hash(record, accelerator, model.encoder)
        record_losses(config, model, run_dir, accelerator)
        training = _assemble(config, run_dir, accelerator, objective, processor, scorer, checkpoint)
        plan = replace(plan, first_step=training.progress.step)
        transform = build_transform(config, processor)
        stream = StreamDataset(train_set, transform, config.run.seed, config.data.augmented_copies)
        stream, training = wrapped(wrapping, stream, training, processor)
        training.source = _batch_source(stream, plan, first)
        batches = _open_batches(config, accelerator, model, processor, scorer, stream, plan)
        held.callback(batches.close)
        training.heartbeat = held.enter_context(Heartbeat(accelerator, config.run.timeout))
        try:
            with told_of_writing("a record of the run", run_dir, KEPT):
                fit(training, batches)
        finally:
            training.log.close()
            _record_unreadable(run_dir, accelerator)
        record_encoder_hash(record, accelerator, model.encoder, encoder_hash, config.model.freeze_encoder)
        return _report(training, scorer, val_set)


def _open_batches(
    config: RunConfig,
    accelerator: Accelerator,
    model: nn.Module,
    processor: Any,
    scorer: Scorer,
    stream: StreamDataset,
    plan: MicroBatches,
) -> Iterator[Batch]:
    """The micro-batches of this process; computes what a cache of features lacks, all processes together."""
    data, device = config.data, accelerator.device
    collate = Collate(processor, task_of(config).batch(config), data.label_stride, LabelRange.of(model))
    gather, finish = collate.gather, collate.finish
    if data.cache_features:
        features = FeatureCache(open_store(data, "features"), model, processor, accelerator)
        (stream, gather), finish = cached_stream(features, stream, collate, scorer.show_images), None
        scorer.read_features(CachedProcessor(features))
    elif device.type == "cuda":  # it changes pixels faster than the reading processes, to the same bytes
        stream.transform = stream.transform.deferred
    return micro_batches(stream, gather, plan, data.num_workers, device, finish)


def _agree_on_room(decoded: DecodedCache | None, accelerator: Accelerator, first: Sample, count: int) -> None:
    """Let no process keep decoded files where the first one finds that they do not fit."""

    def fits() -> bool:
        if decoded is not None:
            decoded.check_room(first, count)
        return decoded is not None and decoded.writes

    writes = agreed(accelerator, fits)
    if decoded is not None:
        decoded.writes = decoded.writes and writes


def _record_unreadable(run_dir: Path, accelerator: Accelerator) -> None:
    """Write the training samples that could not be read into `run.json`."""
    found = read_unreadable(run_dir) if accelerator.is_main_process else []
    if not found:
        return
    path, where = run_dir / RUN_RECORD, RUN_RECORD
    try:
        write_json(path, read_run_record(path) | {"unreadable": found})
    except (OSError, ValueError):  # what ended the run matters more than its record
        where = UNREADABLE_FILE
    logger.warning("%d training samples could not be read; %s lists them.", len(found), where)


def _batch_source(stream: StreamDataset, plan: MicroBatches, first: Sample) -> BatchSource:
    """Where the batches of a run are from, in words."""
    samples, order = stream.samples, stream.stream

    def names_of(step: int) -> list[list[str]]:
        return [[str(samples.names[order.index(each)]) for each in positions] for positions in plan.of_step(step - 1)]

    aspect = samples.pixel_aspect(0) if hasattr(samples, "pixel_aspect") else 1.0
    return BatchSource(names_of, first.image.shape[:2], aspect)


def _report(training: Training, scorer: Scorer, val_set: SampleDataset) -> RunResult:
    """Write what the options ask to be shown of a finished run; called by all processes together."""
    config, accelerator = training.config, training.accelerator
    run_dir, scores = training.run_dir, training.progress.selected
    if accelerator.is_main_process and config.run.report:
        write_report(run_dir, config, scorer, val_set, accelerator.device)
        if config.run.score_before:
            write_before_after(run_dir, task_of(config).scores, scores)
    accelerator.wait_for_everyone()
    return RunResult(run_dir, run_dir / "model", scores, accelerator.is_main_process)


def _open_data(
    config: RunConfig,
    accelerator: Accelerator,
    checkpoint: Path | None,
    train_set: SampleDataset | None,
    val_set: SampleDataset | None,
) -> tuple[SampleDataset, SampleDataset]:
    """Say what is known of the data beforehand, check them if that is asked for and the run begins, and open them."""
    if train_set is None and accelerator.is_main_process:
        _log_video_report(config)
    if config.data.check and checkpoint is None and None in (train_set, val_set):
        agreed(accelerator, lambda: _require_sound_data(config.data))
    train_set, val_set = build_datasets(config.data, train_set, val_set)
    if config.data.on_error == "skip":
        train_set = SkippingDataset(train_set, config.data.max_unreadable)
    return train_set, val_set


def _require_sound_data(data: DataOptions) -> None:
    """Read every file of the data of a run, and log what is worth knowing; data sets that are rendered are sound.

    Raises:
        ValueError: Something is wrong; one sentence for each thing.
    """
    name, root = source_of(data)
    known = check_options(name) if name is not None else None
    if known is None or root is None:
        return
    both = [{**data.options, **own} for own in (data.train_options, data.val_options)]
    both = [{key: value for key, value in options.items() if key in known} for options in both]
    for options in both[:1] if both[0] == both[1] else both:
        report = check_dataset(name, root, **options)
        if report.problems:
            lines = [f"{root} was checked before training, and something is wrong with it:"]
            lines += [f"- {problem}" for problem in report.problems]
            lines.append("Mend it, or set data.check=false to train on it as it is.")
            raise ValueError("\n".join(lines))
        logger.info("%s", report)


def _log_video_report(config: RunConfig) -> None:
    """Say how the camera of a video moves before a network is to learn from it."""
    name, root = source_of(config.data)
    if name != "video":
        return
    options = {**config.data.options, **config.data.train_options}
    chosen = {key: options[key] for key in ("stride", "calibration", "depth", "clips") if key in options}
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
        ValueError: float16 on a CPU, or a launcher that asks for DeepSpeed, for FSDP of version 1, or for shares of
            weights that `run.pure_bf16` would have to be whole.
        RuntimeError: The launcher started several processes that do not find each other.
    """
    # Without cpu=True the processes of a plain torchrun on a machine without GPU would each train alone.
    cpu = config.run.cpu or not torch.accelerator.is_available()
    if cpu and config.run.precision == "fp16":
        raise ValueError("run.precision=fp16 needs a GPU; on a CPU take bf16 or no.")
    # Squared gradients and ELU tails fall below the smallest normal float, where a CPU is many times slower.
    torch.set_flush_denormal(True)
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise ValueError(
            "The launcher asks for DeepSpeed, whose engine steps by itself and whose checkpoints are pickles; "
            "depthseg shares out gradients and optimiser state (ZeRO-2) by PyTorch's FSDP2 instead: "
            "`accelerate launch --config_file training/launch/zero2.yaml ...`."
        )
    sharding = sharding_plugin()
    if sharding is not None and config.run.pure_bf16:
        raise ValueError(
            "run.pure_bf16=true makes a bf16 copy of the whole encoder, and the launcher asks for weights that are "
            "shared out over the processes (FSDP): set run.pure_bf16=false, and run.precision=bf16 stays; or launch "
            "with training/launch/ddp.yaml, where each process has the whole network."
        )
    seconds = config.run.timeout
    handlers = [] if seconds is None else [InitProcessGroupKwargs(timeout=timedelta(seconds=seconds))]
    accelerator = Accelerator(
        mixed_precision=config.run.precision, cpu=cpu, fsdp_plugin=sharding, kwargs_handlers=handlers
    )
    shard_on_cpu(accelerator, sharding)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise RuntimeError(
            f"The launcher started {launched} processes (WORLD_SIZE), but Accelerate sees "
            f"{accelerator.num_processes}: they would train apart. Start them with torchrun, or unset WORLD_SIZE for "
            "a single process."
        )
    return accelerator


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
    trained = copy_to_shard(objective) if accelerator.is_fsdp2 else objective
    optimizer = build_optimizer(trained, trained.model.encoder, config.optim, sharded=trained is not objective)
    progress = Progress()
    prepared, optimizer = accelerator.prepare(trained, optimizer)

    def collect_weights() -> None:
        if trained is not objective:
            collect(trained, objective)

    if checkpoint is not None:
        load_checkpoint(checkpoint, accelerator, trained, optimizer, progress)
        collect_weights()
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
        log=RunLog(run_dir, accelerator, config, progress),
        score=scorer,
        selection=scorer.selection,
        show=scorer.show,
        save_model=save_model,
        collect=collect_weights,
    )
