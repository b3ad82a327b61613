"""Tables 1 to 4 and figures 2 to 5 and 7 of Lao et al. on KITTI: their numbers, their rows, and each at toy size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, fields
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from depthseg.study.options import load_study
from depthseg.study.places import in_cells
from depthseg.study.results import Setting
from depthseg.study.runner import trials_in_order

NOT_IN_TEXT = (None, None)
TABLE1 = {
    ("resnet18", "full"): [(41.35, 70.75), (45.15, 72.39), (46.00, 72.43), (50.20, 76.39)],
    ("resnet50", "full"): [(44.66, 73.37), (44.65, 73.06), (49.90, 76.28), (50.92, 77.34)],
    ("resnet50", "deeplabv3"): [(21.93, 52.32), (43.39, 72.66), (43.43, 71.34), (43.77, 72.68)],
    ("resnet18", "frozen"): [(41.24, 70.52), (33.33, 65.34), (43.02, 72.38), (46.53, 74.42)],
    ("resnet50", "frozen"): [NOT_IN_TEXT] * 4,
}
ROWS1 = ("none", "imagenet", "depth_rand", "depth")
CELLS1 = {
    (init, *column, 16): numbers
    for column, found in TABLE1.items()
    for init, numbers in zip(ROWS1, found, strict=True)
}


def of_resnet18(mode, numbers, num_labelled=16):
    return {(init, "resnet18", mode, num_labelled): pair for init, pair in numbers.items()}


NUMBERS = {
    "table1": CELLS1,
    "table2": of_resnet18("full", dict.fromkeys(("imagenet", "depth", "stereo", "lidar"), NOT_IN_TEXT)),
    "table3": {
        ("none", "resnet18", "full", 16): (41.35, 70.75),
        ("imagenet", "resnet18", "full", 16): (45.15, 72.39),
        ("depth_encoder", "resnet18", "full", 16): (46.69, 75.04),
        ("none", "resnet50", "full", 16): (44.66, 73.37),
        ("imagenet", "resnet50", "full", 16): (44.65, 73.06),
        ("depth_encoder", "resnet50", "full", 16): (46.99, 73.57),
        ("imagenet_vit", "vit_large", "full", 16): (57.53, 81.48),
        ("depth_vit", "vit_large", "full", 16): (58.12, 81.94),
    },
    "table4": {
        ("coco", "resnet50", "full", 16): (51.28, 74.88),
        ("depth", "resnet50", "full", 16): (50.92, 77.34),
        ("inpainting", "resnet50", "full", 16): (47.18, 74.16),
        ("dino", "resnet50", "full", 16): (44.19, 71.36),
        ("flow", "resnet50", "full", 16): (42.72, 71.80),
        ("moco_v2", "resnet50", "full", 16): (37.04, 65.91),
    },
    "fig2": {cell: pair for cell, pair in CELLS1.items() if cell[2] == "full"},
    "fig3": {
        (init, "resnet18", "full", count): CELLS1[init, "resnet18", "full", 16] if count == 16 else NOT_IN_TEXT
        for init, count in product(ROWS1, (4, 8, 16, 32, 64, 128))
    },
    "fig4": {cell: pair for cell, pair in CELLS1.items() if cell[2] == "frozen"},
    "fig5": {
        ("imagenet", "resnet18", "full", 16, "kitti"): (45.15, 72.39),
        ("depth", "resnet18", "full", 16, "kitti"): (50.20, 76.39),
        ("depth_large", "resnet18", "full", 16, "kitti"): (48.54, None),
        **{(init, "resnet18", "full", 16, "large"): NOT_IN_TEXT for init in ("imagenet", "depth", "depth_large")},
    },
    "fig7": {
        **of_resnet18("full", {"none": (41.35, None), "flow": (38.47, None)}),
        **of_resnet18("full", {"depth_rand": (46.00, None), "depth": (50.20, None)}),
        **of_resnet18("frozen", {"none": (41.24, None), "flow": (32.19, None)}),
        **of_resnet18("frozen", {"depth_rand": (43.02, None), "depth": (46.53, None)}),
    },
}
"""Study -> cell -> mean IoU and pixel accuracy of the paper; the benchmark of a cell is `kitti` if it names none."""


@cache
def study(name, scale="full", *overrides):
    return load_study(name, scale, overrides)


@cache
def trials(name, scale="full", *overrides):
    return list(trials_in_order(study(name, scale, *overrides), Path("nowhere")))


def tuned(name, **labels):
    """Options of the fine-tunings of a study with these labels."""
    found = [c.config for c in trials(name) if c.kind == "finetune" and labels.items() <= c.labels.items()]
    assert found
    return found


def pretrained(name, init, scale="full"):
    """The first pre-training of an initialisation."""
    return next(c for c in trials(name, scale) if (c.kind, c.labels["initialisation"]) == ("pretrain", init))


@pytest.mark.parametrize("name", NUMBERS)
def test_the_numbers_are_those_of_the_paper_and_each_is_of_a_cell_that_is_run(name):
    found = {}
    for cell in study(name).paper.cells:
        place = (cell.initialisation, cell.architecture, cell.mode, cell.num_labelled)
        place += (cell.benchmark,) if len(study(name).benchmarks) > 1 else ()
        assert place not in found
        found[place] = cell.mean_iou, cell.pixel_accuracy
        setting = {part.name: getattr(cell, part.name) for part in fields(Setting)}
        assert in_cells([vars(one) for one in study(name).cells], initialisation=cell.initialisation, **setting)
        assert cell.num_labelled in study(name).benchmarks[cell.benchmark].num_labelled
    assert found == NUMBERS[name]
    assert f"{'figure' if name.startswith('fig') else 'table'} {name[-1]}" in study(name).paper.source


@pytest.mark.parametrize("name", NUMBERS)
def test_every_fine_tuning_has_a_cell_of_the_paper_and_every_pretraining_a_fine_tuning(name):
    parts = ("initialisation", "architecture", "mode", "num_labelled", "benchmark")
    run = {tuple(c.labels[part] for part in parts) for c in trials(name) if c.kind == "finetune"}
    told = {cell if len(cell) == 5 else (*cell, "kitti") for cell in NUMBERS[name]}
    assert run == told
    parents = {c.parent for c in trials(name)}
    assert all(c.key in parents for c in trials(name) if c.kind == "pretrain")


def test_fine_tuning_has_the_setting_of_the_paper():
    for config in tuned("table1"):
        data, optim, schedule = config.data, config.optim, config.schedule
        assert (data.name, data.size, data.subset_size, data.hflip) == ("kitti_semantics", [192, 640], 16, 0.5)
        assert (data.colour_jitter, data.crop_scale, data.random_crop) == (0, [1, 1], False)
        # 19 classes are the default of the data set. 72 of the 200 images are tests in every study.
        assert data.options == {"val_fraction": 0.36} and round(0.36 * 200) == 72
        assert (optim.name, optim.lr, optim.weight_decay, optim.batch_size) == ("adam", 1e-5, 0, 16)
        assert (schedule.name, schedule.steps, schedule.warmup_steps) == ("cosine", 20000, 0)
        assert (config.run.eval_every, config.run.select) == (1000, "last")
    assert all(config.model.freeze_encoder for config in tuned("table1", mode="frozen"))
    assert not any(config.model.freeze_encoder for config in tuned("table1", mode="full"))
    draws = {(c.data.subset_seed, c.run.seed) for c in tuned("table1")}
    assert draws == {(0, 0), (1, 1), (2, 2)}


def test_deeplabv3_has_the_encoders_of_the_column_of_resnet50_with_dilation():
    by_mode = {}
    for trial in trials("table1"):
        if trial.kind == "finetune" and trial.labels["architecture"] == "resnet50":
            place = trial.labels["initialisation"], trial.labels["finetune_seed"]
            by_mode.setdefault(trial.labels["mode"], {})[place] = trial.parent, trial.config.model.pretrained
    assert by_mode["deeplabv3"] == by_mode["full"] == by_mode["frozen"]
    for config in tuned("table1", mode="deeplabv3"):
        assert config.model.encoder == {"model_type": "depthseg_resnet", "depth": 50, "output_stride": 16}
        assert config.model.head_type == "deeplabv3"
    assert {c.model.head_type for c in tuned("table1", mode="full")} == {"monodepth2"}


def test_depth_is_monodepth2_from_random_and_from_imagenet_weights():
    for init, given in (("depth_rand", None), ("depth", "data/resnet18_imagenet")):
        config = pretrained("table1", init).config
        assert (config.task, config.pretext.supervision, config.model.pretrained) == ("depth", "mono", given)
        assert (config.data.name, config.data.size) == ("kitti_raw", [192, 640])
        assert config.data.options == {"side": "both", "frames": [-1, 1]}
        assert (config.optim.name, config.optim.lr, config.optim.batch_size) == ("adam", 1e-4, 12)
        assert config.schedule.steps == 20 * 93000 // 12
        assert (config.model.min_depth, config.model.max_depth) == (0.1, 100)
        assert config.pretext.auto_mask and not config.pretext.pyramid and not config.pretext.derotate
    given = {c.model.pretrained for c in tuned("table1", initialisation="imagenet")}
    assert given == {"data/resnet18_imagenet", "data/resnet50_imagenet"}


def test_a_checkpoint_may_name_the_architecture_and_one_that_does_not_keeps_its_keys():
    other = "initialisations.imagenet.checkpoint=data/resnet18_imagenet"
    keys = [
        {
            (c.labels["initialisation"], c.key)
            for c in trials("fig7", "full", *more)
            if c.labels["initialisation"] in ("flow", "depth")
        }
        for more in ((), (other,))
    ]
    assert keys[0] == keys[1]


def test_the_forms_of_supervision_differ_in_supervision_alone():
    mono, stereo, lidar = (pretrained("table2", init).config for init in ("depth", "stereo", "lidar"))
    assert (stereo.pretext.supervision, stereo.data.options) == ("stereo", {"side": "both", "stereo": True})
    assert (lidar.pretext.supervision, lidar.data.name) == ("labels", "kitti_depth")
    assert lidar.data.options == {"raw_root": "data/kitti_raw"}
    for config in (stereo, lidar):
        assert config.model.pretrained == mono.model.pretrained == "data/resnet18_imagenet"
        assert asdict(config.schedule) == asdict(mono.schedule) and asdict(config.optim) == asdict(mono.optim)


def test_encoder_only_means_a_new_decoder_on_the_same_depth_and_vit_has_its_rate():
    for trial in trials("table3"):
        init, model = trial.labels["initialisation"], trial.config.model
        if trial.kind == "finetune":
            assert model.head_init == ("random" if init in ("depth_encoder", "depth_vit") else "pretrained")
            assert trial.config.optim.lr == (5e-8 if trial.labels["architecture"] == "vit_large" else 1e-5)
    parents = {c.key: c.labels["initialisation"] for c in trials("table3") if c.kind == "pretrain"}
    assert set(parents.values()) == {"depth"}
    assert {c.model.pretrained for c in tuned("table3", architecture="vit_large")} == {
        *("google/vit-large-patch16-384", "Intel/dpt-large"),
    }
    assert {c.model.head_type for c in tuned("table3", architecture="vit_large")} == {"dpt"}


def test_other_pretrainings_begin_and_train_as_the_released_scripts_do():
    for name in ("table4", "fig7"):
        flow = pretrained(name, "flow").config
        assert (flow.task, flow.pretext.source_frames, flow.optim.lr) == ("flow", [-1], 5e-5)
        assert flow.data.options == {"side": "both", "frames": [-1]} and flow.data.colour_jitter == 0
        assert flow.model.pretrained.endswith("_imagenet") and flow.pretext.ssim_weight == 0.85
    inpainting = pretrained("table4", "inpainting").config
    assert (inpainting.task, inpainting.model.pretrained, inpainting.data.colour_jitter) == ("inpainting", None, 0)
    assert (inpainting.pretext.hole_share, inpainting.pretext.hole_size) == ([0.001, 0.01], 7)
    assert (inpainting.optim.lr, inpainting.pretext.scale_weights) == (1e-4, "fine")
    for init in ("coco", "dino", "moco_v2"):
        found = tuned("table4", initialisation=init)
        assert {c.model.pretrained for c in found} == {f"data/resnet50_{init}"}
        # The encoder of COCO is dilated to a stride of 8.
        assert {c.model.encoder["output_stride"] for c in found} == {32}


def test_the_sizes_of_figure_5_are_crossed():
    sizes = {init: pretrained("fig5", init).config.data.size for init in ("depth", "depth_large")}
    assert sizes == {"depth": [192, 640], "depth_large": [320, 1024]}
    for benchmark, size in (("kitti", [192, 640]), ("large", [320, 1024])):
        assert {tuple(c.data.size) for c in tuned("fig5", benchmark=benchmark)} == {tuple(size)}
    assert pretrained("fig5", "depth_large").parent == pretrained("fig5", "depth").key


@pytest.mark.parametrize("scale", ["full", "toy"])
def test_with_one_output_directory_nothing_runs_twice(scale):
    table1 = {trial.key for trial in trials("table1", scale)}
    for name in ("fig2", "fig4"):
        assert {trial.key for trial in trials(name, scale)} < table1
    for name in NUMBERS:
        # Networks and numbers of labels that both have, from weights that both have.
        labels = [{tuple(sorted(c.labels.items())): c.key for c in trials(other, scale)} for other in (name, "table1")]
        shared = labels[0].keys() & labels[1].keys()
        assert shared and all(labels[0][place] == labels[1][place] for place in shared)


@pytest.mark.parametrize("name", NUMBERS)
def test_the_toy_scale_reads_nothing_but_what_it_renders(name):
    toy = study(name, "toy")
    assert all(init.checkpoint is None for init in toy.initialisations.values())
    assert toy.seeds.draws == 1 and not toy.rates.grid
    for trial in trials(name, "toy"):
        data, config = trial.config.data, trial.config
        assert data.root in toy.miniatures or data.name == "synthetic_crops" and data.root == "data/toy/world"
        assert data.options.get("raw_root") is None
        assert config.schedule.steps <= 4 and max(config.data.size) <= 192 and config.optim.batch_size <= 4
        encoder = config.model.encoder
        tiny = encoder["hidden_size"] == 32 if encoder["model_type"] == "vit" else encoder.get("width_factor") == 0.125
        assert tiny or trial.labels["mode"] == "deeplabv3"
    # No study at full scale reads a miniature.
    assert not any(folder in json.dumps(c.config.to_dict()) for c in trials(name) for folder in toy.miniatures)


@pytest.mark.parametrize("name", NUMBERS)
def test_what_the_text_does_not_say_is_named_with_options_that_the_study_has(name):
    sentences = study(name).paper.not_in_text
    assert sentences and all(sentence.endswith(".") for sentence in sentences)
    options = study(name).to_dict()
    for word in " ".join(sentences).replace("(", " ").replace(")", " ").replace(",", " ").split():
        if word.partition(".")[0] in options and "." in word.rstrip(".;:") and "*" not in word:
            node = options
            for part in word.rstrip(".;:").partition("=")[0].split("."):
                assert part in node or part in OF_RUNS, word
                node = node.get(part) or {}


OF_RUNS = {
    *("model", "head_init", "data", "options", "stereo", "optim", "encoder_lr_factor", "select", "scale_weights"),
    *("pretext", "schedule", "supervision"),
}
"""Options of runs that the sentences name and that the studies leave at their defaults."""

REPOSITORY = Path(__file__).parents[2]
COMMAND, ENVIRONMENT = Path(sys.executable).with_name("depthseg"), os.environ | {"PYTHONPATH": str(REPOSITORY)}


def run_toy(name, folder):
    """Run a study at toy size in a folder; its log, and the numbers and the text of its report."""
    command = [COMMAND, "study", name, "--scale", "toy", "--output-dir", "out"]
    options = ["pretrain.run.cpu=true", "finetune.run.cpu=true"]
    log = subprocess.run([*command, *options], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert log.returncode == 0, log.stderr[-3000:]
    report = folder / "out" / "report"
    return log.stderr, json.loads((report / "results.json").read_text()), (report / "report.md").read_text()


def scores_by_hand(path):
    """Mean IoU and pixel accuracy in points from the confusion matrices of a record."""
    with np.load(path) as file:
        counts = file["confusion"].sum(0)
    overlaps = []
    for place in range(len(counts)):
        union = counts[place].sum() + counts[:, place].sum() - counts[place, place]
        overlaps += [counts[place, place] / union] if union else []
    right = sum(counts[place, place] for place in range(len(counts)))
    return 100 * sum(overlaps) / len(overlaps), 100 * right / counts.sum()


def check_cells(name, numbers, text, out):
    """Every cell of the paper is in the report with the score of its record, and none is a statement on the paper."""
    assert (numbers["name"], numbers["scale"], numbers["missing"]) == (name, "toy", [])
    left_out = {32, 64, 128} if name == "fig3" else set()
    found = {}
    for row in numbers["paper"]["cells"]:
        place = (row["initialisation"], row["architecture"], row["mode"], row["num_labelled"])
        place += (row["benchmark"],) if name == "fig5" else ()
        found[place] = row["mean_iou"]["paper"], row["pixel_accuracy"]["paper"]
        assert row["status"] == ("not run" if row["num_labelled"] in left_out else "toy only")
        if row["status"] == "toy only":
            (key,) = row["records"]
            iou, accuracy = scores_by_hand(out / "trials" / f"{key}.npz")
            assert row["mean_iou"]["mean"] == pytest.approx(iou)
            assert row["pixel_accuracy"]["mean"] == pytest.approx(accuracy)
    assert found == NUMBERS[name]
    section = text.partition("## Beside the paper")[2].partition("\n## ")[0]
    assert section.count("| toy only |") + section.count("| not run |") == len(found)
    assert "no statement about the paper" in section
    for score in (0, 1):
        if any(pair[score] for pair in found.values()):
            assert section.count("not in the text") >= sum(pair[score] is None for pair in found.values())


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A folder in which the studies run one after the other: they share miniatures and trials."""
    return tmp_path_factory.mktemp("toys")


@pytest.mark.heavy
def test_table_1_and_the_figures_on_it_at_toy_size_in_one_directory(toys):
    for name in ("table1", "fig2", "fig4"):
        log, numbers, text = run_toy(name, toys)
        check_cells(name, numbers, text, toys / "out")
        assert ("trial " in log) == (name == "table1"), "A figure ran what the table had run."
        assert "![" in text.partition("## Learning curves")[2].partition("\n## ")[0]


@pytest.mark.heavy
@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in ("table1", "fig2", "fig4")])
def test_a_study_at_toy_size(name, toys):
    """Only trials that no study before it had are run."""
    out, keys = toys / "out", {trial.key for trial in trials(name, "toy")}
    before = {path.stem for path in (out / "trials").glob("*.json")}
    log, numbers, text = run_toy(name, toys)
    check_cells(name, numbers, text, out)
    assert {path.stem for path in (out / "trials").glob("*.json")} == before | keys
    assert log.count("trial ") == len(keys - before)
