"""The README's CamVid table: few-shot segmentation from random weights and from a depth network.

    python training/camvid_table.py --root /path/to/camvid --depth-model runs/pretrain_synthetic_supervised/model

Nine runs of camvid_fewshot_resnet18.yaml, three seeds for each of three initialisations; finished runs are not
repeated. A seed determines the 16 images, the random weights and the order of images. Writes
runs/camvid_table/results.json and prints the table.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from depthseg.data import CamVid
from depthseg.data.subsets import few_shot_subset
from depthseg.engine.command import show_progress
from depthseg.engine.config import load_config
from depthseg.engine.records import write_json
from depthseg.engine.run import train
from depthseg.metrics import check_same_stamps
from depthseg.metrics.baselines import MajorityClass, PositionPrior, score_segmentation_baseline

CONFIG = Path(__file__).parent / "configs" / "camvid_fewshot_resnet18.yaml"
SEEDS = (0, 1, 2)


def main() -> None:
    """Run missing runs, then evaluate the baselines on the same images and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="CamVid in its SegNet layout")
    parser.add_argument("--depth-model", required=True, help="checkpoint of a depth network")
    parser.add_argument("--output-dir", default="runs/camvid_table", type=Path)
    options = parser.parse_args()
    show_progress()
    initialisations = {
        "random": [],
        "depth, encoder and head": [f"model.pretrained={options.depth_model}"],
        "depth, encoder only": [f"model.pretrained={options.depth_model}", "model.head_init=random"],
    }
    table: dict[str, list[float]] = {name: [] for name in (*initialisations, "majority class", "position prior")}
    val_set, stamps = CamVid(options.root, "val"), {}
    for seed in SEEDS:
        for number, (name, overrides) in enumerate(initialisations.items()):
            run_dir = f"run.output_dir={options.output_dir}/arm{number}_seed{seed}"
            seeds = [f"data.subset_seed={seed}", f"run.seed={seed}"]
            config = load_config(CONFIG, [f"data.root={options.root}", run_dir, "run.resume=true", *seeds, *overrides])
            found = train(config).scores
            stamps[config.run.output_dir] = found.get("stamp")
            table[name].append(found["mean_iou"])
        pool = CamVid(options.root, "train", exclude_sequences=["0016E5"])
        subset = few_shot_subset(pool, config.data.subset_size, seed)
        for name, baseline in (("majority class", MajorityClass(subset)), ("position prior", PositionPrior(subset))):
            table[name].append(score_segmentation_baseline(baseline, val_set)["mean_iou"])
    check_same_stamps(stamps)
    write_json(options.output_dir / "results.json", {"mean_iou": table, "seeds": list(SEEDS)})
    print("| initialisation | mIoU, mean ± sd | seeds |\n|---|---|---|")
    for name, scores in table.items():
        seeds = ", ".join(f"{100 * score:.1f}" for score in scores)
        print(f"| {name} | {100 * statistics.mean(scores):.1f} ± {100 * statistics.stdev(scores):.1f} | {seeds} |")


if __name__ == "__main__":
    main()
