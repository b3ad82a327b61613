"""The cards in model_cards/: rendered from their records, readable to the Hub, numbers true, snippets run."""

import json
import re
import shlex
import subprocess
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from depthseg import models
from depthseg.data.synthetic import SyntheticWorld
from depthseg.engine.config import load_config
from depthseg.engine.evaluation import evaluate_model
from depthseg.engine.predict import load_model
from depthseg.hub.licences import LICENCES

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "model_cards"
TINY = CARDS / "depthseg-tiny-world"
NAMES = sorted(path.stem for path in CARDS.glob("*.yaml"))
HUB_TASKS = {"image-segmentation", "depth-estimation", "image-classification", "image-to-image"}
SHOWN = {"mIoU": "mean_iou", "pixel accuracy": "pixel_accuracy", "mean class accuracy": "mean_accuracy"}
SHOWN |= {"AbsRel": "abs_rel", "RMSE": "rmse", "delta < 1.25": "delta1", "accuracy": "accuracy"}
SHOWN |= {"depth AbsRel": "abs_rel", "depth delta < 1.25": "delta1", "photometric loss": "photometric_loss"}
FORMER_TASKS = {"reconstruction": "inpainting"}
SHOWN |= {"end-point error": "end_point_error", "L1 error on masked pixels": "hole_l1"}


def script(name):
    spec = util.spec_from_file_location(name, ROOT / "training" / f"{name}.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(name):
    return (CARDS / name / "README.md").read_text()


def record_of(name):
    """Scores of the published weights: measured again, or the last line of a run that keeps its last weights."""
    measured = CARDS / name / "evaluation" / "scores.json"
    if measured.is_file():
        return json.loads(measured.read_text())
    lines = (CARDS / name / "training" / "metrics.jsonl").read_text().splitlines()
    return {"scores": json.loads(lines[-1]), "intervals": {}}


def number(text):
    """`12.3 %` -> 0.123 and half of its last digit."""
    value, _, unit = text.partition(" ")
    half = 0.5 * 10 ** -len(value.partition(".")[2])
    return (float(value) / 100, half / 100) if unit == "%" else (float(value), half)


def test_every_file_of_facts_has_a_card_and_every_card_its_facts():
    assert NAMES == sorted(path.parent.name for path in CARDS.glob("*/README.md"))


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_what_its_record_renders(name):
    assert script("render_cards").render(CARDS / f"{name}.yaml") == text_of(name)


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_the_record(name):
    record = record_of(name)
    rows = re.findall(r"^\| (.+?) \| (\d.*?) \| ?(?:(\S+) to (\S+( %)?))? ?\|$", text_of(name), re.MULTILINE)
    assert len(rows) >= 1
    for label, value, low, high, percent in rows:
        shown, half = number(value)
        assert shown == pytest.approx(record["scores"][SHOWN[label]], abs=half * 1.001)
        if low:
            ends = [number(end + (percent if end == low else ""))[0] for end in (low, high)]
            assert ends == pytest.approx(record["intervals"][SHOWN[label]], abs=half * 1.001)
            assert ends[0] < shown < ends[1]
    ious = record["scores"].get("per_class_iou", {})
    for label, iou in ious.items():
        assert f"| {label} | {100 * iou:.1f} |" in text_of(name)
    measured = {result.metric_type: result.metric_value for result in ModelCard(text_of(name)).data.eval_results}
    assert measured == pytest.approx({SHOWN[row[0]]: record["scores"][SHOWN[row[0]]] for row in rows}, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if (CARDS / name / "evaluation").is_dir()])
def test_images_together_give_the_scores(name):
    scores = record_of(name)["scores"]
    with np.load(CARDS / name / "evaluation" / "per_image.npz") as arrays:
        if "confusion" in arrays:
            total = arrays["confusion"].sum(0)
            union = total.sum(0) + total.sum(1) - total.diagonal()
            assert (total.diagonal()[union > 0] / union[union > 0]).mean() == pytest.approx(scores["mean_iou"])
        if "abs_rel" in arrays:
            assert np.nanmean(arrays["abs_rel"]) == pytest.approx(scores["abs_rel"])
        assert f"{len(arrays['names'])} images" in text_of(name)


@pytest.mark.parametrize("name", NAMES)
def test_training_is_told_as_it_was(name):
    text, training = text_of(name), CARDS / name / "training"
    config = yaml.safe_load((training / "config.yaml").read_text())
    stages = json.loads((training / "lineage.json").read_text())["stages"]
    for stage in stages:
        (row,) = re.findall(rf"^\| {stage['name']} \| .*$", text, re.MULTILINE)
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert (cells[2], cells[4]) == (FORMER_TASKS.get(stage["task"], stage["task"]), stage["data"])
        assert cells[1] == (f"`{stage['start']}`" if stage["start"] else "random weights")
        assert [int(cell) for cell in cells[-3:]] == [stage["steps"], stage["batch_size"], stage["seed"]]
    last = stages[-1]
    assert (last["task"], last["steps"]) == (config["task"], config["schedule"]["steps"])
    assert (last["batch_size"], last["seed"]) == (config["optim"]["batch_size"], config["run"]["seed"])
    height, width = config["data"]["size"]
    if load_config(training / "config.yaml", is_record=True).data.random_crop:
        assert f"input 64 x 192 pixels, trained on patches of {height} x {width}." in text
    else:
        assert f"input {height} x {width} pixels.\n" in text
    with torch.device("meta"):
        stored = json.loads((CARDS / name / "config.json").read_text())
        architecture = getattr(models, stored["architectures"][0])
        model = architecture(models.DepthSegConfig.from_pretrained(CARDS / name))
    count = sum(value.numel() for key, value in model.state_dict().items() if "num_batches_tracked" not in key)
    assert f"\n{count / 1e6:.1f} million parameters: encoder `{stored['encoder_config']['model_type']}`" in text
    launch = json.loads((training / "run.json").read_text())["launches"][-1]
    assert f"PyTorch {launch['torch'].removesuffix('+cpu')}, transformers {launch['transformers']}" in text
    if (training / "motion.json").is_file():
        motion = json.loads((training / "motion.json").read_text())
        found = re.search(
            r"this model: ([\d.]+) grey levels; without warping ([\d.]+); .*? line ([\d.]+)\.", text
        ).groups()
        for shown, kind in zip(found, ("model", "identity", "straight_line"), strict=True):
            assert float(shown) == pytest.approx(motion["warp_error"][kind], abs=0.0501)
        assert f"trajectory): {motion['trajectory']['model']['ate']:.2f} m over 57 m" in text
    launches = json.loads((training / "run.json").read_text())["launches"]
    if len(launches) == 1:
        last_line = json.loads((training / "metrics.jsonl").read_text().splitlines()[-1])
        assert f"The last stage took {round(last_line['seconds'] / 60)} min on a CPU" in text
    elif "seconds_before" not in launches[-1]:
        assert "The last stage ran on a CPU" in text


@pytest.mark.parametrize("name", NAMES)
def test_the_hub_can_read_the_metadata(name):
    """As https://huggingface.co/docs/hub/model-cards and its specification of the metadata have it."""
    head = yaml.safe_load(text_of(name).split("---\n")[1])
    assert head["license"] == "other" or head["license"] in LICENCES
    assert head["license"] != "other" or {"license_name", "license_link"} <= set(head)
    assert head["library_name"] == "transformers" and head.get("pipeline_tag", "depth-estimation") in HUB_TASKS
    assert "depthseg" in head["tags"] and all(isinstance(tag, str) for tag in head["tags"])
    (entry,) = head["model-index"]
    assert entry["name"] == name
    for result in entry["results"]:
        assert result["task"]["type"] in HUB_TASKS | {"other"}
        assert {"name", "type", "split"} <= set(result["dataset"])
        assert all(isinstance(metric["value"], float) and metric["type"] for metric in result["metrics"])
    assert {metric["type"] for result in entry["results"] for metric in result["metrics"]} == set(head["metrics"])


@pytest.mark.parametrize("name", NAMES)
def test_commands_make_what_the_record_says(name):
    """The options that a card's last training command composes are those of its run, wherever that ran."""
    facts = yaml.safe_load((CARDS / f"{name}.yaml").read_text())
    words = next(words for words in map(shlex.split, reversed(facts["commands"])) if words[1] != "publish")
    assert words[:2] in (["depthseg", "pretrain"], ["depthseg", "finetune"])
    named = load_config(words[words.index("--config") + 1], [word for word in words if "=" in word]).to_dict()
    ran = load_config(CARDS / name / "training" / "config.yaml", is_record=True).to_dict()
    for options in (named, ran):
        options["run"] = {key: options["run"][key] for key in ("seed", "precision", "select")}
        options["data"] |= {"root": None, "video": options["data"]["video"] and Path(options["data"]["video"]).name}
        options["model"]["pretrained"] = options["model"]["pretrained"] and "/".join(
            Path(options["model"]["pretrained"]).parts[-2:]
        )
    assert named == ran


def run_snippet(name, folder, where):
    snippet = re.search(r"```python\n(.*?)```", text_of(name), re.DOTALL)[1]
    facts = yaml.safe_load((CARDS / f"{name}.yaml").read_text())
    snippet = snippet.replace(f'"{facts["repo_id"]}"', repr(str(folder)))
    blocker = "import sys\nsys.modules['depthseg'] = None\n"
    done = subprocess.run([sys.executable, "-I", "-c", blocker + snippet], cwd=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.heavy
def test_the_snippet_of_the_tiny_checkpoint_runs_where_depthseg_cannot_be_imported():
    assert run_snippet("depthseg-tiny-world", TINY, TINY).count("torch.Size([120, 160])") == 2


@pytest.mark.heavy
@pytest.mark.parametrize("name", [name for name in NAMES if name != TINY.name])
def test_snippets_run_where_depthseg_cannot_be_imported(name, tmp_path):
    """With weights of the card's configuration: the trained ones are not in the repository."""
    config = models.DepthSegConfig.from_pretrained(CARDS / name)
    getattr(models, config.architectures[0])(config).save_pretrained(tmp_path / "model")
    models.DepthSegImageProcessor.from_pretrained(CARDS / name).save_pretrained(tmp_path / "model")
    for image in ("street.png", "street_before.png"):
        Image.fromarray(np.full((70, 130, 3), 90, np.uint8)).save(tmp_path / image)
    assert run_snippet(name, tmp_path / "model", tmp_path)


def test_the_tiny_checkpoint_still_scores_what_its_record_says(tmp_path):
    record = record_of(TINY.name)["scores"]
    model, processor = load_model(TINY)
    frames = SyntheticWorld(tmp_path, "test", count=24, size=(120, 160))
    labels = evaluate_model(model, processor, frames, "segmentation")
    depth = evaluate_model(model, processor, frames, "depth")
    # The first 24 of the record's 200 frames: near its numbers, far from an untrained network's (2 to 9 %).
    assert abs(labels["pixel_accuracy"] - record["pixel_accuracy"]) < 0.05
    assert abs(depth["abs_rel"] - record["abs_rel"]) < 0.08
