"""Neither too hard nor too easy: what a network without pre-training learns from 16 labelled frames."""

import numpy as np
import pytest
import torch

from depthseg.data.synthetic import render
from depthseg.models.configuration_depthseg import DepthSegConfig
from depthseg.models.modeling_depthseg import DepthSegForSemanticSegmentation

SIZE = (64, 192)


def frames(seed, count):
    found = [render(seed, index, SIZE, outputs=("image", "labels")) for index in range(count)]
    images = np.stack([frame["image"] for frame in found]).transpose(0, 3, 1, 2) / 255.0
    labels = torch.from_numpy(np.stack([frame["labels"] for frame in found]).astype(np.int64))
    return (torch.from_numpy(images).float() - 0.45) / 0.225, labels


@pytest.mark.heavy
def test_random_initialisation_with_16_labels_lands_between_30_and_65_percent():
    torch.manual_seed(0)
    encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.5}
    config = DepthSegConfig(encoder_config=encoder, head_type="monodepth2", num_labels=11)
    model = DepthSegForSemanticSegmentation(config).train()
    images, labels = frames(0, 16)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=300, pct_start=0.1)
    for step in range(300):
        chosen = torch.randperm(16)[:8]
        flip = (-1,) if step % 2 else ()
        loss = model(pixel_values=images[chosen].flip(flip), labels=labels[chosen].flip(flip)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    images, labels = frames(2, 100)
    with torch.no_grad():
        logits = torch.cat([model(pixel_values=batch).logits for batch in images.split(10)])
    predicted = torch.nn.functional.interpolate(logits, SIZE, mode="bilinear", align_corners=False).argmax(1)
    scores = [
        (((predicted == k) & (labels == k)).sum() / ((predicted == k) | (labels == k)).sum()).item() for k in range(11)
    ]
    assert 0.30 < np.mean(scores) < 0.65
