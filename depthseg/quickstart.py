"""The whole path on the procedural world, in minutes on a CPU: the first thing a new user runs.

A depth network is trained on rendered frames; then a segmenter is trained on eight labelled frames, three times from
random weights and three times from the depth network, and both are evaluated on unseen frames.
"""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from .data import Sample, SampleDataset
from .data.subsets import few_shot_subset
from .data.synthetic import SyntheticWorld
from .engine.command import show_progress
from .engine.options import DataOptions, ModelOptions, OptimOptions, RunConfig, RunOptions, ScheduleOptions
from .engine.panel import write_prediction_panel
from .engine.predict import load_model, predict_maps
from .engine.records import write_json
from .engine.run import RunResult, train
from .metrics.baselines import (
    ConstantDepth,
    MajorityClass,
    PositionPrior,
    score_depth_baseline,
    score_segmentation_baseline,
)

logger = logging.getLogger(__name__)

SIZE = (64, 192)
ENCODER = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.5}
# 16 channels in the last map: 8 that have learnt depth leave a second task little room (README, Numbers).
HEAD = {"decoder_channels": [16, 16, 32, 64, 128], "num_scales": 1}
TRAIN_FRAMES = 600
TEST_FRAMES = 100
LABELLED_FRAMES = 8
SEEDS = (0, 1, 2)
PRETRAIN_STEPS = 380
FINETUNE_STEPS = 80
# The better one of 1e-3 and 3e-3 for both initialisations.
FINETUNE_LR = 3e-3
BATCH_SIZE = 8
# Rounding moves a logit by about 1e-6 of its size. Fewer pixels than one in a thousand have two best classes so nearly
# level that this decides between them; other weights or another image processor change far more.
LEVEL_PIXELS = 1e-3
# Two runs of one thread each get more done on two cores than one run of two threads.
WORKERS = 2


@dataclass(frozen=True)
class Quickstart:
    """What the quickstart found; `str()` gives the table that it prints.

    Attributes:
        output_dir: Where everything is.
        depth: `abs_rel` of the depth network and of the best constant depth, on unseen frames.
        segmentation: Initialisation -> mIoU on unseen frames, one number a seed.
        baselines: Baseline -> mIoU.
        reloaded_equal: Whether the checkpoint, loaded through transformers' Auto class, predicts the same ids, but
            for pixels that rounding decides.
        seconds: Wall time.
    """

    output_dir: Path
    depth: dict[str, float]
    segmentation: dict[str, list[float]]
    baselines: dict[str, float]
    reloaded_equal: bool
    seconds: float

    def __str__(self) -> str:
        network, constant = self.depth["network"], self.depth["constant"]
        lines = [
            f"Depth on {TEST_FRAMES} unseen frames: AbsRel {network:.3f}, best constant depth {constant:.3f} "
            f"({100 * (1 - network / constant):.0f} % lower).",
            "",
            f"Segmentation from {LABELLED_FRAMES} labelled frames, mIoU in % on {TEST_FRAMES} unseen frames:",
            "",
            f"| initialisation | mean | spread (sd of {len(SEEDS)} seeds) | seeds |",
            "|---|---|---|---|",
        ]
        for name, scores in self.segmentation.items():
            seeds = ", ".join(f"{100 * score:.1f}" for score in scores)
            lines.append(
                f"| {name} | {100 * statistics.mean(scores):.1f} | {100 * statistics.stdev(scores):.1f} | {seeds} |"
            )
        lines += [f"| {name} | {100 * score:.1f} | | |" for name, score in self.baselines.items()]
        same = "predicts the same ids" if self.reloaded_equal else "predicts OTHER ids: please report this"
        lines += [
            "",
            f"The checkpoint, loaded back with AutoModelForSemanticSegmentation, {same}.",
            f"Figure: {self.output_dir / 'panel.png'}   Checkpoint: {self.output_dir / 'model'}",
            f"{self.seconds:.0f} seconds.",
        ]
        return "\n".join(lines)


def quickstart(output_dir: str | Path, overwrite: bool = False) -> Quickstart:
    """Render, pre-train, fine-tune, score, look, and load the result back.

    Args:
        output_dir: Folder for everything that is made.
        overwrite: Whether the results of an earlier quickstart there are replaced; rendered frames are kept.

    Raises:
        FileExistsError: The folder holds an earlier quickstart and `overwrite` is False.
    """
    start = time.perf_counter()
    output_dir = Path(output_dir)
    clear(output_dir, overwrite)
    train_set = SyntheticWorld(output_dir / "world", "train", count=TRAIN_FRAMES, size=SIZE)
    test_set = SyntheticWorld(output_dir / "world", "test", count=TEST_FRAMES, size=SIZE)
    depth, initialisations = run_all(output_dir, train_set, test_set)
    last = initialisations["depth pre-training"][-1].model_dir
    shutil.copytree(last, output_dir / "model")
    write_prediction_panel(output_dir / "panel.png", *load_model(last), test_set)
    labelled = few_shot_subset(train_set, LABELLED_FRAMES, SEEDS[0])
    result = Quickstart(
        output_dir=output_dir,
        depth={
            "network": depth.scores["abs_rel"],
            "constant": score_depth_baseline(ConstantDepth(train_set), test_set)["abs_rel"],
        },
        segmentation={name: [run.scores["mean_iou"] for run in runs] for name, runs in initialisations.items()},
        baselines={
            "majority class": score_segmentation_baseline(MajorityClass(labelled), test_set)["mean_iou"],
            "position prior": score_segmentation_baseline(PositionPrior(labelled), test_set)["mean_iou"],
        },
        reloaded_equal=reload_agrees(output_dir / "model", last, test_set[0]),
        seconds=time.perf_counter() - start,
    )
    write_json(output_dir / "results.json", asdict(result) | {"output_dir": str(output_dir)})
    return result


def run_all(
    output_dir: Path, train_set: SampleDataset, test_set: SampleDataset
) -> tuple[RunResult, dict[str, list[RunResult]]]:
    """Pre-train and fine-tune, two runs at a time; those from random weights need not wait for the depth network."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, mp_context=context, initializer=start_worker) as pool:
        depth = pool.submit(train, depth_config(output_dir), train_set, test_set)
        random = [pool.submit(finetune, output_dir, seed, None, train_set, test_set) for seed in SEEDS]
        model_dir = depth.result().model_dir
        pretrained = [pool.submit(finetune, output_dir, seed, model_dir, train_set, test_set) for seed in SEEDS]
        initialisations = {"random": random, "depth pre-training": pretrained}
        return depth.result(), {name: [run.result() for run in runs] for name, runs in initialisations.items()}


def start_worker() -> None:
    """Use one thread, and let progress through."""
    torch.set_num_threads(1)
    show_progress()


def clear(output_dir: Path, overwrite: bool) -> None:
    """Refuse a folder with earlier results, or remove them; rendered frames stay."""
    found = [output_dir / name for name in ("runs", "model", "panel.png", "results.json")]
    found = [path for path in found if path.exists()]
    if found and not overwrite:
        raise FileExistsError(
            f"{output_dir} holds an earlier quickstart ({found[0].name}); give another --output-dir, or --overwrite."
        )
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def depth_config(output_dir: Path) -> RunConfig:
    """Options of the depth pre-training."""
    return RunConfig(
        task="depth",
        model=ModelOptions(encoder=ENCODER, head_config=HEAD, depth_loss="silog", min_depth=1.0, max_depth=100.0),
        data=DataOptions(size=list(SIZE)),
        optim=OptimOptions(lr=1e-3, batch_size=BATCH_SIZE),
        schedule=ScheduleOptions(steps=PRETRAIN_STEPS, warmup_steps=50),
        run=RunOptions(output_dir=str(output_dir / "runs" / "depth"), select="last"),
    )


def finetune(
    output_dir: Path, seed: int, depth_model: Path | None, train_set: SampleDataset, test_set: SampleDataset
) -> RunResult:
    """Train a segmenter on the labelled frames of a seed, from random weights or from the depth network."""
    start = "random" if depth_model is None else "depth"
    config = RunConfig(
        task="segmentation",
        model=ModelOptions(
            pretrained=None if depth_model is None else str(depth_model),
            encoder=ENCODER if depth_model is None else None,
            head_config=HEAD if depth_model is None else None,
        ),
        data=DataOptions(
            size=list(SIZE),
            subset_size=LABELLED_FRAMES,
            subset_seed=seed,
            crop_scale=[0.6, 1.0],
            colour_jitter=0.3,
        ),
        optim=OptimOptions(lr=FINETUNE_LR, batch_size=BATCH_SIZE),
        schedule=ScheduleOptions(steps=FINETUNE_STEPS, warmup_steps=10),
        run=RunOptions(output_dir=str(output_dir / "runs" / f"{start}_{seed}"), seed=seed, select="last"),
    )
    return train(config, train_set, test_set)


def reload_agrees(folder: Path, original: Path, sample: Sample) -> bool:
    """Say whether a folder, loaded as any user of transformers would load it, predicts the ids of the original.

    Both predict on the CPU, as `from_pretrained` leaves a model there: a GPU rounds convolutions in another way. The
    memory format of their weights differs, and with it the order of summation, so a share of `LEVEL_PIXELS` may
    differ.
    """
    model = AutoModelForSemanticSegmentation.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    ids, _ = predict_maps(model, processor, sample.image)
    expected, _ = predict_maps(*load_model(original, device="cpu"), sample.image)
    return ids.shape == expected.shape and bool(np.mean(ids != expected) <= LEVEL_PIXELS)
