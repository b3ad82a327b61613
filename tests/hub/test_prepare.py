"""What is published with a checkpoint, and what keeps it from being published."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hub.tiny_runs import tiny_runs
from huggingface_hub import ModelCard
from models.tiny_models import PRETEXT_TASKS, TASKS, tiny_model
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from depthseg import DepthSegImageProcessor
from depthseg.cli import main
from depthseg.data.synthetic import SyntheticWorld
from depthseg.engine.config import load_config
from depthseg.engine.evaluation import evaluate_model
from depthseg.engine.predict import load_model
from depthseg.engine.run import train
from depthseg.hub.bundle import MANIFEST, checked_licence, prepare
from depthseg.hub.card import Card
from depthseg.hub.facts import Facts, read_facts
from depthseg.hub.record import read_run, trace
from depthseg.hub.verify import Evaluation, check_loads_elsewhere

FACTS = Facts(licence="apache-2.0", limits=["Only a test."], commands=["depthseg finetune --config tiny.yaml"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tiny_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def prepared(runs, tmp_path_factory):
    folders = {task: tmp_path_factory.mktemp("prepared") / task for task in runs}
    for task, folder in folders.items():
        prepare(runs[task], f"tester/tiny-{task}", FACTS, folder)
    return folders


def last_line(run_dir):
    return json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])


def card_rows(folder):
    """First column of the card's tables -> the other columns."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \|(?: (.*?) ?\|)?$", (folder / "README.md").read_text(), re.MULTILINE)
    return {row[0]: row[1:] for row in rows}


def test_everything_is_there_and_the_manifest_knows_it(prepared):
    folder = prepared["segmentation"]
    manifest = json.loads((folder / MANIFEST).read_text())
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(manifest) == files - {MANIFEST}
    assert all(hashlib.sha256((folder / path).read_bytes()).hexdigest() == value for path, value in manifest.items())
    for name in ("config.json", "model.safetensors", "preprocessor_config.json", "modeling_depthseg.py", "README.md"):
        assert name in files
    training = {"config.yaml", "run.json", "metrics.jsonl", "subset.json", "lineage.json", "curves.png"}
    assert {f"training/{name}" for name in training} <= files


def test_images_together_score_what_the_run_wrote_down(prepared, runs):
    folder = prepared["segmentation"]
    with np.load(folder / "evaluation" / "per_image.npz") as arrays:
        confusion, names = arrays["confusion"], arrays["names"]
    assert len(names) == len(set(names)) == 12 and confusion.shape == (12, 11, 11)
    total = confusion.sum(0)
    union = total.sum(0) + total.sum(1) - total.diagonal()
    ious = total.diagonal()[union > 0] / union[union > 0]
    recorded = last_line(runs["segmentation"])
    assert ious.mean() == pytest.approx(recorded["mean_iou"], abs=1e-9)
    scores = json.loads((folder / "evaluation" / "scores.json").read_text())
    low, high = scores["intervals"]["mean_iou"]
    assert low <= recorded["mean_iou"] <= high and scores["scores"]["mean_iou"] == recorded["mean_iou"]
    assert scores["scores"]["stamp"] == recorded["stamp"]
    card = " ".join((folder / "README.md").read_text().split())
    assert f"The segmentation scores carry this stamp {recorded['stamp']['digest']}: label space" in card


def test_depth_has_no_stamp_of_segmentation(prepared):
    assert "stamp" not in (prepared["depth"] / "README.md").read_text()


def test_depth_of_each_image_gives_the_mean_and_its_interval(prepared, runs):
    folder = prepared["depth"]
    with np.load(folder / "evaluation" / "per_image.npz") as arrays:
        errors = arrays["abs_rel"]
    # The weights of the better of two scorings are those in model/.
    lines = [json.loads(line) for line in (runs["depth"] / "metrics.jsonl").read_text().splitlines()]
    assert errors.mean() == pytest.approx(min(line["abs_rel"] for line in lines), rel=1e-9)
    intervals = json.loads((folder / "evaluation" / "scores.json").read_text())["intervals"]
    # Frames of the world are scenes of their own, so the interval is that of a mean of 12 numbers.
    draws = np.random.default_rng(1).choice(errors, (20000, 12)).mean(1)
    assert intervals["abs_rel"] == pytest.approx(np.percentile(draws, [2.5, 97.5]), rel=0.02)


def test_a_card_says_why_it_has_no_interval(runs):
    record, facts = read_run(runs["segmentation"]), FACTS
    licence, sources = checked_licence(record, facts)
    per_image = {"confusion": np.ones((1, 2, 2), np.int64)}
    few = Evaluation(record.scores, {}, ["0"], per_image, "synthetic", "val", (32, 64), 1)
    cases = {"too few images were evaluated for one": few}
    cases |= {"gives no scores of single images": replace(few, per_image={}), "run logged no scores of": None}
    for words, evaluation in cases.items():
        card = Card("tester/few", record, evaluation, facts, licence, sources).render()
        assert [each for each in cases if each in card] == [words]


def test_numbers_of_the_card_are_those_of_the_record(prepared, runs):
    rows = card_rows(prepared["segmentation"])
    line = last_line(runs["segmentation"])
    assert rows["mIoU"][0] == f"{100 * line['mean_iou']:.1f} %"
    assert rows["pixel accuracy"][0] == f"{100 * line['pixel_accuracy']:.1f} %"
    for name, iou in line["per_class_iou"].items():
        assert rows[name][0] == ("absent" if iou is None else f"{100 * iou:.1f}")
    text = (prepared["segmentation"] / "README.md").read_text()
    assert "The last stage used 2 labelled images, sampled with seed 0." in text
    stages = [line.split(" | ") for line in text.splitlines() if line.endswith("| 4 | 2 | 0 |")]
    assert [stage[1:4] for stage in stages] == [
        ["random weights", "depth", "ground-truth depth"],
        ["`depth`", "segmentation", "labels"],
    ]
    depth = card_rows(prepared["depth"])
    best = min(
        (json.loads(line) for line in (runs["depth"] / "metrics.jsonl").read_text().splitlines()),
        key=lambda line: line["abs_rel"],
    )
    assert depth["AbsRel"][0] == f"{best['abs_rel']:.3f}" and depth["RMSE"][0] == f"{best['rmse']:.3f} m"


def test_metadata_is_what_the_hub_reads(prepared, runs):
    card = ModelCard.load(prepared["segmentation"] / "README.md")
    data = card.data.to_dict()
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == (
        "apache-2.0",
        "transformers",
        "image-segmentation",
    )
    assert "depthseg" in data["tags"] and "base_model" not in data
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results["mean_iou"].metric_value == pytest.approx(last_line(runs["segmentation"])["mean_iou"], abs=1e-6)
    assert (results["mean_iou"].dataset_name, results["mean_iou"].dataset_split) == ("synthetic", "val")
    assert ModelCard.load(prepared["depth"] / "README.md").data.pipeline_tag == "depth-estimation"


def test_no_folder_of_this_machine_travels(prepared, runs):
    for folder in prepared.values():
        for path in folder.rglob("*"):
            if path.suffix in (".json", ".yaml", ".md", ".jsonl"):
                assert str(runs["depth"].parent) not in path.read_text(), path
    config = yaml.safe_load((prepared["segmentation"] / "training" / "config.yaml").read_text())
    assert config["model"]["pretrained"] == "depth/model" and config["data"]["root"] == "world"


@pytest.mark.heavy
def test_scores_on_a_benchmark_of_the_hub(runs, tmp_path):
    facts = Facts(licence="mit", hub_datasets={"synthetic": "me/street-world"})
    prepare(runs["segmentation"], "tester/tiny", facts, tmp_path / "out")
    (entry,) = yaml.safe_load((tmp_path / "out" / ".eval_results" / "synthetic.yaml").read_text())
    assert entry["dataset"] == {"id": "me/street-world", "task_id": "mean_iou"}
    assert entry["value"] == pytest.approx(last_line(runs["segmentation"])["mean_iou"], abs=1e-6)
    assert ModelCard.load(tmp_path / "out" / "README.md").data.datasets == ["me/street-world"]


def test_lineage_goes_on_through_a_published_folder(prepared, runs):
    config = load_config(runs["segmentation"] / "config.yaml", [f"model.pretrained={prepared['depth']}"])
    lineage = trace(config, runs["segmentation"])
    assert [stage.name for stage in lineage.stages] == ["depth", "segmentation"]
    # Its own licence counts like that of a checkpoint of the Hub.
    assert [licence for _, licence in lineage.ancestors] == ["apache-2.0"]
    assert lineage.stages[1].start == lineage.ancestors[0][0] == "./" + "/".join(prepared["depth"].parts[-2:])
    foreign = load_config(runs["segmentation"] / "config.yaml", [f"model.pretrained={prepared['depth'] / 'training'}"])
    assert trace(foreign, runs["segmentation"]).ancestors == (("./depth/training", None),)


def copy_of(run_dir, folder):
    shutil.copytree(run_dir, folder)
    return folder


@pytest.mark.heavy
def test_weights_that_do_not_score_what_the_run_says_are_refused(runs, tmp_path):
    run_dir = copy_of(runs["segmentation"], tmp_path / "run")
    weights = load_file(run_dir / "model" / "model.safetensors")
    name = next(name for name in weights if name.startswith("classifier") and name.endswith("weight"))
    save_file(weights | {name: -weights[name]}, run_dir / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"do not reproduce the scores that their run logged: .*mean_iou"):
        prepare(run_dir, "tester/tiny", FACTS, tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST).exists()


@pytest.mark.heavy
def test_a_baseline_of_depth_is_evaluated_again(tmp_path):
    train(
        load_config(
            None,
            [
                *(
                    "task=inpainting",
                    "data.name=synthetic",
                    f"data.root={tmp_path / 'world'}",
                    "data.size=[32,64]",
                ),
                *("data.options={size: [32, 64]}", "data.train_options={count: 4}", "data.val_options={count: 3}"),
                "model.encoder={model_type: depthseg_resnet, depth: 18, width_factor: 0.125}",
                "model.head_config={decoder_channels: [8, 8, 8, 16, 16]}",
                *("optim.batch_size=2", "schedule.steps=2", "run.trackers=[]", "run.cpu=true"),
                f"run.output_dir={tmp_path / 'run'}",
            ],
        )
    )
    prepare(tmp_path / "run", "tester/inpainting", FACTS, tmp_path / "out")
    scores = json.loads((tmp_path / "out" / "evaluation" / "scores.json").read_text())["scores"]
    assert scores["hole_l1"] == pytest.approx(last_line(tmp_path / "run")["hole_l1"], rel=1e-6)
    assert "3 images, resized to 32 x 64 pixels" in (tmp_path / "out" / "README.md").read_text()
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text(json.dumps(last_line(tmp_path / "run") | {"hole_l1": scores["hole_l1"] / 2}) + "\n")
    with pytest.raises(ValueError, match="do not reproduce the scores that their run logged: hole_l1"):
        prepare(tmp_path / "run", "tester/inpainting", FACTS, tmp_path / "out")


@pytest.mark.heavy
def test_results_on_other_images_in_another_precision(runs, tmp_path):
    facts = Facts(licence="mit", test=["data.val_split=test", "data.val_options.count=3"], dtype="bfloat16")
    prepare(runs["segmentation"], "tester/tiny", facts, tmp_path / "out")
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} <= {"BF16", "I64"}
    world = SyntheticWorld(runs["depth"].parent / "world", "test", count=3, size=(32, 64))
    expected = evaluate_model(*load_model(tmp_path / "out"), world, "segmentation")
    assert card_rows(tmp_path / "out")["mIoU"][0] == f"{100 * expected['mean_iou']:.1f} %"
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Split test of synthetic: 3 images" in text and "split: test" in text
    with pytest.raises(ValueError, match="dtype is 'half'; choose one of float32"):
        prepare(runs["segmentation"], "tester/tiny", Facts(licence="mit", dtype="half"), tmp_path / "other")


@pytest.mark.heavy
def test_code_that_does_not_travel_is_refused(runs, tmp_path):
    run_dir = copy_of(runs["segmentation"], tmp_path / "run")
    path = run_dir / "model" / "modeling_depthseg.py"
    path.write_text(path.read_text() + "\nimport depthseg\n")
    with pytest.raises(ValueError, match="does not load in a process without depthseg"):
        prepare(run_dir, "tester/tiny", FACTS, tmp_path / "out")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(), "that of these weights .give --licence ID, such as apache-2.0.*synthetic"),
        (Facts(licence="apachy-2.0"), "apachy-2.0"),
        (Facts(licence="mit", licences={"synthetic": "cc-by-nc-4.0"}), "synthetic"),
    ],
)
def test_licences_that_are_refused(runs, tmp_path, facts, words):
    with pytest.raises(ValueError, match=words):
        prepare(runs["segmentation"], "tester/tiny", facts, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_finished_run_is_refused(runs, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not a finished run: it has no config.yaml"):
        read_run(tmp_path)
    run_dir = copy_of(runs["depth"], tmp_path / "run")
    lines = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "metrics.jsonl").write_text(lines[0])
    with pytest.raises(ValueError, match=r"stopped after step 2 of 4. Finish it with run.resume=true"):
        read_run(run_dir)


def test_a_folder_with_other_files_is_left_alone(runs, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="contains other files"):
        prepare(runs["depth"], "tester/tiny", FACTS, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_time_of_a_resumed_run_is_that_of_all_launches(runs, tmp_path):
    run_dir = copy_of(runs["depth"], tmp_path / "run")
    line = last_line(run_dir)
    record = json.loads((run_dir / "run.json").read_text())
    assert record["launches"][0]["seconds_before"] == 0 and read_run(run_dir).seconds == line["seconds"]
    # The first releases began the clock anew with each launch.
    del record["launches"][0]["seconds_before"]
    (run_dir / "run.json").write_text(json.dumps(record))
    assert read_run(run_dir).seconds == line["seconds"]
    record["launches"].append(record["launches"][0] | {"first_step": 2})
    (run_dir / "run.json").write_text(json.dumps(record))
    assert read_run(run_dir).seconds is None


def test_facts_are_read_or_refused(tmp_path):
    path = tmp_path / "facts.yaml"
    path.write_text("licence: mit\nlimits: [Small.]\n")
    assert read_facts(path, licence="apache-2.0").licence == "apache-2.0"
    assert read_facts(path).limits == ["Small."]
    path.write_text("license: mit\n")
    with pytest.raises(ValueError, match=r"facts.yaml, line 1: unknown option 'license'. Did you mean 'licence'"):
        read_facts(path)
    path.write_text("title: no\nlimits: [off, 010, 1e-3]\nlicences: {on: ~}\n")
    with pytest.raises(ValueError, match=r"facts.yaml, line 3: licences.on must be text, got null\.$"):
        read_facts(path)
    path.write_text("title: no\nlimits: [off, 010, 1e-3]\nlicences: {on: 3.0}\ncommands: ['run ${HOME}']\nsummary:\n")
    facts = read_facts(path, licences={"folder": "mit"})
    assert (facts.title, facts.limits, facts.summary) == ("no", ["off", "010", "1e-3"], "")
    assert (facts.licences, facts.commands) == ({"on": "3.0", "folder": "mit"}, ["run ${HOME}"])
    path.write_text("limits: [Beware: it is small.]\n")
    with pytest.raises(ValueError, match=r"limits\[0\] must be text, got \{Beware: .* in quotes"):
        read_facts(path)
    with pytest.raises(FileNotFoundError, match="no file of facts .*nowhere.yaml"):
        read_facts(tmp_path / "nowhere.yaml")


@pytest.mark.heavy
def test_the_command_says_what_it_would_publish(runs, tmp_path, capsys):
    command = ["publish", str(runs["segmentation"]), "tester/tiny", "--dry-run", "--output-dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main([*command, "--licence", "mit"])
    assert "holds what would be published as tester/tiny; nothing was sent." in capsys.readouterr().out
    assert (tmp_path / "out" / "README.md").is_file()
    with pytest.raises(SystemExit, match="is no repository; write owner/name"):
        main(["publish", str(runs["depth"]), "tiny", "--licence", "mit"])
    with pytest.raises(SystemExit, match="Give a run directory, a folder of depthseg convert or of adapters"):
        main(["publish", str(runs["depth"])])


@pytest.mark.heavy
def test_all_checkpoints_of_a_folder_of_facts(runs, tmp_path, capsys):
    run_dir = copy_of(runs["depth"], tmp_path / "run")
    (tmp_path / "cards").mkdir()
    facts = {"repo_id": "tester/deep", "run": str(run_dir), "licence": "mit", "title": "Deep streets"}
    (tmp_path / "cards" / "deep.yaml").write_text(yaml.safe_dump(facts))
    (tmp_path / "cards" / "elsewhere.yaml").write_text("repo_id: tester/made-elsewhere\n")
    with pytest.raises(SystemExit) as ended:
        main(["publish", "--all", str(tmp_path / "cards"), "--dry-run"])
    assert ended.value.code is None
    assert "would be published as tester/deep" in capsys.readouterr().out
    assert "# Deep streets" in (run_dir / "published" / "README.md").read_text()
    with pytest.raises(SystemExit, match="leave RUN_DIR, OWNER/NAME"):
        main(["publish", str(run_dir), "tester/deep", "--all", str(tmp_path / "cards")])
    with pytest.raises(SystemExit, match="holds no file of facts"):
        main(["publish", "--all", str(tmp_path)])
    (tmp_path / "cards" / "gone.yaml").write_text(yaml.safe_dump(facts | {"run": str(tmp_path / "gone")}))
    with pytest.raises(SystemExit, match=r"1 of 2 were not published.\ngone: .*gone is not a finished run"):
        main(["publish", "--all", str(tmp_path / "cards"), "--dry-run", "optim.batch_size=1"])


@pytest.mark.heavy
def test_the_snippet_of_the_card_runs_where_depthseg_cannot_be_imported(prepared, tmp_path):
    """From the folder in place of the repository, which holds the same files."""
    Image.fromarray(np.full((40, 70, 3), 90, np.uint8)).save(tmp_path / "street.png")
    for task, shape in (("segmentation", "torch.Size([40, 70])"), ("depth", "torch.Size([40, 70])")):
        card = (prepared[task] / "README.md").read_text()
        snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
        snippet = snippet.replace(f'"tester/tiny-{task}"', repr(str(prepared[task])))
        code = "import sys\nsys.modules['depthseg'] = None\n" + snippet
        done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert shape in done.stdout


@pytest.mark.heavy
def test_a_run_without_truth_says_that_nothing_was_measured(tmp_path):
    """Depth from a video that nobody measured: a photometric loss, no interval, and the licence its owner states."""
    frames = tmp_path / "frames"
    frames.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (32, 80, 3), np.uint8)
    for number in range(5):
        Image.fromarray(np.ascontiguousarray(noise[:, 2 * number : 2 * number + 64])).save(
            frames / f"{number:03d}.png"
        )
    train(
        load_config(
            None,
            [
                *("task=depth", f"data.video={frames}", "data.size=[32,64]", "pretext.supervision=mono"),
                *("pretext.intrinsics=one_camera", "pretext.pose_encoder={depth: 18, width_factor: 0.125}"),
                "model.encoder={model_type: depthseg_resnet, depth: 18, width_factor: 0.125}",
                "model.head_config={decoder_channels: [8, 8, 8, 16, 16]}",
                *("optim.batch_size=2", "schedule.steps=2", "run.trackers=[]", "run.cpu=true"),
                f"run.output_dir={tmp_path / 'run'}",
            ],
        )
    )
    with pytest.raises(ValueError, match=r"that of the data set video .give --licence-of video=ID"):
        prepare(tmp_path / "run", "tester/video", Facts(licence="mit"), tmp_path / "out")
    prepare(tmp_path / "run", "tester/video", Facts(licence="mit", licences={"video": "cc-by-4.0"}), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "the evaluation was not repeated." in card and "No interval" in card and "evaluation/" not in card
    assert "The model was trained on the same frames" in card
    assert not (tmp_path / "out" / "evaluation").exists()
    assert (
        card_rows(tmp_path / "out")["photometric loss"][0] == f"{last_line(tmp_path / 'run')['photometric_loss']:.3f}"
    )
    assert "| run | random weights | depth | monocular video | video | cc-by-4.0 | 2 | 2 | 0 |" in card


@pytest.mark.heavy
@pytest.mark.parametrize("task", TASKS | PRETEXT_TASKS)
def test_models_of_every_task_load_elsewhere(task, tmp_path):
    """The one that takes two images too, for which transformers has no Auto class."""
    tiny_model(task).save_pretrained(tmp_path)
    DepthSegImageProcessor(size={"height": 64, "width": 96}).save_pretrained(tmp_path)
    check_loads_elsewhere(tmp_path)
