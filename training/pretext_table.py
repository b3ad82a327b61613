"""The README's table of pre-trainings on the procedural world: every form of depth, and its rivals, after equal steps.

    python training/pretext_table.py --seeds 0 1 2

Runs pretrain_synthetic_*.yaml with each seed; finished runs are not repeated, broken ones go on, so it may be started
several times, also side by side with other `--names` or `--seeds`. Writes runs/pretext_table/results.json from all
runs that are done and prints the table. Options of all runs may follow, such as `schedule.steps=4000`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from depthseg.data import load_dataset
from depthseg.engine.command import show_progress
from depthseg.engine.config import load_config
from depthseg.engine.records import write_json
from depthseg.engine.run import train
from depthseg.metrics.baselines import ConstantDepth, score_depth_baseline

CONFIGS = Path(__file__).parent / "configs"
NAMES = [path.stem.removeprefix("pretrain_synthetic_") for path in sorted(CONFIGS.glob("pretrain_synthetic_*.yaml"))]
SHOWN = ("abs_rel", "delta1", "focal_error", "end_point_error", "hole_l1", "accuracy")


def main() -> None:
    """Run what is missing, then gather what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output-dir", default=Path("runs/pretext_table"), type=Path)
    parser.add_argument("overrides", nargs="*", metavar="SECTION.OPTION=VALUE")
    options = parser.parse_args()
    show_progress()
    for seed in options.seeds:
        for name in options.names:
            folder = options.output_dir / f"{name}_seed{seed}"
            own = [f"run.output_dir={folder}", f"run.seed={seed}", "run.resume=true", *options.overrides]
            config = load_config(CONFIGS / f"pretrain_synthetic_{name}.yaml", own)
            scores = train(config).scores
            write_json(folder / "scores.json", {"steps": config.schedule.steps, "scores": scores})
    gather(options.output_dir, options.overrides)


def gather(folder: Path, overrides: list[str]) -> None:
    """Write and print the scores of all runs that are done, and of the best constant depth beside them."""
    found: dict[str, dict[str, dict]] = {}
    for path in sorted(folder.glob("*_seed*/scores.json")):
        name, _, seed = path.parent.name.rpartition("_seed")
        found.setdefault(name, {})[seed] = json.loads(path.read_text())
    config = load_config(CONFIGS / "pretrain_synthetic_supervised.yaml", overrides)
    splits = (("train", config.data.train_options), ("val", config.data.val_options))
    worlds = [load_dataset("synthetic", config.data.root, s, **config.data.options, **own) for s, own in splits]
    constant = {
        alignment: score_depth_baseline(ConstantDepth(worlds[0]), worlds[1], alignment=alignment)
        for alignment in ("none", "median")
    }
    write_json(folder / "results.json", {"constant depth": constant, "runs": found})
    print("| pre-training | runs | " + " | ".join(SHOWN) + " |\n|---|---|" + "---|" * len(SHOWN))
    for name, seeds in found.items():
        cells = [_cell([run["scores"][key] for run in seeds.values() if key in run["scores"]]) for key in SHOWN]
        print(f"| {name} | {len(seeds)} | {' | '.join(cells)} |")


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    return f"{statistics.mean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
