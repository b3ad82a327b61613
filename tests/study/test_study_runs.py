"""Running the trials of a study: real runs of two steps on small images."""

from __future__ import annotations

import json
import os
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from models.tiny_models import tiny_model
from study.tiny_study import TEXT, tiny_study

from depthseg.engine import loop
from depthseg.engine.analysis import MEASURES, measure_model
from depthseg.engine.build import build_datasets
from depthseg.engine.config import load_config
from depthseg.engine.evaluation import json_scores
from depthseg.engine.predict import load_model
from depthseg.metrics.blocks import mean_iou
from depthseg.models import DepthSegForDepthEstimation, DepthSegForSemanticSegmentation, DepthSegImageProcessor
from depthseg.study import runner as runner_module
from depthseg.study import trials as trials_module
from depthseg.study.options import StudyOptions
from depthseg.study.runner import PLAN_FILE, run_study, trials_in_order
from depthseg.study.stored import STUDY_FILE

PREDICTION_MEASURES = tuple(name for name, measure in MEASURES.items() if measure.compute is None)
WITHOUT_THIRD = TEXT.replace("  deeper: {{after: depth, pretrain: {{task: depth}}}}\n", "")
SMALL = ("benchmarks.world.num_labelled=[2]", "seeds.finetune=1")


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study that was broken off again and again, and the names of the trials that were trained."""
    folder = tmp_path_factory.mktemp("study")
    study, trained = tiny_study(folder, *SMALL, text=WITHOUT_THIRD), []
    train = trials_module.train
    with pytest.MonkeyPatch.context() as patch:
        for _ in range(20):

            def once(config, trained=trained, allowed=[2]):  # noqa: B006 - one list for each launch is meant
                if not allowed[0]:
                    raise Killed
                allowed[0] -= 1
                trained.append(config.run.output_dir)
                return train(config)

            patch.setattr(trials_module, "train", once)
            try:
                run_study(study, folder / "out")
                break
            except Killed:
                continue
    return study, folder / "out", trained


def records(out):
    return [json.loads(path.read_text()) for path in sorted((out / "trials").glob("*.json"))]


def test_no_trial_runs_twice_however_often_the_study_is_broken_off(done):
    study, out, trained = done
    keys = json.loads((out / PLAN_FILE).read_text())["keys"]
    assert len(trained) == len(set(trained)) == len(keys)
    assert {record["key"] for record in records(out)} == set(keys)
    assert [trial.key for trial in trials_in_order(study, out)] == keys


def test_a_finished_study_trains_nothing(done, monkeypatch):
    study, out, _ = done
    monkeypatch.setattr(trials_module, "train", None)
    run_study(study, out)


def test_records_hold_what_the_run_scored(done):
    study, out, _ = done
    found = [record for record in records(out) if record["kind"] == "finetune" and record["role"] != "rate"]
    assert {record["initialisation"] for record in found} == {"none", "depth"}
    for record in found:
        stored = np.load(out / "trials" / f"{record['key']}.npz")
        assert stored["confusion"].shape == (3, 11, 11)
        # Per image and added up, they give the score of the training's own evaluation.
        assert mean_iou(stored["confusion"].sum(0)) == pytest.approx(record["scores"]["mean_iou"], rel=1e-6)
        assert list(stored["names"]) == ["test_00000", "test_00001", "test_00002"]
        assert list(stored["blocks"]) == ["test/0", "test/0", "test/1"]
        assert [point["step"] for point in record["curve"]] == [1, 2]
        assert 0 < record["baselines"]["majority_class"] < 1
        assert record["seconds"] > 0 and record["cpu_seconds"] > 0
        # Runs at the fixed rate are there for their score alone.
        assert bool(record["measures"].get("iou_by_depth")) == (record["role"] == "main")
        assert record["config"]["data"]["val_split"] == "test" and record["classes"][0] == "Sky"


def test_the_best_rate_of_the_validation_images_is_taken(done):
    study, out, _ = done
    found = records(out)
    for init in ("none", "depth"):
        choosing = [r for r in found if r["initialisation"] == init and r.get("role") == "rate"]
        best = max(choosing, key=lambda record: (record["scores"]["mean_iou"], -record["lr"]))["lr"]
        assert {r["lr"] for r in found if r["initialisation"] == init and r.get("role") == "main"} == {best}


def test_weights_of_pretrainings_stay_and_those_of_fine_tunings_go(done):
    _, out, _ = done
    (pretrained,) = [record for record in records(out) if record["kind"] == "pretrain"]
    assert [path.name for path in (out / "runs").iterdir()] == [pretrained["key"]]
    assert not (out / "runs" / pretrained["key"] / "checkpoints").exists()
    DepthSegForDepthEstimation.from_pretrained(out / "runs" / pretrained["key"] / "model")
    for record in records(out):
        assert record["parent_key"] == (
            pretrained["key"] if record["kind"] == "finetune" and record["initialisation"] == "depth" else None
        )


def test_the_study_is_written_down_and_a_changed_one_counts_its_own_trials(done):
    study, out, _ = done
    assert (out / STUDY_FILE).is_file()
    before = set(json.loads((out / PLAN_FILE).read_text())["keys"])
    other = tiny_study(out.parent, *SMALL, "finetune.schedule.steps=3", text=WITHOUT_THIRD)
    keys = {trial.key for trial in trials_in_order(other, out)}
    # The pre-training is the same; no rate of the changed runs is chosen yet.
    assert len(keys & before) == 1 and len(keys) == 1 + 4 + 2


@pytest.mark.parametrize(
    ("when", "sentence", "finished"),
    [
        ("after the last step", "Stopped on request after step 2 of 2; everything is saved", 0),
        ("while a model is measured", "which is finished; the same command resumes", 1),
    ],
)
def test_a_request_to_stop_at_the_end_of_a_trial_ends_the_study_there(tmp_path, monkeypatch, when, sentence, finished):
    owner, name = (loop, "save_checkpoint") if when == "after the last step" else (trials_module, "examine")
    action = getattr(owner, name)

    def then_terminate(*arguments, **options):
        found = action(*arguments, **options)
        if name == "examine" or arguments[3].step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    monkeypatch.setattr(owner, name, then_terminate)
    study = tiny_study(tmp_path, *SMALL, "rates.grid=[]", "initialisations={depth: null, deeper: null}")
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match=sentence):
        run_study(study, tmp_path / "out")
    assert len(records(tmp_path / "out")) == finished
    assert signal.getsignal(signal.SIGTERM) == handler
    monkeypatch.undo()
    run_study(study, tmp_path / "out")
    # The CPU time of a trial that was resumed is not known: only that of its last launch is.
    times = [record["cpu_seconds"] for record in records(tmp_path / "out")]
    assert times.count(None) == 1 - finished and all(time is None or time > 0 for time in times)


@pytest.mark.heavy
def test_lost_weights_are_trained_again_for_the_trials_that_need_them_and_for_no_others(tmp_path, monkeypatch, caplog):
    study = tiny_study(tmp_path, *SMALL, "rates.grid=[]")
    out = tmp_path / "out"
    run_study(study, out)
    before = {path.name: path.read_bytes() for path in (out / "trials").glob("*.json")}
    (missing,) = [
        record for record in records(out) if record["kind"] == "finetune" and record["initialisation"] == "deeper"
    ]
    pretrained = {record["initialisation"]: record["key"] for record in records(out) if record["kind"] == "pretrain"}
    # What a checkout with committed records has: no weights, and here one fine-tuning still to be run.
    shutil.rmtree(out / "runs")
    (out / "trials" / f"{missing['key']}.json").unlink()
    trained, train = [], trials_module.train
    monkeypatch.setattr(trials_module, "train", lambda config: trained.append(config.run.output_dir) or train(config))
    run_study(study, out)
    keys = [pretrained["depth"], pretrained["deeper"], missing["key"]]
    assert trained == [str(out / "runs" / key) for key in keys]
    assert "its scores differ" not in caplog.text
    again = {path.name: path.read_bytes() for path in (out / "trials").glob("*.json")}
    assert json.loads(again.pop(f"{missing['key']}.json"))["scores"] == missing["scores"]
    assert again == {name: text for name, text in before.items() if name in again} and len(again) == len(before) - 1
    assert not (out / "runs" / pretrained["depth"] / "checkpoints").exists()


def test_weights_that_come_out_differently_the_second_time_are_told(done, tmp_path, caplog):
    study, out, _ = done
    copy = shutil.copytree(out, tmp_path / "out")
    (trial,) = [trial for trial in trials_in_order(study, copy) if trial.kind == "pretrain"]
    record = json.loads((copy / "trials" / f"{trial.key}.json").read_text())
    record["scores"]["abs_rel"] = 7.0
    (copy / "trials" / f"{trial.key}.json").write_text(json.dumps(record))
    shutil.rmtree(copy / "runs")
    trials_module.repeat_pretraining(trial, copy)
    assert f"Trial {trial.key} was trained again, and its scores differ: abs_rel was 7.0, is " in caplog.text


def test_a_pretraining_that_is_killed_while_it_is_repeated_is_repeated_again(done, tmp_path, monkeypatch):
    study, out, _ = done
    copy = shutil.copytree(out, tmp_path / "out")
    trials = {trial.key: trial for trial in trials_in_order(study, copy)}
    child = next(trial for trial in trials.values() if trial.parent is not None)
    weights = copy / "runs" / child.parent / "model" / "model.safetensors"
    expected = weights.read_bytes()
    shutil.rmtree(copy / "runs")

    def killed(*arguments, **options):
        raise Killed

    monkeypatch.setattr(loop, "save_checkpoint", killed)
    with pytest.raises(Killed):
        runner_module._ensure_weights(trials, child, copy)
    monkeypatch.undo()
    weights.write_bytes(b"of an earlier step")
    runner_module._ensure_weights(trials, child, copy)
    assert weights.read_bytes() == expected


def test_one_pretraining_seed_comes_after_another(tmp_path):
    study = tiny_study(tmp_path, "seeds.pretrain=2")
    seeds = [trial.labels["pretrain_seed"] for trial in trials_in_order(study, tmp_path)]
    assert seeds == sorted(seeds) and set(seeds) == {0, 1}


def test_the_plan_of_the_last_shard_has_the_rates_that_others_chose(tmp_path, monkeypatch):
    study, out, begun = tiny_study(tmp_path, text=WITHOUT_THIRD), tmp_path / "out", []
    (out / "trials").mkdir(parents=True)

    def record(study, trial, out):
        """Finish a trial at once, the higher rate being the better one; the other shard runs in the middle of this."""
        content = {"kind": trial.kind, "key": trial.key, **trial.labels, "parent_key": trial.parent, "seconds": 1.0}
        content |= {"config": {}, "curve": [], "scores": {"mean_iou": trial.labels.get("lr", 0.0)}}
        (out / "trials" / f"{trial.key}.json").write_text(json.dumps(content))
        if trial.labels.get("role") == "main" and not begun:
            begun.append(trial.key)
            run_study(study, out, (2, 2))

    monkeypatch.setattr(runner_module, "run_trial", record)
    monkeypatch.setattr(runner_module, "repeat_pretraining", lambda trial, out: None)
    run_study(study, out, (1, 2))
    keys = json.loads((out / PLAN_FILE).read_text())["keys"]
    assert set(keys) == {found["key"] for found in records(out)} and len(keys) == 1 + 4 + 2 * 2 * 4


def test_a_damaged_record_is_named(tmp_path, monkeypatch):
    study = tiny_study(tmp_path, *SMALL)
    for name in ("run_trial", "_ensure_weights"):
        monkeypatch.setattr(f"depthseg.study.runner.{name}", lambda *trial: None)
    first = next(trial for trial in trials_in_order(study, tmp_path) if trial.labels.get("role") == "rate")
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / f"{first.key}.json").write_text("{")
    with pytest.raises(ValueError, match=rf"{first.key}\.json cannot be read .* Remove it and run the study again"):
        run_study(study, tmp_path)


def test_a_test_image_is_predicted_once_for_counts_and_measures(tmp_path, monkeypatch):
    data = ["data.name=synthetic", f"data.root={tmp_path / 'world'}", "data.size=[32,64]"]
    counts = ["data.options={size: [32, 64]}", "data.train_options={count: 2}", "data.val_options={count: 3}"]
    config = load_config(None, [*data, *counts, "run.cpu=true", f"model.pretrained={tmp_path / 'model'}"])
    tiny_model("segmentation", num_labels=11).save_pretrained(tmp_path / "model")
    DepthSegImageProcessor(size={"height": 32, "width": 64}).save_pretrained(tmp_path / "model")
    calls, forward = [], DepthSegForSemanticSegmentation.forward
    monkeypatch.setattr(
        DepthSegForSemanticSegmentation,
        "forward",
        lambda self, *args, **options: calls.append(1) or forward(self, *args, **options),
    )
    trial = SimpleNamespace(config=config, kind="finetune", labels={"role": "main"})
    study = StudyOptions(block_length=2, measures=list(PREDICTION_MEASURES))
    result = SimpleNamespace(model_dir=tmp_path / "model")
    found = trials_module.examine(study, trial, result, tmp_path / "trial.json")
    assert len(calls) == 3 and tuple(found["measures"]) == PREDICTION_MEASURES
    calls.clear()
    assert found["measures"] == json_scores(
        measure_model(*load_model(tmp_path / "model"), build_datasets(config.data)[1], PREDICTION_MEASURES)
    )
    assert len(calls) == 3 and np.load(tmp_path / "trial.npz")["confusion"].shape == (3, 11, 11)
