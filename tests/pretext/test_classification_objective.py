"""The objective of classification: cross-entropy by hand, and who is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models.tiny_models import NUM_LABELS, tiny_model

from depthseg.pretext import ClassificationObjective


def batch_of(number: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(number) % NUM_LABELS
    return {"pixel_values": torch.randn(number, 3, 37, 50, generator=generator), "labels": labels}


@pytest.mark.parametrize("encoder", ["depthseg_resnet", "vit"])
@torch.no_grad()
def test_loss_is_cross_entropy_and_parts_add_up(encoder):
    model = tiny_model("classification", encoder, "linear").eval()
    objective, batch = ClassificationObjective(model), batch_of()
    counts = objective.count_valid(batch)
    assert counts.tolist() == [6] and counts.dtype == torch.int64
    logits = model(batch["pixel_values"]).logits.double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log(shares[np.arange(6), batch["labels"].numpy()]).mean()
    assert float(objective(batch)["loss"]) == pytest.approx(expected, rel=1e-5)
    parts = [objective({k: v[i : i + 3] for k, v in batch.items()}, counts)["loss"] for i in (0, 3)]
    assert float(sum(parts)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
def test_exactly_the_trainable_parameters_get_a_gradient(frozen):
    model = tiny_model("classification").train()
    if frozen:
        model.freeze_encoder()
    with torch.autocast("cpu", torch.bfloat16):
        loss = ClassificationObjective(model)(batch_of())["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert {name.partition(".")[0] for name in reached} == {"pretext_head"} | (set() if frozen else {"encoder"})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            torch.zeros(6, 37, 50, dtype=torch.int64),
            r"labels has shape \(6, 37, 50\); expected \(6,\): one id per image",
        ),
        (torch.tensor([0, 1, 2, 3, 4, 5]), r"the ids \[0, 1, 2, 3, 4, 5\], but the model has the ids 0 to 4"),
        (torch.tensor([0, 1, 2, 3, 4, -1]), r"the ids \[-1, 0, 1, 2, 3, 4\], but the model has the ids 0 to 4"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        ClassificationObjective(tiny_model("classification").eval())(batch_of() | {"labels": labels})
