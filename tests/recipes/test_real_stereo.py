"""The stereo recipe on one real pair with its true disparity: Middlebury's motorcycle."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from depthseg.cli import main
from depthseg.data import load_dataset
from depthseg.engine.predict import load_model, predict_maps

CONFIG = Path(__file__).parents[2] / "training" / "configs" / "pretrain_stereo_pair.yaml"
PAIR = Path(os.environ.get("DEPTHSEG_DATA", "")) / "stereo_motorcycle"


@pytest.fixture
def pair(tmp_path):
    for folder, file in (("left", "left.png"), ("right", "right.png"), ("disparity", "disp.npz")):
        (tmp_path / "pair" / folder).mkdir(parents=True)
        ending = Path(file).suffix
        shutil.copy(PAIR / f"motorcycle_{file}", tmp_path / "pair" / folder / f"motorcycle{ending}")
    return tmp_path / "pair"


@pytest.mark.heavy
@pytest.mark.skipif(not PAIR.is_dir(), reason="DEPTHSEG_DATA names no folder that holds stereo_motorcycle/")
def test_a_fit_of_one_pair_finds_its_disparity(pair, tmp_path):
    # Smaller than the recipe has it, for the sake of time.
    options = [f"data.root={pair}", f"run.output_dir={tmp_path / 'run'}", "data.size=[96,144]", "schedule.steps=300"]
    with pytest.raises(SystemExit) as exit_info:
        main(["pretrain", "--config", str(CONFIG), *options])
    assert exit_info.value.code is None
    sample = load_dataset("stereo", pair, "all")[0]
    _, depth = predict_maps(*load_model(tmp_path / "run" / "model"), sample.image)
    known = sample.depth > 0
    focal = sample.intrinsics[0, 0] * abs(sample.stereo_x)
    error = np.abs(focal / depth - focal / sample.depth.clip(1e-6))[known]
    assert np.median(error) <= 3
    assert (error > 4).mean() <= 0.25
    # The best that can be said without looking: one disparity for all.
    truth = (focal / sample.depth.clip(1e-6))[known]
    constant = min(np.median(np.abs(truth - guess)) for guess in np.unique(truth.round()))
    assert np.median(error) < 0.5 * constant
