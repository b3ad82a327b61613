"""What `datasets check` says of depth: its range, and signs that the values are not what they are taken for."""

import os
from pathlib import Path

import numpy as np
import pytest
from data.map_files import ramp, save_depth, save_image

from depthseg.cli import main
from depthseg.data.check import check_dataset

REAL = Path(os.environ.get("DEPTHSEG_DATA", "no data"))


def save_depth_folder(root, depths, ending="png"):
    """Images and depth files of arrays by name, 16-bit or metres."""
    for name, values in depths.items():
        save_image(root / "images" / f"{name}.png", np.shape(values)[::-1])
        (root / "depth").mkdir(exist_ok=True)
        if np.asarray(values).dtype.kind == "f":
            np.save(root / "depth" / f"{name}.npy", values)
        else:
            save_depth(root / "depth" / f"{name}.{ending}", values)
    return root


def test_the_range_of_depth_is_that_of_the_known_pixels(tmp_path):
    near, far = np.arange(256, 25856, 256).reshape(10, 10), np.arange(256, 25856, 256).reshape(10, 10) // 2
    far[:5] = 0
    report = check_dataset("folder", save_depth_folder(tmp_path, {"near": near, "far": far}))
    found = report.splits["all"].depth
    values = np.concatenate([near[near > 0], far[far > 0]]) / 256
    assert (found.low, found.high, found.known) == (1, 100, 0.75)
    assert found.quantiles() == pytest.approx(np.quantile(values, [0.05, 0.5, 0.95]), rel=1e-6)
    line = next(line for line in str(report).splitlines() if line.split()[0] == "all" and line.endswith("75.0%"))
    numbers = [float(word) for word in line.split()[1:-1]]
    assert numbers == pytest.approx([1, *np.quantile(values, [0.05, 0.5, 0.95]), 100], rel=5e-3)
    assert "depth in metres" in str(report) and report.problems == []


def test_large_files_weigh_as_much_as_small_ones_and_are_sampled_evenly(tmp_path):
    depths = {"large": ramp(256, 25600, (300, 400)), "small": ramp(25600, 51200, (40, 50))}
    found = check_dataset("folder", save_depth_folder(tmp_path, depths)).splits["all"].depth
    assert found.sample.size == 2000
    assert found.quantiles() == pytest.approx([10.9, 100, 190], rel=0.01)


@pytest.mark.parametrize(("bits", "share", "reported"), [(16, 0.33, True), (12, 0.02, True), (16, 0.005, False)])
def test_saturated_depth_is_a_problem(tmp_path, bits, share, reported):
    values = ramp(300, 2**bits - 3000)
    values.ravel()[: round(share * values.size)] = 2**bits - 1
    report = check_dataset("folder", save_depth_folder(tmp_path, {"a": values}, "TIF"))
    saturated = [problem for problem in report.problems if "is saturated" in problem]
    assert len(saturated) == reported
    if reported:
        read_as = f"{(2**bits - 1) / 256:g}"
        assert f"{share:.0%} of its pixels have the largest value of {bits} bits, {2**bits - 1}" in saturated[0]
        assert f"which reads as {read_as}" in saturated[0]


def test_depth_that_was_cut_off_is_noted(tmp_path):
    depth = np.minimum(np.linspace(1, 100, 500, dtype=np.float32), 80).reshape(20, 25)
    report = check_dataset("folder", save_depth_folder(tmp_path, {"a": depth}))
    assert report.problems == []
    assert any("have the largest value of the file, 80. If depth was cut off there" in note for note in report.notes)


def test_constant_and_unknown_depth_are_problems(tmp_path):
    flat, empty = np.full((4, 5), 700), np.zeros((4, 5), int)
    depths = {"a": flat, "b": flat, "c": empty, "d": np.full((4, 5), np.nan, np.float32), "e": ramp(300, 900)}
    report = check_dataset("folder", save_depth_folder(tmp_path, depths))
    constant, unknown = report.problems
    assert "a.png has the same depth, 2.73438, in all known pixels. 2 files have this fault: a.png, b.png." in constant
    assert "c.png has no known depth" in unknown and "2 files have this fault: c.png, d.npy." in unknown


def scene(low, high):
    """Depth of which most is near, as in real scenes: a quarter of the way to the end in the median."""
    return (low + (high - low) * np.linspace(0, 1, 500) ** 2).astype(np.uint16).reshape(20, 25)


def unit_sentences(report):
    return [text for text in (*report.problems, *report.notes) if "unit" in text or "Is the" in text]


def test_millimetres_of_a_room_are_questioned(tmp_path):
    root = save_depth_folder(tmp_path, {"a": scene(800, 4500), "b": scene(800, 4500)})
    (question,) = unit_sentences(check_dataset("folder", root))
    assert "Is the unit right? The median depth is 6.74 m at depth_scale=256; the values are at most 4500" in question
    assert "data.options.depth_scale=1000 (millimetres) makes it 1.72 m" in question
    assert unit_sentences(check_dataset("folder", root, depth_scale=1000)) == []


@pytest.mark.parametrize(
    "values",
    [scene(180, 2560), scene(1000, 20480), np.where(np.arange(500).reshape(20, 25) % 25, 0, ramp(760, 9700))],
    ids=["a room in 1/256 m", "a street", "a sparse sweep"],
)
def test_plausible_depth_is_not_questioned(tmp_path, values):
    assert unit_sentences(check_dataset("folder", save_depth_folder(tmp_path, {"a": values}))) == []


def test_impossible_units_are_problems(tmp_path):
    (tmp_path / "far").mkdir()
    far = check_dataset("folder", save_depth_folder(tmp_path / "far", {"a": ramp(800, 4000)}), depth_scale=1)
    (problem,) = far.problems
    assert "The median depth is 2.4e+03 m at depth_scale=1, so the unit is probably another one." in problem
    assert "depth_scale=256 (KITTI) makes it 9.38 m" in problem
    assert "data.options.depth_scale=1000 (millimetres) makes it 2.4 m" in problem
    (tmp_path / "near").mkdir()
    metres = np.linspace(900, 4000, 20, dtype=np.float32).reshape(4, 5)
    (problem,) = check_dataset("folder", save_depth_folder(tmp_path / "near", {"a": metres})).problems
    assert "as the files have it" in problem and "The files must hold metres" in problem


def test_disparity_is_checked_as_the_depth_that_it_makes(tmp_path):
    root = save_depth_folder(tmp_path, {"a": ramp(2560, 25600)})
    (root / "depth").rename(root / "disparity")
    assert any("disparity is not read" in note for note in check_dataset("folder", root).notes)
    found = check_dataset("folder", root, focal_times_baseline=500).splits["all"].depth
    assert (found.low, found.high) == (5, 50)


def test_options_are_given_on_the_command_line(tmp_path, capsys):
    root = save_depth_folder(tmp_path, {"a": ramp(800, 4000), "b": ramp(900, 3500)})
    with pytest.raises(SystemExit) as end:
        main(["datasets", "check", "folder", str(root), "--option", "depth_scale=1000"])
    assert end.value.code == 0
    assert "0.800" in capsys.readouterr().out


real = pytest.mark.skipif(not (REAL / "samples").is_dir(), reason="DEPTHSEG_DATA names no folder with real data")


@real
def test_a_real_drive_is_all_right():
    report = check_dataset("folder", REAL / "kitti_drive")
    assert report.problems == [] and unit_sentences(report) == []
    depth = report.splits["all"].depth
    assert 2 < depth.low < 4 and 79 < depth.high < 80 and 0.03 < depth.known < 0.04


@real
def test_the_millimetres_of_a_real_room_are_questioned(tmp_path):
    (tmp_path / "images").symlink_to(REAL / "samples/rgbd/room/color")
    (tmp_path / "depth").symlink_to(REAL / "samples/rgbd/room/depth")
    (question,) = unit_sentences(check_dataset("folder", tmp_path))
    assert "depth_scale=1000 (millimetres) makes it 1.86 m" in question
    assert unit_sentences(check_dataset("folder", tmp_path, depth_scale=1000)) == []
