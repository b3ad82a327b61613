"""The studies that come with depthseg, before they are run."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from depthseg.engine.config import load_config
from depthseg.study.matrix import main_trials, pretraining_trials
from depthseg.study.options import PRESETS, CellOptions, load_study
from depthseg.study.runner import keys_of, trials_in_order

CONFIGS = Path(__file__).parents[2] / "training" / "configs"


def trials_of(study):
    return list(trials_in_order(study, Path("nowhere")))


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_studies_of_the_package_have_trials_at_every_scale(name):
    """Their first pre-training and their runs at one seed: all of them would take long to put together."""
    one = ["seeds.pretrain=1", "seeds.finetune=1", "seeds.draws=0", "rates.grid=[]", "rates.fixed=0.001"]
    for scale in ("full", *load_study(name).scales):
        study = load_study(name, scale, one)
        pretrained = pretraining_trials(study)
        assert {trial.labels["initialisation"] for trial in pretrained} == {
            init for init, options in study.initialisations.items() if options.pretrain is not None
        }
        folds = {
            (benchmark, count): len(options.folds)
            for benchmark, options in study.benchmarks.items()
            for count in options.num_labelled
        }
        parts, places = ("architectures", "initialisations", "modes"), set()
        for cell in study.cells or [CellOptions()]:
            parts = (
                getattr(cell, part) or getattr(study, part) for part in ("architectures", "initialisations", "modes")
            )
            named = [place for place in folds if place[0] in (cell.benchmarks or study.benchmarks)]
            places |= set(product(*parts, [place for place in named if place[1] in (cell.num_labelled or place)]))
        runs = main_trials(study, keys_of(pretrained), {})
        assert len(runs) == sum(folds[place[-1]] for place in places)


PRIMARY = [
    ("film", "none", "full"),
    ("film_imagenet", "imagenet", "full"),
    ("film", "none", "frozen"),
    ("film_imagenet", "imagenet", "frozen"),
    ("film", "inpainting", "full"),
]


def test_the_study_of_real_images_runs_what_its_claims_and_comparisons_need_in_equal_numbers():
    study = load_study("camvid_real")
    primary = [claim for claim in study.claims if claim.primary]
    assert [(claim.better, claim.than, claim.mode) for claim in primary] == PRIMARY
    assert {(claim.architecture, claim.num_labelled) for claim in primary} == {("mobilenet_v2", 16)}
    pretraining = pretraining_trials(study)
    parents = {trial.key: trial for trial in pretraining}
    trials = main_trials(study, keys_of(pretraining), {})
    runs = {}
    for trial in trials:
        labels, config = trial.labels, trial.config
        place = labels["architecture"], labels["mode"], labels["num_labelled"]
        runs.setdefault((*place, labels["initialisation"]), []).append(config.run.seed)
        assert config.run.seed == config.data.subset_seed and config.data.subset_size == labels["num_labelled"]
        assert (config.schedule.steps, config.run.eval_every, config.data.val_split) == (600, 50, "val")
        assert config.data.train_options == {"exclude_sequences": ["0016E5"]}
        if trial.parent:
            assert parents[trial.parent].config.run.seed == config.run.seed % 3
    assert {tuple(seeds) for seeds in runs.values()} == {tuple(range(9))}
    whole = {place[-1] for place in runs if place[:-1] == ("mobilenet_v2", "full", 16)}
    assert {init for pair in study.comparisons for init in pair} <= whole
    for better, than, mode in PRIMARY:
        assert {("mobilenet_v2", mode, 16, better), ("mobilenet_v2", mode, 16, than)} <= runs.keys()


def test_initialisations_of_the_study_of_real_images_that_saw_the_test_images_say_so():
    """The val split without labels is the film; its frames are the images that are evaluated."""
    study = load_study("camvid_real")
    assert 'marked "transductive"' in study.summary
    seen = {}
    for trial in pretraining_trials(study):
        seen[trial.key] = trial.config.data.video == "data/camvid/val" or seen.get(trial.parent, False)
    marked = {name for name, init in study.initialisations.items() if "(transductive)" in init.title}
    found = {}
    for trial in main_trials(study, keys_of(pretraining_trials(study)), {}):
        found[trial.labels["initialisation"]] = seen.get(trial.parent, False)
    assert marked == {name for name, transductive in found.items() if transductive}
    for trial in trials_of(study):
        if trial.labels.get("role") == "rate":
            assert trial.config.data.val_split == "train"
            for options in (trial.config.data.train_options, trial.config.data.val_options):
                assert options == {"exclude_sequences": ["0016E5"]}


def test_the_study_of_defects_on_real_images_has_the_pretrainings_of_the_other_one():
    there, here = (
        {trial.key: trial for trial in pretraining_trials(load_study(name))}
        for name in ("camvid_real", "defects_camvid")
    )
    assert len(here) == 3 and here == {key: there[key] for key in here}


def test_folds_of_the_camvid_study_are_tested_on_sequences_that_were_not_trained_on():
    """The frames of CamVid's val split are 0016E5, too."""
    folds = {name: benchmark.folds for name, benchmark in load_study("camvid").benchmarks.items()}
    assert list(folds["sequences"]) == ["0001TP", "0006R0", "0016E5"] and list(folds["val"]) == ["val"]
    for sequence, fold in folds["sequences"].items():
        assert fold["data"]["train_options"]["exclude_sequences"] == [sequence]
        assert fold["data"]["val_split"] == "train" and fold["data"]["val_options"]["sequences"] == [sequence]
    assert folds["val"]["val"]["data"]["train_options"] == {"exclude_sequences": ["0016E5"]}


def test_a_benchmark_without_folds_has_one_and_null_leaves_one_out():
    assert load_study("world").benchmarks["world"].folds == {"test": {}}
    fewer = load_study("camvid", overrides=["benchmarks.sequences.folds.0001TP=null"])
    assert list(fewer.benchmarks["sequences"].folds) == ["0006R0", "0016E5"]
    with pytest.raises(ValueError, match="benchmarks.val requires num_labelled and folds"):
        load_study("camvid", overrides=["benchmarks.val.folds.val=null"])


def test_the_camvid_study_has_the_size_of_the_paper_by_overrides_alone():
    """192x640, a whole ResNet-18, 20000 steps: by its scale, or by options on the command line."""
    one = ["seeds.pretrain=1", "seeds.finetune=1"]
    by_hand = [
        "pretrain.data.size=[192,640]",
        "finetune.data.size=[192,640]",
        "architectures.resnet18_half.model.encoder.width_factor=1.0",
        "pretrain.schedule.steps=20000",
        "initialisations.depth_mono_kitti.pretrain.schedule.steps=20000",
        "finetune.schedule.steps=20000",
    ]
    for study in (load_study("camvid", "paper", one), load_study("camvid", "full", one + by_hand)):
        pretrained = pretraining_trials(study)
        for trial in pretrained + main_trials(study, keys_of(pretrained), {}):
            assert trial.config.model.encoder.get("width_factor", 1.0) == 1.0
            assert trial.config.schedule.steps == 20000
            if trial.labels["initialisation"] != "classification" or trial.kind == "finetune":
                assert list(trial.config.data.size) == [192, 640]


INITIALISATIONS_OF_RECIPES = {
    "classification": "classification",
    "depth_supervised": "supervised",
    "depth_mono": "mono",
    "flow": "flow",
    "inpainting": "inpainting",
}


def test_initialisations_of_the_world_study_are_the_recipes_in_training_configs():
    """The same options but for how a run is logged, shown and stored; so pretext_table.py may use their scores."""
    trials = pretraining_trials(load_study("world"))
    found = {
        trial.labels["initialisation"]: trial.config.to_dict()
        for trial in trials
        if trial.labels["pretrain_seed"] == 0
    }
    for init, name in INITIALISATIONS_OF_RECIPES.items():
        recipe = load_config(CONFIGS / f"pretrain_synthetic_{name}.yaml").to_dict()
        differing = {key for key, value in recipe.pop("run").items() if found[init]["run"][key] != value}
        assert differing <= {"output_dir", "log_every", "trackers", "resume", "report"}
        assert {key: value for key, value in found[init].items() if key != "run"} == recipe, init


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_the_smallest_scale_takes_a_handful_of_steps_and_frames_in_every_initialisation(name):
    scale = "smoke" if "smoke" in load_study(name).scales else "toy"
    for trial in trials_of(load_study(name, scale)):
        assert trial.config.schedule.steps <= 8
        frames = [trial.config.data.train_options.get("count", 0), trial.config.data.val_options.get("count", 0)]
        assert max(frames) <= 16
