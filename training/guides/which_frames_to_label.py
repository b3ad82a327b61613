"""The runs behind which_frames_to_label.md: how much it matters which frames of CamVid are labelled.

    depthseg convert mobilenet_v2-b0353104.pth --output-dir imagenet
    python training/guides/which_frames_to_label.py CAMVID imagenet

A linear head on the frozen encoder is trained with frames chosen at random, evenly over time, and by coverage of the
features of that encoder, and evaluated on the whole val split. Frames are chosen from the training split without the
sequence of the val split. Scores go to training/results/which_frames_to_label.json, those that are there are not run
again, and the tables of the page beside this file are written from it.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthseg.data import load_dataset
from depthseg.data.subsets import Subset, evenly_spaced, few_shot_names
from depthseg.engine.choosing import choose_images
from depthseg.engine.command import show_progress
from depthseg.engine.config import load_config
from depthseg.engine.records import write_json
from depthseg.engine.run import train
from depthseg.models import DepthSegForSemanticSegmentation, DepthSegImageProcessor

if TYPE_CHECKING:
    from depthseg.data import SampleDataset

PAGE = Path(__file__).with_suffix(".md")
RESULTS = PAGE.parents[1] / "results" / "which_frames_to_label.json"
DRAWS = {4: 9, 8: 9, 16: 30}
"""Number of labelled frames -> random draws of them."""

SEEDS = 3
"""Runs with frames that were not drawn, which differ in the seed of the training alone."""

OPTIONS = [
    "model.freeze_encoder=true",
    "model.head_type=linear",
    "data.size=[120,160]",
    "data.hflip=0.5",
    "data.cache_features=true",
    "optim.lr=3.0e-3",
    "schedule.steps=300",
    "schedule.warmup_steps=30",
    "run.eval_every=0",
    "run.trackers=[]",
    "run.report=false",
    "run.overwrite=true",
]


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", help="folder of CamVid, SegNet layout")
    parser.add_argument("model", help="folder of the converted MobileNetV2")
    parser.add_argument("--output-dir", default="runs/which_frames_to_label", help="of the run that is under way")
    options = parser.parse_args()
    show_progress()
    pool = load_dataset("camvid", options.camvid, "train", exclude_sequences=["0016E5"])
    val = load_dataset("camvid", options.camvid, "val")
    orders: dict[str, list[str]] = {}
    for plan in planned():
        results = read()
        if plan["run"] in results:
            continue
        if "coverage" not in orders:
            orders["coverage"] = order_by_coverage(options.model, pool)
        names = names_of(plan, pool, orders["coverage"])
        own = [f"model.pretrained={options.model}", f"run.seed={plan['seed']}", f"run.output_dir={options.output_dir}"]
        config = load_config(None, OPTIONS + own)
        score = train(config, train_set=Subset(pool, names), val_set=val).scores["mean_iou"]
        write_json(RESULTS, results | {plan["run"]: plan | {"mean_iou": score, "frames": names}})
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def planned() -> list[dict[str, Any]]:
    """All runs."""
    runs = []
    for count, draws in DRAWS.items():
        for choice, repeats in (("random", draws), ("evenly over time", SEEDS), ("coverage", SEEDS)):
            runs += [{"choice": choice, "count": count, "seed": seed} for seed in range(repeats)]
    return [{"run": f"{run['choice']}, {run['count']}, {run['seed']}", **run} for run in runs]


def order_by_coverage(model_path: str, pool: SampleDataset) -> list[str]:
    """Names of the most frames that are needed, the most useful first."""
    model = DepthSegForSemanticSegmentation.from_pretrained(model_path, num_labels=2).eval()
    processor = DepthSegImageProcessor.from_pretrained(model_path, size={"height": 120, "width": 160})
    return choose_images(model, processor, pool, max(DRAWS))


def names_of(plan: dict[str, Any], pool: SampleDataset, by_coverage: list[str]) -> list[str]:
    """Frames of a run."""
    if plan["choice"] == "random":
        return few_shot_names(pool.names, plan["count"], plan["seed"])
    if plan["choice"] == "coverage":
        return by_coverage[: plan["count"]]
    in_time = sorted(pool.names)
    return [in_time[index] for index in evenly_spaced(len(in_time), plan["count"])]


def read() -> dict[str, dict[str, Any]]:
    """Runs that are done, by their names."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def table() -> str:
    """Mean IoU in points over the number of labelled frames."""
    lines = [
        "| labelled | random: mean ± s.d. | worst to best draw | evenly over time | coverage | draws below coverage |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for count in DRAWS:
        scores = {
            choice: [
                100 * run["mean_iou"] for run in read().values() if (run["choice"], run["count"]) == (choice, count)
            ]
            for choice in ("random", "evenly over time", "coverage")
        }
        drawn, chosen = scores["random"], statistics.fmean(scores["coverage"])
        beaten = sum(score < chosen for score in drawn)
        lines.append(
            f"| {count} | {statistics.fmean(drawn):.1f} ± {statistics.stdev(drawn):.1f} | {min(drawn):.1f} to "
            f"{max(drawn):.1f} | {statistics.fmean(scores['evenly over time']):.1f} | {chosen:.1f} | "
            f"{beaten} of {len(drawn)} |"
        )
    return "\n".join(lines)


def fill(page: str) -> str:
    """The page with its table."""
    return re.sub(
        r"(<!-- table -->\n).*?(\n<!-- end -->)", lambda found: found[1] + table() + found[2], page, flags=re.S
    )


if __name__ == "__main__":
    main()
