"""Where weights came from: what a card says of it, and whose licences count."""

import json
from dataclasses import replace
from functools import partial

import pytest

from depthseg.engine.config import load_config
from depthseg.hub import push
from depthseg.hub.bundle import checked_licence, without_paths
from depthseg.hub.facts import Facts
from depthseg.hub.record import Lineage, RunRecord, Stage, trace

ENCODER = "model.encoder={model_type: depthseg_resnet}"
DEPTH = Stage("deep", "depth", "mono", "folder", "alps", "", 10, 2, 0)
LABELS = Stage("labels", "segmentation", "labels", "folder", "alps", "deep", 5, 2, 0)


def record_of(lineage):
    return RunRecord(None, None, 0, load_config(None, [ENCODER]), {}, [], [], 0.0, lineage, {}, {})


def test_one_folder_is_asked_for_once_and_two_by_their_names():
    same, other = Lineage((DEPTH, LABELS), ()), Lineage((DEPTH, replace(LABELS, root="mine")), ())
    assert [source.name for source in same.sources({})] == ["folder"]
    assert [source.name for source in other.sources({})] == ["folder/alps", "folder/mine"]
    with pytest.raises(ValueError, match=r"--licence-of folder/alps=ID.*--licence-of folder/mine=ID"):
        checked_licence(record_of(other), Facts(licence="mit", licences={"folder": "mit"}))


def test_what_a_published_checkpoint_says_of_its_data_cannot_be_talked_away():
    lineage = Lineage((replace(DEPTH, licence="cc-by-nc-4.0"), LABELS), (("me/deep", "cc-by-nc-4.0"),))
    with pytest.raises(ValueError, match="cc-by-nc-4.0"):
        checked_licence(record_of(lineage), Facts(licence="mit", licences={"folder": "mit"}))


@pytest.mark.parametrize(
    ("starts", "base"),
    [
        (("", "deep"), None),
        (("", "me/deep"), "me/deep"),
        (("me/older", "deep"), "me/older"),
        (("me/older", "./runs/model"), None),
    ],
)
def test_the_base_model_is_the_nearest_checkpoint_of_the_hub(starts, base):
    stages = tuple(replace(stage, start=start) for stage, start in zip((DEPTH, LABELS), starts, strict=True))
    assert Lineage(stages, ()).base_model == base


def test_depth_of_one_camera_has_no_scale_until_true_depth_is_learned():
    assert not Lineage((DEPTH,), ()).knows_scale
    assert not Lineage((DEPTH, LABELS), ()).knows_scale
    assert Lineage((DEPTH, replace(LABELS, supervision="labels_and_depth")), ()).knows_scale
    assert Lineage((replace(DEPTH, supervision="stereo"),), ()).knows_scale


def test_weights_that_a_program_brought_are_asked_for(tmp_path):
    """`train(config, model=...)`: the options know nothing of them, but the model does."""
    (tmp_path / "model").mkdir()
    lineage = [{"source": "weights/large", "revision": None}]
    (tmp_path / "model" / "config.json").write_text(json.dumps({"weight_lineage": lineage}))
    found = trace(load_config(None, ["data.name=synthetic", ENCODER]), tmp_path)
    assert found.stages[-1].start == "./weights/large"
    with pytest.raises(ValueError, match=r"that of the checkpoint \./weights/large .give --licence-of"):
        checked_licence(record_of(found), Facts(licence="apache-2.0"))


def test_a_start_that_is_gone_is_named(tmp_path):
    config = load_config(None, ["data.name=synthetic", "model.pretrained=runs/deep/model"])
    with pytest.raises(
        FileNotFoundError, match=r"initialised from runs/deep/model, which is neither .* or restore the checkpoint"
    ):
        trace(config, tmp_path)


def test_of_paths_only_names_travel():
    config = load_config(
        None,
        [
            *("data.name=folder", "data.root=/home/alice/streets", "run.output_dir=../clients/acme/run"),
            "data.options={depth: /mnt/acme/depth, calibration: ~/rig/calib.txt, split: [/a/b/c], stride: 2}",
            *("model.pretrained=/home/alice/runs/deep/model", "data.train_options={labels: kept/labels}"),
        ],
    )
    shown = without_paths(config)
    assert (shown.data.root, shown.run.output_dir, shown.model.pretrained) == ("streets", "run", "deep/model")
    assert shown.data.options == {"depth": "depth", "calibration": "calib.txt", "split": ["c"], "stride": 2}
    assert shown.data.train_options == {"labels": "kept/labels"}


@pytest.mark.parametrize(
    ("failure", "raised", "words"),
    [
        (
            ConnectionError("Network error: Request middleware error"),
            ConnectionError,
            "failed repeatedly .Network error",
        ),
        (
            RuntimeError("Data processing error: CAS service error"),
            ConnectionError,
            "the same command resumes the upload",
        ),
        (TimeoutError("timed out"), ConnectionError, "failed repeatedly"),
        (PermissionError("token expired"), PermissionError, "no write access to me/x on .*token expired"),
        (RuntimeError("a fault of our own"), RuntimeError, "^a fault of our own"),
    ],
)
def test_failures_of_the_client_for_large_files(failure, raised, words, monkeypatch):
    """hf_xet, which the stand-in Hub does not speak, raises Python's own errors."""
    monkeypatch.setattr(push, "FIRST_WAIT", 0.0)
    retry, answers = partial(push.with_retries, where="me/x on https://hub"), iter([failure, failure, "sent"])

    def call():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    if raised is ConnectionError:
        assert retry(call) == "sent"
        answers = iter([failure] * push.TRIES)
    with pytest.raises(raised, match=words):
        retry(call)
