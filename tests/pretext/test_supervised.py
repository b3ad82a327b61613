"""The objective of labels, alone and together with depth."""

import pytest
import torch

from depthseg import DepthSegConfig, DepthSegForSemanticSegmentation
from depthseg.pretext import SupervisedObjective


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = DepthSegConfig(
        encoder_config={"model_type": "depthseg_resnet", "width_factor": 0.125},
        head_config={"decoder_channels": [8, 8, 8, 8, 8]},
        num_labels=3,
        keep_depth=True,
        min_depth=1.0,
        max_depth=50.0,
    )
    return DepthSegForSemanticSegmentation(config).eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    depth = 1 + 20 * torch.rand(2, 32, 64)
    depth[0, :10] = 0
    depth[1, 3, 4] = float("nan")
    labels = torch.randint(0, 3, (2, 32, 64))
    labels[0, :4] = 255
    return {"pixel_values": torch.randn(2, 3, 32, 64), "labels": labels, "depth": depth}


def test_joint_loss_is_cross_entropy_plus_weighted_l1(model, batch):
    objective = SupervisedObjective(model, depth_weight=0.3)
    counts = objective.count_valid(batch)
    assert counts.tolist() == [2 * 32 * 64 - 4 * 64, 2 * 32 * 64 - 10 * 64 - 1]
    with torch.no_grad():
        parts = objective(batch, counts)
        output = model(batch["pixel_values"])
    log_p = output.logits.double().log_softmax(1)
    known = batch["labels"] != 255
    picked = log_p.gather(1, batch["labels"].where(known, torch.zeros(()).long())[:, None])[:, 0]
    label_loss = -picked[known].sum() / counts[0]
    measured = torch.isfinite(batch["depth"]) & (batch["depth"] > 0)
    depth_loss = (output.predicted_depth - batch["depth"])[measured].abs().double().sum() / counts[1]
    assert float(parts["loss"]) == pytest.approx(float(label_loss + 0.3 * depth_loss), rel=1e-5)
    assert float(parts["label_loss"]) == pytest.approx(float(label_loss), rel=1e-5)


def test_halves_with_the_whole_count_add_up(model, batch):
    objective = SupervisedObjective(model, depth_weight=0.3)
    counts = objective.count_valid(batch)
    with torch.no_grad():
        whole = objective(batch, counts)["loss"]
        halves = [{name: values[i : i + 1] for name, values in batch.items()} for i in range(2)]
        parts = [objective(half, counts)["loss"] for half in halves]
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-6)


def test_only_what_learns_gets_a_gradient(model, batch):
    alone = SupervisedObjective(model)
    alone(batch)["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in model.depth_predictor.parameters())
    joint = SupervisedObjective(model, depth_weight=1.0)
    joint(batch)["loss"].backward()
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert "depth_predictor.0.conv.weight" in trainable and "depth_predictor.1.conv.weight" not in trainable
    assert all(model.get_parameter(name).grad is not None for name in trainable)


def test_depth_labels_need_a_kept_predictor(batch):
    config = DepthSegConfig(encoder_config={"model_type": "depthseg_resnet", "width_factor": 0.125}, num_labels=3)
    with pytest.raises(ValueError, match="keep_depth"):
        DepthSegForSemanticSegmentation(config)(batch["pixel_values"], depth_target=batch["depth"])


def test_half_precision_weights_take_float32_images(model, batch, tmp_path):
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    loaded = DepthSegForSemanticSegmentation.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    with torch.no_grad():
        output = loaded(batch["pixel_values"])
    assert output.logits.dtype == torch.bfloat16 and output.logits.isfinite().all()
