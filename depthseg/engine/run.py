"""One training run, from its options to its run directory."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from ..data.doctor import examine_video
from ..data.transforms import TrainTransform
from .atomic import atomic_folder
from .batches import Collate, StreamDataset, micro_batches
from .before_after import record_scores_before, write_before_after
from .build import build_datasets, build_model, model_config, set_value_range, source_of
from .checkpoint import FOLDER, find_checkpoint, load_checkpoint, restore_selected
from .config import changed_options, load_config
from .decoded_cache import DecodedCache, decoded_cache
from .feature_cache import CachedProcessor, cached_stream, check_cacheable, open_cache
from .fingerprint import first_encoder_hash, record_encoder_hash
from .label_range import LabelRange
from .loop import Training, fit
from .lora import save_weights
from .motion import write_motion_report
from .optim import build_optimizer
from .options import RunConfig
from .panel import write_prediction_panel
from .patience import agreed, wait_patiently
from .predict import load_model
from .records import METRICS_FILE, RUN_RECORD, RunLog, read_lines, write_json
from .report import write_curves
from .run_losses import keep_losses, record_losses, set_losses
from .sampling import MicroBatches
from .scoring import Scorer
from .sharding import collect, copy_to_shard, shard_on_cpu, sharding_plugin
from .sound_data import require_sound_data
from .state import Progress
from .sync_batch_norm import synchronise_batch_norm
from .tasks import task_of

if TYPE_CHECKING:
    from torch import nn

    from ..data import Sample, SampleDataset

logger = logging.getLogger(__name__)

RUN_ENTRIES = (
    *("config.yaml", RUN_RECORD, METRICS_FILE, "subset.json", FOLDER, "model", "report"),
    *("tensorboard", "wandb"),
)
"""What a run writes into its directory; nothing else there is ever touched."""

MODEL_REMAINS = (".model.partial", ".model.old")
"""What a run that is killed while it writes `model/` leaves."""

MAY_CHANGE = (
    *(f"run.{name}" for name in ("output_dir", "resume", "overwrite", "log_every", "checkpoint_every")),
    *("run.trackers", "run.report", "run.score_before", "run.cpu"),
    *("data.root", "data.video", "data.check", "data.num_workers"),
    *("data.cache", "data.cache_features", "data.cache_dir", "data.cache_limit"),
)
"""Options that may differ when a run is resumed, because its numbers do not depend on them."""


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
        model: Model to train, in place of the one that `config.model` describes, of which only the options of the
            loss are read then; needs `processor`.
        processor: Image processor of `model`.

    Raises:
        FileExistsError: The output directory holds a run, and neither `run.resume` nor `run.overwrite` is set.
        ValueError: Options that do not go together, data that does not fit them, a frozen encoder that changed, or a
            run to resume none of whose checkpoints is undamaged.
        FloatingPointError: Loss or gradient were not finite in several steps in a row.
        Stopped: The run was asked to stop by SIGTERM, SIGUSR1 or Ctrl-C; a checkpoint was saved.
    """
    config.validate()
    with decoded_cache(config.data) as decoded:
        return _train(config, decoded, train_set, val_set, model, processor)


def _train(
    config: RunConfig,
    decoded: DecodedCache | None,
    train_set: SampleDataset | None,
    val_set: SampleDataset | None,
    model: nn.Module | None,
    processor: Any,
) -> RunResult:
    """As `train`; what is read from files goes through `decoded`."""
    task = task_of(config)
    run_dir = Path(config.run.output_dir)
    accelerator = make_accelerator(config)
    checkpoint = agreed(accelerator, lambda: _resume_point(config, run_dir))
    # Built before the directory is touched: a mistake in the options must not cost the run that is there.
    plan = MicroBatches(0, 1, config.optim.batch_size, config.optim.accumulation_steps, 0, accelerator.num_processes)
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
    objective = task.objective(config, model, train_set).train()
    scorer = Scorer(config, objective, processor, val_set, accelerator)
    if config.data.cache_features:
        check_cacheable(model.encoder, train_set)
    scorer.batch_of(first)  # what samples lack is found here, too
    _start_directory(config, run_dir, checkpoint, accelerator, train_set)
    # Convolutions are faster with the channels innermost, on CPUs and on tensor cores.
    objective = objective.to(accelerator.device, memory_format=torch.channels_last)
    if config.run.score_before:
        record_scores_before(run_dir / RUN_RECORD, accelerator, scorer, train_set, val_set)
    encoder_hash = first_encoder_hash(run_dir / RUN_RECORD, accelerator, model.encoder)
    record_losses(config, model, run_dir, accelerator)
    training = _assemble(config, run_dir, accelerator, objective, processor, scorer, checkpoint)
    plan = replace(
        plan, first_step=training.progress.step, last_step=config.schedule.steps, rank=accelerator.process_index
    )
    data = config.data
    stream = StreamDataset(train_set, build_transform(config, processor), config.run.seed, data.augmented_copies)
    training.names_of = partial(_names_of_step, stream, plan)
    collate = Collate(processor, task.batch(config), data.label_stride, LabelRange.of(model))
    gather, finish = collate.gather, collate.finish
    if data.cache_features:
        features = open_cache(data, model, processor, accelerator)
        (stream, gather), finish = cached_stream(features, stream, collate, scorer.show_images), None
        scorer.read_features(CachedProcessor(features))
    elif accelerator.device.type == "cuda":  # it changes pixels faster than the reading processes, to the same bytes
        stream.transform = stream.transform.deferred
    try:
        fit(training, micro_batches(stream, gather, plan, data.num_workers, accelerator.device, finish))
    finally:
        training.log.close()
    record_encoder_hash(run_dir / RUN_RECORD, accelerator, model.encoder, encoder_hash, config.model.freeze_encoder)
    _report(training, scorer, val_set)
    return RunResult(run_dir, run_dir / "model", training.progress.selected, accelerator.is_main_process)


def _agree_on_room(decoded: DecodedCache | None, accelerator: Accelerator, first: Sample, count: int) -> None:
    """Let no process keep decoded files where the first one finds that they do not fit."""

    def fits() -> bool:
        if decoded is not None:
            decoded.check_room(first, count)
        return decoded is not None and decoded.writes

    writes = agreed(accelerator, fits)
    if decoded is not None:
        decoded.writes = decoded.writes and writes


def _names_of_step(stream: StreamDataset, plan: MicroBatches, step: int) -> list[list[str]]:
    """Names of the images of each micro-batch of a step, counted from 1."""
    names, order = stream.samples.names, stream.stream
    return [[names[order.index(position)] for position in positions] for positions in plan.of_step(step - 1)]


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
        agreed(accelerator, lambda: require_sound_data(config.data))
    return build_datasets(config.data, train_set, val_set)


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
        ValueError: float16 on a CPU, or a launcher that asks for DeepSpeed or for FSDP of version 1.
        RuntimeError: The launcher started several processes that do not find each other.
    """
    # Without cpu=True the processes of a plain torchrun on a machine without GPU would each train alone.
    cpu = config.run.cpu or not torch.accelerator.is_available()
    if cpu and config.run.precision == "fp16":
        raise ValueError("run.precision=fp16 needs a GPU; on a CPU take bf16 or no.")
    # Squared gradients and ELU tails fall below the smallest normal float, where a CPU is many times slower.
    torch.set_flush_denormal(True)
    _refuse_deepspeed()
    sharding = sharding_plugin()
    accelerator = Accelerator(mixed_precision=config.run.precision, cpu=cpu, fsdp_plugin=sharding)
    shard_on_cpu(accelerator, sharding)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise RuntimeError(
            f"The launcher started {launched} processes (WORLD_SIZE), but Accelerate sees "
            f"{accelerator.num_processes}: they would train apart. Start them with torchrun, or unset WORLD_SIZE for "
            "a single process."
        )
    return accelerator


def _refuse_deepspeed() -> None:
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise ValueError(
            "The launcher asks for DeepSpeed, whose engine steps by itself and whose checkpoints are pickles; "
            "depthseg shares out gradients and optimiser state (ZeRO-2) by PyTorch's FSDP2 instead: "
            "`accelerate launch --config_file training/launch/zero2.yaml ...`."
        )


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
    config: RunConfig, run_dir: Path, checkpoint: Path | None, accelerator: Accelerator, train_set: SampleDataset
) -> None:
    # Nobody may still be looking at what the directory held before, or be reading data.
    wait_patiently(accelerator)
    if accelerator.is_main_process:
        if checkpoint is None:
            _remove_run(run_dir)
        for name in MODEL_REMAINS:  # the checkpoint knows the weights that were selected
            shutil.rmtree(run_dir / name, ignore_errors=True)
        run_dir.mkdir(parents=True, exist_ok=True)
        config.save(run_dir / "config.yaml")
        if config.data.subset_size:
            subset = {"size": config.data.subset_size, "seed": config.data.subset_seed, "names": train_set.names}
            write_json(run_dir / "subset.json", {"dataset": config.data.name, **subset})
    accelerator.wait_for_everyone()


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
        with atomic_folder(run_dir / "model") as partial:
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
        collect=collect_weights,
    )
