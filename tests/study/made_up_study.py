"""A run directory of a study whose numbers were made up: two classes, four test images in two blocks for each fold.

Class 0 has 90 pixels in an image, of which a run loses `wrong` to class 1; class 1 has 10, all found.
"""

import json
from pathlib import Path

import numpy as np
import yaml

TITLES = {"none": "Random <start> & nothing", "depth": "Depth $x$", "hub": "A | checkpoint"}
NUM_LABELLED = (8, 32)
MODES = ("full", "frozen")
PRETRAIN_SEEDS = (0, 1)
FINETUNE_SEEDS = 3
IMAGES = 4
BLOCKS = ["a", "a", "b", "b"]
FIXED_RATE = 0.001
RATES = {"none": 0.001, "depth": 0.0003, "hub": 0.001}
GRID = (0.0003, 0.001, 0.003)
BASE = {"none": 40, "depth": 20, "hub": 30}


def iou(wrong):
    """Mean IoU of images that all lose this many pixels."""
    return ((90 - wrong) / 90 + 10 / (10 + wrong)) / 2


def wrong_pixels(init, num_labelled, run, image):
    """Lost pixels of an image: fewer with more labels, a little other for each run and image."""
    outer, inner = run
    return BASE[init] - (5 if num_labelled == 32 else 0) + 2 * outer + inner + (3 if image >= 2 else 0)


def confusion(init, num_labelled, run):
    lost = [wrong_pixels(init, num_labelled, run, image) for image in range(IMAGES)]
    return np.array([[[90 - wrong, wrong], [0, 10]] for wrong in lost], dtype=np.int64)


def pooled_iou(init, num_labelled, run):
    lost = [wrong_pixels(init, num_labelled, run, image) for image in range(IMAGES)]
    return iou(sum(lost) / IMAGES)


MODEL = {"encoder": {"model_type": "depthseg_resnet"}}
FINETUNING = {
    "task": "segmentation",
    "model": MODEL,
    "data": {"name": "synthetic", "root": "data/world", "size": [64, 192]},
    "schedule": {"steps": 100},
    "optim": {"batch_size": 4},
}
PRETRAINING = {
    "task": "depth",
    "model": MODEL,
    "pretext": {"supervision": "mono"},
    "data": {"name": "synthetic", "root": "data/world", "train_options": {"count": 2000}},
    "schedule": {"steps": 900},
    "optim": {"batch_size": 8},
}


def study_yaml(**changes):
    return {
        "name": "made-up",
        "summary": "A study <b>of</b> nothing.",
        "scale": "smoke",
        "initialisations": {
            "none": {"title": TITLES["none"], "after": None, "checkpoint": None, "pretrain": None},
            "depth": {"title": TITLES["depth"], "after": None, "checkpoint": None, "pretrain": {"objective": "depth"}},
            "hub": {"title": TITLES["hub"], "after": None, "checkpoint": "somebody/weights", "pretrain": None},
        },
        "modes": {mode: {} for mode in MODES},
        "architectures": {"resnet18": {}},
        "benchmarks": {"streets": {"title": "", "num_labelled": list(NUM_LABELLED), "folds": {"test": {}}}},
        "seeds": {"pretrain": len(PRETRAIN_SEEDS), "finetune": FINETUNE_SEEDS},
        "rates": {"fixed": FIXED_RATE, "grid": list(GRID), "seeds": 1, "num_labelled": 4},
        "measures": ["iou_by_depth", "cam_boundary_alignment"],
        "reference": "none",
        "comparisons": [["depth", "hub"]],
        "claims": [
            {"text": "Depth helps", "better": "depth", "than": "none", "mode": "frozen"},
            {"text": "Weights from elsewhere help more", "better": "hub", "than": "depth", "mode": ""},
        ],
    } | changes


def write_trial(out, key, content, arrays=None):
    path = Path(out) / "trials" / f"{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if arrays:
        np.savez(path.with_suffix(".npz"), **arrays)
    path.write_text(json.dumps({"key": key, "study": "made-up", "versions": {"torch": "2.13"}} | content))


def write_finetuning(out, init, mode, num_labelled, run, *, role="main", lr=None, fold="test", matrices=None):
    """Write one record with its matrices; return its key."""
    lr = RATES[init] if lr is None else lr
    key = f"{init}-{mode}-{num_labelled}-{run[0]}-{run[1]}-{role}-{lr:g}-{fold}".replace(".", "_")
    final = pooled_iou(init, num_labelled, run)
    content = {
        **{
            "kind": "finetune",
            "initialisation": init,
            "architecture": "resnet18",
            "mode": mode,
            "num_labelled": num_labelled,
            "role": role,
        },
        **({"benchmark": None, "fold": None} if role == "rate" else {"benchmark": "streets", "fold": fold}),
        **{"lr": lr, "pretrain_seed": run[0], "finetune_seed": run[1], "parent_key": None},
        "scores": {"mean_iou": final if role != "rate" else 0.5 - abs(np.log10(lr / RATES[init])) / 10},
        "curve": [{"step": step, "mean_iou": final * step / 100, "train_loss": 1.0} for step in (50, 100)],
        "measures": {"iou_by_depth": {"0-10 m": 0.5 + run[1] / 10, "10-20 m": None}, "cam_boundary_alignment": 0.6},
        "classes": ["Road <wide>", "Car"],
        "baselines": {"position_prior": 0.3, "majority_class": 0.1},
        **{"config": FINETUNING, "seconds": 60.0, "hardware": "2 cores", "command": "depthseg study made-up"},
    }
    matrices = confusion(init, num_labelled, run) if matrices is None else matrices
    names = [f"{fold}{place}" for place in range(len(matrices))]
    blocks = (BLOCKS * len(matrices))[: len(matrices)]
    write_trial(out, key, content, {"confusion": matrices, "names": np.array(names), "blocks": np.array(blocks)})
    return key


def write_study(out, *, without=(), **changes):
    """Write a whole study.

    Args:
        out: Its run directory.
        without: Main and fixed runs that are left out, as (initialisation, mode, num_labelled, run).
        changes: To `study.yaml`.
    """
    study = study_yaml(**changes)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    seeds, streets = range(study["seeds"]["pretrain"]), study["benchmarks"]["streets"]
    runs = [(outer, inner) for outer in seeds for inner in range(study["seeds"]["finetune"])]
    if draws := study["seeds"].get("draws"):
        runs = [(draw % len(seeds), draw) for draw in range(draws)]
    for init in study["initialisations"]:
        for mode in study["modes"]:
            for num_labelled in streets["num_labelled"]:
                for run in runs:
                    if (init, mode, num_labelled, run) not in without:
                        _write_run(out, init, mode, num_labelled, run, streets["folds"])
            for lr in study["rates"]["grid"]:
                write_finetuning(out, init, mode, NUM_LABELLED[0], (0, 0), role="rate", lr=lr)
    for seed in seeds if "depth" in study["initialisations"] else ():
        content = {"kind": "pretrain", "initialisation": "depth", "pretrain_seed": seed, "parent_key": None}
        content |= {"architecture": "resnet18", "curve": []}
        scores = {"step": 900, "lr": 1e-9, "abs_rel": 0.1 + seed / 10, "alignment": "median", "images": 7}
        write_trial(out, f"depth-{seed}", content | {"scores": scores, "seconds": 3700.0, "config": PRETRAINING})
    return out


def _write_run(out, init, mode, num_labelled, run, folds):
    for fold in folds:
        write_finetuning(out, init, mode, num_labelled, run, fold=fold)
        if RATES[init] != FIXED_RATE:
            write_finetuning(out, init, mode, num_labelled, run, role="fixed", lr=FIXED_RATE, fold=fold)
