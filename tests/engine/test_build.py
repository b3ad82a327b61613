"""From the options of a run to its network."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from depthseg import DepthSegForDepthEstimation, DepthSegImageProcessor
from depthseg.cli import main
from depthseg.data import LabelSpace, Sample
from depthseg.engine.build import build_model, model_config
from depthseg.engine.config import load_config
from depthseg.engine.options import TASK_NAMES, ModelOptions
from depthseg.engine.run import build_transform
from depthseg.engine.tasks import TASKS

CLASSES = SimpleNamespace(label_space=LabelSpace("two", ("low", "high"), ((0, 0, 0), (255, 0, 0))))
ENCODER = "model.encoder={model_type: depthseg_resnet, depth: 18, width_factor: 0.125}"
REFUSED = [
    ("model.min_depth=0", "min_depth is 0.0 and max_depth is 100.0; they must satisfy 0 < min_depth < max_depth"),
    ("model={min_depth: 2, max_depth: 1}", "min_depth is 2.0 and max_depth is 1.0; they must satisfy"),
    ("model.depth_type=metres", r"'depth_type' expected one of \('metric', 'disparity', .*\), got metres"),
    ("model.depth_loss=l3", r"'depth_loss' expected one of \('l1', 'silog', 'ssi'\), got l3"),
    ("model.encoder.depth=19", "depth is 19"),
    ("model.head_type=dpd", "head_type is 'dpd'; allowed are monodepth2, dpt"),
    ("model.head_config={channels: 3}", "head_config has no option channels for head_type 'monodepth2'"),
]


@pytest.mark.parametrize(("override", "words"), REFUSED)
def test_what_the_network_refuses_ends_a_run_with_a_sentence_before_data_is_opened(tmp_path, override, words):
    words_before = [
        "finetune",
        "--config",
        "camvid_fewshot_resnet18",
        ENCODER,
        "model.head_config=null",
        "run.cpu=true",
    ]
    with pytest.raises(SystemExit, match=f"error: .*{words}"):
        main([*words_before, f"data.root={tmp_path}/none", f"run.output_dir={tmp_path}/run", override])
    assert not (tmp_path / "run").exists()


def test_options_of_the_network_reach_its_configuration_and_null_leaves_its_defaults():
    given = {"head_type": "linear", "head_config": {}, "depth_type": "metric", "depth_loss": "silog"}
    given |= {"min_depth": 0.5, "max_depth": 9.0}
    changed = dataclasses.replace(load_config(None, [ENCODER]).model, **given)
    config, default = model_config(changed), model_config(ModelOptions())
    assert {name: getattr(config, name) for name in given if name != "head_config"} == {
        name: value for name, value in given.items() if name != "head_config"
    }
    assert config.encoder_config.width_factor == 0.125
    assert (default.head_type, default.depth_type, default.min_depth) == ("monodepth2", "disparity", 0.1)


def test_every_task_that_the_options_name_has_its_row():
    assert tuple(TASKS) == TASK_NAMES


def test_the_transform_erases_what_the_options_say():
    # 0.001 of 2400 pixels: the centres of two holes, which may overlap or reach over the edge.
    options = ["data.size=[40,60]", "pretext.hole_share=[0.001,0.001]", "pretext.hole_size=4", "data.hflip=0"]
    transform = build_transform(load_config("pretrain_synthetic_inpainting", options), None)
    sample = Sample("grey", np.full((40, 60, 3), 128, np.uint8))
    seen = [transform(sample, np.random.default_rng(seed)).holes.sum() for seed in range(20)]
    assert max(seen) == 2 * 4 * 4 and min(seen) >= 4
    depth = build_transform(load_config("pretrain_synthetic_supervised", options), None)
    assert depth(sample, np.random.default_rng(0)).holes is None


@pytest.mark.parametrize("bare", [False, True])
def test_options_dilate_the_encoder_of_a_checkpoint(tmp_path, bare):
    """Fine-tunings of one study then differ in their weights alone, whatever the encoder of a checkpoint was."""
    depth = DepthSegForDepthEstimation(model_config(load_config(None, [ENCODER]).model))
    if bare:
        depth.save_encoder(tmp_path)
    else:
        depth.save_pretrained(tmp_path)
    DepthSegImageProcessor().save_pretrained(tmp_path)
    dilated = ENCODER.replace("depth: 18", "depth: 18, output_stride: 8")
    given = [f"model.pretrained={tmp_path}", "model.head_type=deeplabv3", "model.head_config={channels: 8}"]
    model, _ = build_model(load_config(None, [dilated, *given]), CLASSES)
    assert model.encoder.strides == (2, 4, 8, 8, 8)
    ours, theirs = (part.encoder.state_dict() for part in (model, depth))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    other = dilated.replace("depthseg_resnet", "depthseg_mobilenet_v2").replace(", depth: 18", "")
    same = build_model(load_config(None, [other, *given]), CLASSES)[0]
    assert same.encoder.strides == (2, 4, 8, 16, 32)
