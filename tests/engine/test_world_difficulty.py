"""The world is neither too hard nor too easy: what a network without pre-training learns from 16 labelled frames.

The README gives the score after 600 steps, 30 %; here that after 320 is held against what colour alone and place alone
give.
"""

import pytest

from depthseg.data.synthetic import SyntheticWorld
from depthseg.engine.options import DataOptions, ModelOptions, OptimOptions, RunConfig, RunOptions, ScheduleOptions
from depthseg.engine.run import train
from depthseg.metrics.baselines import ColourClassifier, PositionPrior, score_segmentation_baseline


@pytest.mark.heavy
def test_16_labels_teach_more_than_colour_and_place_and_leave_room_for_better(tmp_path):
    size = (64, 192)
    train_set = SyntheticWorld(tmp_path / "world", "train", count=200, size=size, outputs=("image", "labels"))
    test_set = SyntheticWorld(tmp_path / "world", "test", count=100, size=size, outputs=("image", "labels"))
    config = RunConfig(
        model=ModelOptions(
            encoder={"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.5},
            head_config={"decoder_channels": [8, 16, 32, 64, 128]},
        ),
        data=DataOptions(size=list(size), subset_size=16, crop_scale=[0.6, 1.0], colour_jitter=0.3),
        optim=OptimOptions(lr=1e-3, batch_size=8),
        schedule=ScheduleOptions(steps=320, warmup_steps=32),
        run=RunOptions(output_dir=str(tmp_path / "run"), select="last"),
    )
    scores = train(config, train_set, test_set).scores
    shortcuts = [
        score_segmentation_baseline(baseline(train_set), test_set)["mean_iou"]
        for baseline in (ColourClassifier, PositionPrior)
    ]
    assert max(shortcuts) < 0.25
    assert max(shortcuts) + 0.05 < scores["mean_iou"] < 0.65
