"""Which frames to label: the choice against trying all, and the command on a film of known scenes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from depthseg.cli import main
from depthseg.data.coverage import coverage_order
from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation, DepthSegImageProcessor


def mean_similarity(features, chosen):
    """By the definition, in float64."""
    total = 0.0
    for row in features:
        total += max(
            (1 + row @ features[each] / np.linalg.norm(row) / np.linalg.norm(features[each])) / 2 for each in chosen
        )
    return total / len(features)


@pytest.mark.parametrize("seed", range(5))
def test_a_choice_is_nearly_as_good_as_the_best_of_all(seed):
    features = np.random.default_rng(seed).normal(size=(12, 3))
    order = coverage_order(features, 12)
    assert sorted(order) == list(range(12))
    for count in (1, 2, 3):
        assert coverage_order(features, count) == order[:count]
        best = max(mean_similarity(features, each) for each in combinations(range(12), count))
        found = mean_similarity(features, order[:count])
        assert found <= best + 1e-9
        assert found >= (best - 1e-6 if count == 1 else (1 - 1 / np.e) * best)
        # The last choice raises the mean as much as any other would have.
        others = [mean_similarity(features, [*order[: count - 1], each]) for each in range(12)]
        assert found == pytest.approx(max(others), abs=1e-6)


def test_the_largest_group_comes_first_and_each_has_one():
    angles = np.radians([0, 5, 10, 120, 125, 240])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[1], [9], [1], [2], [1], [1]]
    assert coverage_order(features, 1)[0] in (0, 1, 2)
    assert {{0: 0, 1: 0, 2: 0, 3: 1, 4: 1, 5: 2}[each] for each in coverage_order(features, 3)} == {0, 1, 2}


@pytest.mark.parametrize(
    ("features", "count", "said"),
    [(np.ones((3, 2)), 4, "there are 3"), (np.ones((3, 2)), 0, "ask for 1"), (np.full((3, 2), np.nan), 1, "finite")],
)
def test_what_cannot_be_chosen_is_said(features, count, said):
    with pytest.raises(ValueError, match=said):
        coverage_order(features, count)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    config = DepthSegConfig(encoder_config={"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125})
    DepthSegForDepthEstimation(config).save_pretrained(folder)
    DepthSegImageProcessor(size={"height": 32, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture
def frames(tmp_path):
    """A folder of 12 frames of three scenes."""
    (tmp_path / "film").mkdir()
    rng = np.random.default_rng(0)
    scenes = [rng.integers(0, 256, (32, 64, 3)) for _ in range(3)]
    for number in range(12):
        pixels = scenes[number // 4] + rng.integers(0, 3, (32, 64, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / "film" / f"{number:03d}.png")
    return tmp_path / "film"


def test_one_frame_of_each_scene_is_written(model, frames, tmp_path, capsys):
    out = tmp_path / "to_label"
    with pytest.raises(SystemExit) as ended:
        main(["datasets", "choose", str(frames), "--model", str(model), "--count", "3", "--out", str(out)])
    assert not ended.value.code
    names = capsys.readouterr().out.split()
    assert sorted(int(name.split("/")[-1]) // 4 for name in names) == [0, 1, 2]
    files = sorted(out.iterdir())
    assert [file.name for file in files] == sorted(f"{name.replace('/', '_')}.png" for name in names)
    for file in files:
        original = np.asarray(Image.open(frames / f"{file.stem.split('_')[-1]}.png"))
        assert np.array_equal(np.asarray(Image.open(file)), original)


def test_a_folder_with_files_is_left_alone(model, frames):
    with pytest.raises(SystemExit) as ended:
        main(["datasets", "choose", str(frames), "--model", str(model), "--out", str(frames)])
    assert "holds files; name a new or an empty folder" in ended.value.code
    assert len(list(frames.iterdir())) == 12
