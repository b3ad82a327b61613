"""The studies that come with depthseg, at smoke scale, through the command."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
COMMAND, ENVIRONMENT = Path(sys.executable).with_name("depthseg"), os.environ | {"PYTHONPATH": str(REPOSITORY)}
MOMENTS = (5, 5, 6)
"""Trials that are begun before each kill; of the 19 trials, the last 8 are those that are reported."""

IN_OTHERS = ("initialisations.classification=null", "initialisations.depth_supervised=null")
"""Initialisations of the study of the world that are run by those that extend it."""

LIMIT = 1200
"""Seconds after which something hangs."""

pytestmark = pytest.mark.heavy


def launch(name, out, world, log, *overrides):
    """Begin or continue a study; what it says goes to the end of a file."""
    options = ["pretrain.run.cpu=true", "finetune.run.cpu=true", *overrides]
    command = [COMMAND, "study", name, "--scale", "smoke", "--output-dir", str(out)]
    return subprocess.Popen([*command, *options], cwd=world, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT)


def finish(process, log, limit):
    code = process.wait(timeout=limit)
    assert code == 0, Path(log.name).read_text()[-3000:]


def begun(log):
    """Keys of the trials that were begun, in order."""
    return re.findall(r"trial (\w+):", Path(log.name).read_text())


def records(out):
    """File -> when and what was written."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (out / "trials").glob("*")}


def check_report(out, name):
    keys = json.loads((out / "plan.json").read_text())["keys"]
    assert {path.stem for path in (out / "trials").glob("*.json")} == set(keys)
    report = (out / "report" / "report.md").read_text()
    heading = name.replace("_", r"\_")
    assert report.startswith(f"# {heading}\n") and "Scale: smoke." in report
    numbers = json.loads((out / "report" / "results.json").read_text())
    assert numbers["missing"] == []
    assert all(0 < row["mean_iou"] < 100 for row in numbers["main"])
    return keys


def test_the_world_study_survives_kills_without_repeating_a_finished_trial(tmp_path):
    out = tmp_path / "out"
    moment = random.Random(0)
    kept = {}
    with (tmp_path / "log.txt").open("a") as log:
        for trials in MOMENTS:
            target = len(begun(log)) + trials
            process = launch("world", out, tmp_path, log, *IN_OTHERS)
            while len(begun(log)) < target and process.poll() is None:
                time.sleep(0.1)
            time.sleep(moment.uniform(0, 2))  # in the middle of a trial, of its records, or of the next one
            assert process.poll() is None, Path(log.name).read_text()[-3000:]
            process.send_signal(signal.SIGKILL)
            process.wait()
            now = records(out)
            assert {name: now.get(name) for name in kept} == kept
            # A killed trial may leave a half-written file; what has a record stays as it is.
            kept = {name: file for name, file in now.items() if f"{Path(name).stem}.json" in now}
        finish(launch("world", out, tmp_path, log, *IN_OTHERS), log, LIMIT)
        keys = check_report(out, "world")
        last = records(out)
        assert {name: last[name] for name in kept} == kept
        assert any(name.endswith(".npz") for name in kept)
        # Each kill may cost the trial that was running, and no other.
        assert set(begun(log)) == set(keys)
        assert len(keys) <= len(begun(log)) <= len(keys) + len(MOMENTS)


@pytest.mark.parametrize("name", ["world_modes", "world_resolution"])
def test_the_studies_that_extend_it(name, tmp_path):
    with (tmp_path / "log.txt").open("a") as log:
        finish(launch(name, tmp_path / "out", tmp_path, log), log, LIMIT)
        check_report(tmp_path / "out", name)


def link_data(folder, *names):
    """Link real data into `data/` of a folder."""
    data = os.environ.get("DEPTHSEG_DATA")
    if not data:
        pytest.skip(f"DEPTHSEG_DATA is not set: the folder with {', '.join(f'{name}/' for name in names)}")
    (folder / "data").mkdir()
    for name in names:
        (folder / "data" / name).symlink_to(Path(data) / name)
    return Path(data)


def link_part_of_camvid(folder, data):
    """Link a part, as each network is evaluated on the whole of it: a film of the val split and every fifth image."""
    for split, chosen in (("train", slice(None, None, 5)), ("val", slice(12))):
        for name in (split, f"{split}annot"):
            (folder / name).mkdir(parents=True)
            for path in sorted((data / "camvid" / name).iterdir())[chosen]:
                (folder / name / path.name).symlink_to(path)


def test_the_camvid_study(tmp_path):
    link_part_of_camvid(tmp_path / "data" / "camvid", link_data(tmp_path, "kitti_clip"))
    with (tmp_path / "log.txt").open("a") as log:
        finish(launch("camvid", tmp_path / "out", tmp_path, log), log, LIMIT)
        check_report(tmp_path / "out", "camvid")


def test_the_study_of_real_images(tmp_path):
    data = link_data(tmp_path, "kitti_clip", "kitti_drive")
    link_part_of_camvid(tmp_path / "data" / "camvid", data)
    given = tmp_path / "imagenet"
    weights = data / "weights" / "mobilenet_v2-b0353104.pth"
    subprocess.run([COMMAND, "convert", weights, "--output-dir", given], env=ENVIRONMENT, check=True)
    with (tmp_path / "log.txt").open("a") as log:
        # What begins with random weights is here only where the same after ImageNet is not.
        left_out = ("other_films", "lidar", "flow", "world", "world_film")
        overrides = [f"initialisations.{name}=null" for name in left_out]
        overrides.append(f"initialisations.imagenet.checkpoint={given}")
        finish(launch("camvid_real", tmp_path / "out", tmp_path, log, *overrides), log, LIMIT)
        check_report(tmp_path / "out", "camvid_real")
    lineage = {}
    for path in (tmp_path / "out" / "trials").glob("*.json"):
        record = json.loads(path.read_text())
        if record["kind"] == "pretrain":
            lineage[record["initialisation"]] = record["config"]["model"]["pretrained"]
    begun_with = {name for name, pretrained in lineage.items() if pretrained == str(given)}
    assert begun_with == {name for name in lineage if name.endswith("_imagenet")} and len(begun_with) == 5
