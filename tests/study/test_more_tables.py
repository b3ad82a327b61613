"""Tables 5 and 6 and figures 6 and 8 of Lao et al. 2024 as studies."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    Dinov2Model,
    ViTMAEConfig,
    ViTMAEForPreTraining,
)

from depthseg.cli import main
from depthseg.data import LabelSpace
from depthseg.engine.build import build_model
from depthseg.study.options import load_study
from depthseg.study.runner import trials_in_order
from depthseg.study.stored import read_record
from depthseg.study.trials import located

STUDIES = ("table5", "table6", "fig6", "fig8")

# Mean IoU and pixel accuracy: full training on train and val, controlled training on train and val.
TABLE5 = {
    "none": [(76.10, 95.41), (63.97, 93.76), (73.82, 95.26), (60.43, 93.07)],
    "imagenet": [(81.84, 96.46), (70.41, 95.75), (76.70, 95.71), (61.80, 93.40)],
    "depth": [(83.46, 96.80), (73.17, 95.24), (77.42, 95.82), (62.57, 93.46)],
    "depth_cropped": [(86.80, 97.41), (72.22, 95.01), (79.90, 96.24), (65.09, 94.00)],
}
TABLE5_COLUMNS = [("full", "train"), ("full", "test"), ("controlled", "train"), ("controlled", "test")]

# ADE20K, VOC and Cityscapes, each fine-tuned and linear.
TABLE6 = {
    "mae": [53.6, 49.0, None, 67.6, None, 58.4],
    "dinov2": [58.1, 47.7, 86.5, 86.3, 82.7, 71.3],
    "depth_anything": [59.7, 52.3, 87.7, 87.3, 84.8, 74.8],
}
TABLE6_COLUMNS = [(benchmark, mode) for benchmark in ("ade20k", "voc", "cityscapes") for mode in ("full", "linear")]


def trials_of(name, *overrides, scale="full"):
    return list(trials_in_order(load_study(name, scale, overrides), Path("nowhere")))


def tuned(name, **labels):
    """The fine-tunings of a study at full scale."""
    trials = [trial for trial in trials_of(name) if trial.kind == "finetune"]
    return [trial for trial in trials if all(trial.labels[part] == value for part, value in labels.items())]


def pretrained(name, **labels):
    trials = [trial for trial in trials_of(name) if trial.kind == "pretrain"]
    return [trial for trial in trials if all(trial.labels[part] == value for part, value in labels.items())]


def place_of(entry):
    return tuple(entry[part] for part in ("initialisation", "architecture", "mode", "benchmark", "num_labelled"))


def test_the_numbers_of_table_5():
    cells = load_study("table5").paper.cells
    found = {(cell.initialisation, cell.mode, cell.images): (cell.mean_iou, cell.pixel_accuracy) for cell in cells}
    expected = {
        (init, *column): pair
        for init, pairs in TABLE5.items()
        for column, pair in zip(TABLE5_COLUMNS, pairs, strict=True)
    }
    assert found == expected and len(cells) == 16


def test_the_numbers_of_table_6():
    cells = load_study("table6").paper.cells
    found = {(cell.initialisation, cell.benchmark, cell.mode): cell.mean_iou for cell in cells}
    expected = {
        (init, *column): number
        for init, row in TABLE6.items()
        for column, number in zip(TABLE6_COLUMNS, row, strict=True)
        if number is not None
    }
    assert found == expected and len(cells) == 16
    assert all(cell.pixel_accuracy is None for cell in cells)


@pytest.mark.parametrize("name", ["fig6", "fig8"])
def test_figures_have_no_numbers_and_say_so(name):
    paper = load_study(name).paper
    assert all(cell.mean_iou is cell.pixel_accuracy is None for cell in paper.cells)
    assert paper.not_in_text[0].startswith("All numbers")


@pytest.mark.parametrize("scale", ["full", "toy"])
@pytest.mark.parametrize("name", STUDIES)
def test_what_is_run_is_what_the_paper_shows(name, scale):
    study = load_study(name, scale)
    places = {place_of(trial.labels) for trial in trials_of(name, scale=scale) if trial.kind == "finetune"}
    assert places == {place_of(vars(cell)) for cell in study.paper.cells}
    assert study.paper.source.startswith("Lao et al. 2024") and len(study.paper.not_in_text) >= 3


@pytest.mark.parametrize("name", STUDIES)
def test_the_toy_scale_reads_no_real_data_and_no_given_weights(name):
    study = load_study(name, "toy")
    for trial in trials_of(name, scale="toy"):
        assert trial.config.data.root.startswith("data/toy/") and trial.config.model.pretrained is None
        assert trial.config.schedule.steps <= 4 and max(trial.config.data.size) <= 96
    assert all(folder.startswith("data/toy/") for folder in study.miniatures)
    assert not load_study(name).miniatures


def test_table_5_trains_deeplabv3_as_the_released_script():
    for trial in tuned("table5"):
        data, optim, schedule = trial.config.data, trial.config.optim, trial.config.schedule
        assert (data.name, data.train_split, data.val_split, data.subset_size) == ("cityscapes", "train", "val", 2975)
        assert (data.size, data.random_crop, data.hflip) == ([512, 512], True, 0.5)
        assert (optim.name, optim.momentum, optim.weight_decay, optim.batch_size) == ("sgd", 0.9, 1e-4, 32)
        assert (schedule.name, schedule.power) == ("poly", 0.9)
        is_full = trial.labels["mode"] == "full"
        assert (data.colour_jitter, schedule.steps) == ((0.5, 50000) if is_full else (0.0, 15000))
        assert optim.lr == (0.1 if trial.labels["initialisation"].startswith("depth") else 0.01)
        model = trial.config.model
        assert (model.encoder["output_stride"], model.head_type, model.head_init) == (16, "deeplabv3", "pretrained")


def test_depth_of_table_5_is_of_other_images_after_imagenet():
    sizes = {}
    for trial in pretrained("table5"):
        config = trial.config
        sizes[trial.labels["initialisation"]] = config.data.size
        assert (config.data.train_split, config.data.random_crop, config.data.options["depth"]) == (
            *("train_extra", True, True),
        )
        assert (config.model.depth_loss, config.model.min_depth, config.model.max_depth) == ("l1", 1.0, 100.0)
        assert config.model.pretrained == "data/resnet50_imagenet"
    assert sizes == {"depth": [576, 640], "depth_cropped": [256, 256]}
    random = trials_of("table5", "initialisations.depth.after=null")
    assert [t.config.model.pretrained for t in random if t.labels["initialisation"] == "depth"][0] is None


def test_table_6_fine_tunes_as_depth_anything_and_probes_frozen_encoders():
    steps = {"ade20k": (160000, 20210), "voc": (40000, 10582), "cityscapes": (80000, 2975)}
    for trial in tuned("table6"):
        optim, schedule, data = trial.config.optim, trial.config.schedule, trial.config.data
        assert (schedule.steps, data.subset_size) == steps[trial.labels["benchmark"]]
        assert data.size == ([512, 512] if data.name == "voc" else [896, 896])
        assert data.train_split == ("trainaug" if data.name == "voc" else "train")
        assert (schedule.name, schedule.power, schedule.warmup_steps, optim.batch_size) == ("poly", 1.0, 1500, 16)
        model = trial.config.model
        if trial.labels["mode"] == "full":
            assert (optim.lr, optim.encoder_lr_factor, optim.weight_decay, optim.max_grad_norm) == (
                3e-5,
                0.1,
                0.05,
                0.01,
            )
            assert model.head_type == "mask2former" and not model.freeze_encoder
        else:
            assert (model.head_type, model.freeze_encoder, optim.lr) == ("linear", True, 1e-3)
        assert model.encoder["out_indices"] == [21, 22, 23, 24]
        assert model.encoder["model_type"] == ("vit_mae" if trial.labels["initialisation"] == "mae" else "dinov2")
    assert Counter(trial.labels["initialisation"] for trial in tuned("table6")) == {
        **{"mae": 4, "dinov2": 6, "depth_anything": 6},
    }


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folders such as those on the Hub, of tiny networks with random weights."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 14, "image_size": 28}
    dinov2 = Dinov2Config(**size, mlp_ratio=2)
    backbone = Dinov2Config(**size, mlp_ratio=2, out_indices=[1, 2, 3, 4], reshape_hidden_states=False)
    neck = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "head_hidden_size": 8, "reassemble_hidden_size": 16}
    decoder = {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    models = {
        "mae": ViTMAEForPreTraining(
            ViTMAEConfig(**size, intermediate_size=32, decoder_intermediate_size=8, **decoder)
        ),
        "dinov2": Dinov2Model(dinov2),
        "depth_anything": DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=backbone, **neck)),
    }
    scaling = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3}
    for name, model in models.items():
        model.save_pretrained(folder / name)
        processor = {"image_processor_type": "DPTImageProcessor", **scaling, "image_std": [0.25] * 3}
        (folder / name / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder, models


@pytest.mark.parametrize("mode", ["full", "linear"])
@pytest.mark.parametrize("init", TABLE6)
def test_table_6_begins_with_published_weights(init, mode, published):
    folder, models = published
    overrides = [
        f"initialisations.{name}={{checkpoint: {folder / name}, pretrain: null, after: null}}" for name in TABLE6
    ]
    (trial,) = (
        trial
        for trial in trials_of("table6", *overrides, scale="toy")
        if place_of(trial.labels)[0::2] == (init, mode, 4) and trial.labels["benchmark"] == "ade20k"
    )
    space = LabelSpace("two", ("low", "high"), ((0, 0, 0), (255, 0, 0)))
    images = SimpleNamespace(label_space=space)
    model, _ = build_model(trial.config, images)
    assert model.transfer_report.parts[0].status == "taken"
    ours = dict(model.encoder.backbone.named_parameters())
    theirs = dict(models[init].named_parameters())
    weight = next(name for name in theirs if name.endswith("embeddings.cls_token"))
    assert torch.equal(ours["embeddings.cls_token"], theirs[weight])
    assert model.encoder.backbone.config.out_indices == [1, 2, 3, 4]
    assert all(parameter.requires_grad for parameter in model.head.parameters())
    trained = [parameter.requires_grad for parameter in ours.values()]
    assert any(trained) == (mode == "full")


def test_figure_6_looks_at_the_networks_of_table_1():
    for scale in ("full", "toy"):
        table = {trial.key: trial.labels for trial in trials_of("table1", scale=scale)}
        figure = trials_of("fig6", scale=scale)
        assert {trial.key for trial in figure} <= table.keys()
        rows = {trial.labels["initialisation"] for trial in figure if trial.kind == "finetune"}
        assert rows == {"none", "imagenet", "depth_rand", "depth"}
        assert {trial.labels["architecture"] for trial in figure} == {"resnet18"}
        assert load_study("fig6", scale).measures == ["cam_boundary_alignment", "grad_cam"]


def test_figure_8_has_curves_of_both_networks():
    for trial in tuned("fig8"):
        data, run = trial.config.data, trial.config.run
        assert (data.name, data.train_split, data.val_split, data.subset_size) == ("nyuv2", "train", "test", 795)
        assert data.options == {"classes": 40, "depth": "none", "crop": True}
        assert (trial.config.schedule.steps, run.eval_every) == (20000, 1000)
        if trial.labels["initialisation"] == "imagenet":
            assert trial.config.model.pretrained == f"data/{trial.labels['architecture']}_imagenet"
    depth = {trial.labels["architecture"]: trial.config for trial in pretrained("fig8")}
    assert set(depth) == {"resnet18", "resnet50"}
    for architecture, config in depth.items():
        assert config.schedule.steps == 10 * 407024 // 8 and config.optim.batch_size == 8
        assert (config.data.size, config.model.max_depth) == ([384, 448], 10.0)
        assert config.model.pretrained == f"data/{architecture}_imagenet"


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """The output directory of each study at toy scale; all read the same miniatures."""
    folder, done = tmp_path_factory.mktemp("toys"), {}

    def run(name):
        if name not in done:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                options = ["pretrain.run.cpu=true", "finetune.run.cpu=true", "--output-dir", name]
                with pytest.raises(SystemExit) as end:
                    main(["study", name, "--scale", "toy", *options])
                assert not end.value.code
            done[name] = folder / name
        return done[name]

    return run


@pytest.mark.heavy
@pytest.mark.parametrize("name", STUDIES)
def test_each_cell_is_run_and_says_that_it_is_a_toy(name, toys):
    out = toys(name)
    numbers = json.loads((out / "report" / "results.json").read_text())
    rows = numbers["paper"]["cells"]
    assert len(rows) == len(load_study(name, "toy").paper.cells) and numbers["missing"] == []
    for row in rows:
        assert row["status"] == "toy only" and row["runs"] == 1
        record = read_record(out / "trials" / f"{row['records'][0]}.json")
        if row["images"] == "test":
            for score in ("mean_iou", "pixel_accuracy"):
                assert row[score]["mean"] == pytest.approx(100 * record["scores"][score])
        else:
            assert row["mean_iou"]["mean"] == pytest.approx(100 * record["measures"]["training_images"]["train"])
    report = (out / "report" / "report.md").read_text()
    assert "no statement about the paper" in report and "## Beside the paper" in report


@pytest.mark.heavy
def test_table_5_replaces_the_last_layer_of_depth_at_output_stride_16(toys):
    space = LabelSpace("two", ("low", "high"), ((0, 0, 0), (255, 0, 0)))
    images = SimpleNamespace(label_space=space)
    statuses = {}
    for trial in trials_of("table5", scale="toy"):
        if trial.labels.get("mode") == "full" and trial.parent is not None:
            config = located(trial, toys("table5"))
            config = replace(config, data=replace(config.data, random_crop=False))  # the size of the processor
            model, _ = build_model(config, images)
            assert model.encoder.strides[-1] == 16
            statuses[trial.labels["initialisation"]] = [(p.part, p.status) for p in model.transfer_report.parts][:3]
    depth = [("encoder", "taken"), ("head", "taken"), ("classifier", "new")]
    assert statuses == {
        "imagenet": [("encoder", "taken"), ("head", "new"), ("classifier", "new")],
        **{"depth": depth, "depth_cropped": depth},
    }


@pytest.mark.heavy
def test_figures_6_and_8_are_drawn(toys):
    report = (toys("fig6") / "report" / "report.md").read_text()
    assert "## Grad-CAM\n" in report and (toys("fig6") / "report" / "figures" / "grad_cam0.png").is_file()
    numbers = json.loads((toys("fig8") / "report" / "results.json").read_text())
    assert [row["steps"] for row in numbers["curves"]] == [[2, 4]] * 6
