"""The table of pre-trainings on the procedural world: depth with several kinds of supervision and other tasks.

    python training/pretext_table.py

Runs pretrain_synthetic_*.yaml with each seed, for the same number of steps. The scores of a finished run are in
training/results/pretext, and the run is not repeated; an interrupted run resumes. The script can be run several
times, also in parallel with other `--names` or `--seeds`. `--study runs/study_world` uses the pre-trainings of that
study with the same options and seeds. The scores of constant baselines are in constant.json. The script prints the
table of finished runs. Options for all runs may follow, such as `run.cpu=true`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from depthseg.engine.build import build_datasets
from depthseg.engine.command import show_progress
from depthseg.engine.config import RunConfig, load_config
from depthseg.engine.records import write_json
from depthseg.engine.run import train
from depthseg.geometry import pixel_grid, warp
from depthseg.metrics import FlowErrors
from depthseg.metrics.baselines import ConstantDepth, score_depth_baseline
from depthseg.pretext.alignment import find_rotation, rotated_pixels
from depthseg.pretext.photometric import SSIM_WEIGHT, TargetStatistics, photometric_error
from depthseg.study.stored import config_of, read_records, trials_folder

FOLDER = Path(__file__).parent
NAMES = [path.stem.removeprefix("pretrain_synthetic_") for path in FOLDER.glob("configs/pretrain_synthetic_*.yaml")]
SHOWN = ("abs_rel", "delta1", "focal_error", "end_point_error", "hole_l1", "accuracy", "mean_iou")


def main() -> None:
    """Run missing runs, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="*", default=sorted(NAMES), choices=NAMES)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--results", default=FOLDER / "results" / "pretext", type=Path)
    parser.add_argument("--study", type=Path, help="directory of a study")
    parser.add_argument("overrides", nargs="*", metavar="SECTION.OPTION=VALUE")
    options = parser.parse_args()
    show_progress()
    options.results.mkdir(parents=True, exist_ok=True)
    if not (options.results / "constant.json").is_file():
        write_json(options.results / "constant.json", constants(options.overrides))
    for seed in options.seeds:
        for name in options.names:
            result = options.results / f"{name}_seed{seed}.json"
            if not result.is_file():
                own = [f"run.output_dir=runs/pretext_table/{name}_seed{seed}", f"run.seed={seed}", "run.resume=true"]
                config = recipe(name, own + options.overrides)
                scores = find_in_study(options.study, what_counts(config.to_dict())) if options.study else None
                write_json(result, scores or train(config).scores)
    print("| pre-training | seeds | " + " | ".join(SHOWN) + " |\n|---|---|" + "---|" * len(SHOWN))
    for name in sorted(NAMES):
        done = [json.loads(path.read_text()) for path in sorted(options.results.glob(f"{name}_seed*.json"))]
        print(f"| {name} | {len(done)} | {' | '.join(cell([run.get(key) for run in done]) for key in SHOWN)} |")


def recipe(name: str, overrides: list[str]) -> RunConfig:
    """Options of a pre-training."""
    return load_config(FOLDER / "configs" / f"pretrain_synthetic_{name}.yaml", overrides)


def constants(overrides: list[str]) -> dict[str, dict[str, Any]]:
    """Constant baselines: one depth everywhere, or one flow field for all frames."""
    return constant_depths(overrides) | constant_flows(overrides)


def constant_depths(overrides: list[str]) -> dict[str, dict[str, Any]]:
    """The best constant depth on the training frames, in metres and aligned like depth from video."""
    metric, aligned = recipe("supervised", overrides), recipe("mono", overrides)
    train_set, val_set = build_datasets(metric.data)
    depth = ConstantDepth(train_set)
    return {
        alignment: score_depth_baseline(
            depth, val_set, alignment=alignment, min_depth=config.model.min_depth, max_depth=config.model.max_depth
        )
        for alignment, config in (("none", metric), ("median", aligned))
    }


def constant_flows(overrides: list[str]) -> dict[str, dict[str, Any]]:
    """Zero flow, and one flow field for all frames; both with and without the camera rotation from image alignment.

    The field is the median of the evaluated frames themselves, so it is at least as good as any fitted on training
    frames. The photometric loss of the true flow comes from pixels that are not visible in the other frame.
    """
    _, val_set = build_datasets(recipe("flow", overrides).data)
    samples = [val_set[index] for index in range(len(val_set))]
    first, other, truth = (
        torch.from_numpy(np.stack(arrays)).movedim(-1, 1).float()
        for arrays in zip(*((s.image / 255, s.frames[-1] / 255, s.flow) for s in samples), strict=True)
    )
    cameras, grid = torch.from_numpy(np.stack([s.intrinsics for s in samples])).float(), pixel_grid(*first.shape[-2:])
    rotations = rotated_pixels(find_rotation(first, other, cameras), cameras, grid) - grid
    flows = {"true_flow": torch.where(truth.isfinite(), truth, rotations)}
    for name, known in (("", torch.zeros_like(truth)), ("turn_and_", rotations)):
        flows |= {f"{name}no_flow": known, f"{name}same_flow": known + (truth - known).nanmedian(0).values}
    found = {}
    for name, flow in flows.items():
        errors = FlowErrors()
        errors.update(flow, truth)
        photometric = photometric_error(warp(other, grid + flow)[0], TargetStatistics.of(first), SSIM_WEIGHT)
        found[name] = errors.compute() | {"photometric_loss": photometric.mean().item()}
    return found


def what_counts(config: dict[str, Any]) -> dict[str, Any]:
    """The options of a run that affect its scores."""
    return config | {"run": {name: config["run"][name] for name in ("seed", "precision", "select")}}


def find_in_study(study: Path, wanted: dict[str, Any]) -> dict[str, float] | None:
    """Scores of the pre-training with these options; None if the study has none."""
    for record in read_records(trials_folder(study)):
        if record["kind"] == "pretrain" and what_counts(config_of(record).to_dict()) == wanted:
            return record["scores"]
    return None


def cell(values: list[float | None]) -> str:
    """Mean and standard deviation over the runs."""
    if not values or None in values:
        return ""
    return f"{statistics.mean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
