"""Runs that train a head of masks: from a depth network to predictions, and micro-batches against the whole batch."""

import json

import numpy as np
import pytest
import torch

from depthseg.data import LabelSpace, Sample
from depthseg.engine.analysis import measure_model
from depthseg.engine.build import build_model
from depthseg.engine.config import load_config
from depthseg.engine.grad_cam import grad_cam
from depthseg.engine.inference import Inference, Predictor
from depthseg.engine.predict import load_model, predict_maps
from depthseg.engine.run import train
from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation, DepthSegImageProcessor

DINOV2 = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
HEAD = "{channels: 32, num_attention_heads: 2, num_layers: 2, num_queries: 8}"


class Scenes:
    """Bright squares and dark bars on grey ground, with an ignored border."""

    label_space = LabelSpace("scenes", ("ground", "square", "bar"), ((0, 0, 0), (0, 255, 0), (255, 0, 0)))
    names = [f"scene_{index}" for index in range(6)]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        labels = np.zeros((56, 84), np.uint8)
        top, left = rng.integers(4, 24), rng.integers(4, 30)
        labels[top : top + 24, left : left + 24] = 1
        labels[:, 64 + index % 3 : 78] = 2
        grey = np.array([120, 220, 20])[labels][..., None] + rng.integers(-10, 10, (56, 84, 3))
        labels[:3] = 255
        return Sample(self.names[index], grey.clip(0, 255).astype(np.uint8), labels)


class Unequal(Scenes):
    """Of one image little is labelled, of another one nothing, of others nearly all."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        sample.labels[: (3, 50, 56, 20, 8, 35)[index]] = 255
        return sample


def options(tmp_path, **changes) -> list[str]:
    given = {
        **{"data.size": "[56,84]", "optim.batch_size": 4, "optim.lr": 3e-3, "data.hflip": 0, "run.cpu": "true"},
        **{"run.trackers": "[]", "run.report": "false", "run.select": "last"},
        **{"model.head_type": "mask_queries", "model.head_config": HEAD, "run.output_dir": tmp_path / "run"},
    }
    return [f"{name}={value}" for name, value in (given | changes).items()]


def test_from_a_frozen_depth_network_to_predictions(tmp_path):
    torch.manual_seed(0)
    depth = DepthSegForDepthEstimation(DepthSegConfig(encoder_config=DINOV2, head_type="linear"))
    for part in (depth, DepthSegImageProcessor()):
        part.save_pretrained(tmp_path / "depth")
    changes = {"model.pretrained": tmp_path / "depth", "model.freeze_encoder": "true", "model.head_init": "random"}
    changes |= {"schedule.steps": 80, "run.eval_every": 40}
    result = train(load_config(None, options(tmp_path, **changes)), Scenes(), Scenes())
    first, last = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert 0 < last["train_loss"] < first["train_loss"]
    model, processor = load_model(result.model_dir, device="cpu")
    both, either = np.zeros(3), np.zeros(3)
    for sample in (Scenes()[index] for index in range(6)):
        ids, known = predict_maps(model, processor, sample.image)[0], sample.labels != 255
        for index in range(3):
            both[index] += ((ids == index) & (sample.labels == index))[known].sum()
            either[index] += ((ids == index) | (sample.labels == index))[known].sum()
    assert result.scores["mean_iou"] == pytest.approx((both / either).mean()) and result.scores["mean_iou"] > 0.6
    # The same decision where probabilities of windows and mirrored images are averaged, on this one window.
    predictor = Predictor(model, processor, Scenes()[0].image)
    probable = predictor.probabilities(Inference(), (56, 84))
    torch.testing.assert_close(probable.sum(0), torch.ones(56, 84))
    assert (probable.argmax(0).numpy() == predict_maps(model, processor, Scenes()[0].image)[0]).all()
    # And calibrated numbers that are no constant, heat that is finite.
    confidence = predictor.confidence(Inference(), (56, 84))
    assert 1 / 3 < confidence.min() < confidence.max() <= 1 and np.ptp(confidence) > 0.1
    pixel_values = processor(images=[Scenes()[0].image], return_tensors="pt")["pixel_values"]
    heat = grad_cam(model, pixel_values)
    assert heat.isfinite().all() and heat.max() > 0
    measured = measure_model(model, processor, Scenes(), ["cam_boundary_alignment"])
    assert 0 <= measured["cam_boundary_alignment"] <= 1


def test_micro_batches_give_the_loss_of_the_whole_batch(tmp_path):
    """All pixels of these images are compared, so that nothing is drawn; a mean of means would be another number."""
    losses = {}
    for parts in (1, 4):
        changes = {"model.encoder": DINOV2, "optim.accumulation_steps": parts, "schedule.steps": 2}
        changes |= {"run.output_dir": tmp_path / str(parts)}
        train(load_config(None, options(tmp_path, **changes)), Unequal(), Scenes())
        lines = (tmp_path / str(parts) / "metrics.jsonl").read_text().splitlines()
        losses[parts] = json.loads(lines[-1])["train_loss"]
    assert losses[4] == pytest.approx(losses[1], rel=1e-4)


def test_the_recipe_of_table_6_builds_the_published_network(tmp_path):
    """A small encoder that reads its last four blocks, as Depth Anything's large one does."""
    small = DINOV2 | {"num_hidden_layers": 6, "out_indices": [3, 4, 5, 6]}
    depth = DepthSegForDepthEstimation(DepthSegConfig(encoder_config=small, head_type="linear"))
    for part in (depth, DepthSegImageProcessor()):
        part.save_pretrained(tmp_path)
    config = load_config("cityscapes_depth_anything_mask2former", [f"model.pretrained={tmp_path}"])
    config.model.head_config = {**config.model.head_config, "pixel_layers": 1, "pixel_feedforward": 32}
    config.model.head_config |= {"channels": 64, "decoder_feedforward": 32}
    model, _ = build_model(config, Scenes())
    assert model.head.pyramid.strides == (3.5, 7.0, 14.0, 28.0)
    transformer = model.head.decoders.transformer_module
    assert len(transformer.decoder.layers) == 9 and transformer.queries_features.weight.shape == (200, 64)
    assert model.head.decoders.pixel_decoder.encoder.layers[0].self_attn.n_heads == 32
    weights = vars(model.head.loss_weights)
    assert weights == {
        **{"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 5.0, "no_object_weight": 0.1},
        "num_points": 12544,
    }
