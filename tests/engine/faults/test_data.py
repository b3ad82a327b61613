"""Data that are not there, or not the same, when a run resumes."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from depthseg.engine.command import one_sentence_errors


def _said(run):
    with pytest.raises(SystemExit) as ended, one_sentence_errors():
        run()
    return ended.value.code


def _files(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_missing_folder_is_named_and_nothing_is_touched(run_folder, folder, row, tmp_path):
    run_folder("run.keep_last=3")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_3")
    folder.rename(folder.with_name("elsewhere"))
    before = _files(tmp_path / "run")
    said = _said(lambda: run_folder("run.resume=true"))
    assert str(folder) in said
    assert _files(tmp_path / "run") == before
    row("The folder of the data is not there when a run resumes", said, "All; `data.root` may name another place.")
    weights = before[str(tmp_path / "run" / "model" / "model.safetensors")]
    run_folder("run.resume=true", f"data.root={folder.with_name('elsewhere')}")
    assert _files(tmp_path / "run")[str(tmp_path / "run" / "model" / "model.safetensors")] == weights


def test_other_samples_are_refused(run_folder, folder, row, tmp_path):
    run_folder()
    (folder / "images" / "0.png").rename(folder / "images" / "0000.png")
    (folder / "labels" / "0.png").rename(folder / "labels" / "0000.png")
    before = _files(tmp_path / "run")
    said = _said(lambda: run_folder("run.resume=true"))
    assert "(their names or order differ)" in said
    for name in ("images", "labels"):
        (folder / name / "0000.png").unlink()
    said = _said(lambda: run_folder("run.resume=true"))
    assert re.search(r"\(\d samples then, \d now\)", said)
    assert _files(tmp_path / "run") == before
    row("An image was removed from the data when a run resumes", said, "All.")


@pytest.mark.heavy
def test_a_changed_image_is_told(run_folder, folder, row, tmp_path, caplog):
    run_folder()
    for path in (folder / "images").iterdir():
        Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(path)
    run_folder("run.resume=true")
    said = next(r.getMessage() for r in caplog.records if "is not what it was" in r.getMessage())
    row("The first image has other pixels when a run resumes", said, "All; the run resumes.")


@pytest.mark.heavy
def test_a_run_of_an_earlier_version_resumes_without_a_record_of_its_data(run_folder, tmp_path):
    run_folder()
    record = tmp_path / "run" / "run.json"
    record.write_text(record.read_text().replace('"data"', '"former"'))
    run_folder("run.resume=true")
