"""`depthseg evaluate` by several protocols, on a folder of images with the ids of KITTI's label files."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from engine.kitti_like import IDS34, KittiLike
from PIL import Image

from depthseg.cli import main
from depthseg.data import LABEL_SPACES, load_dataset
from depthseg.data.corruptions import corrupt
from depthseg.data.miniatures import write_miniature
from depthseg.engine.config import load_config
from depthseg.engine.one_pass import read_pass
from depthseg.metrics import Stamp
from depthseg.models import (
    DepthSegConfig,
    DepthSegForDepthEstimation,
    DepthSegForSemanticSegmentation,
    DepthSegImageProcessor,
)

NETWORK = {
    "encoder_config": {"model_type": "depthseg_resnet", "width_factor": 0.125},
    "head_config": {"decoder_channels": [8, 8, 8, 8, 8]},
}
ALL = "standard,paper-text,paper-release"


@pytest.fixture(scope="module")
def kitti(tmp_path_factory):
    """Two images in `val`, with depth."""
    folder, data = tmp_path_factory.mktemp("kitti"), KittiLike()
    for kind in ("images", "labels", "depth"):
        (folder / kind).mkdir()
    for sample in data.samples:
        Image.fromarray(sample.image).save(folder / "images" / f"{sample.name}.png")
        Image.fromarray(sample.labels).save(folder / "labels" / f"{sample.name}.png")
        Image.fromarray((sample.depth * 256).astype(np.uint16)).save(folder / "depth" / f"{sample.name}.png")
    (folder / "classes.txt").write_text("\n".join(IDS34.classes) + "\n")
    (folder / "val.txt").write_text("\n".join(data.names[1:]))
    (folder / "train.txt").write_text(data.names[0])
    return folder


def saved(folder, model):
    model.save_pretrained(folder)
    DepthSegImageProcessor(size={"height": 32, "width": 96}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    torch.manual_seed(0)
    config = DepthSegConfig(**NETWORK, id2label=dict(enumerate(IDS34.classes)), keep_depth=True)
    return saved(tmp_path_factory.mktemp("segmenter"), DepthSegForSemanticSegmentation(config))


@pytest.fixture(scope="module")
def depth_model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("depth"), DepthSegForDepthEstimation(DepthSegConfig(**NETWORK)))


def evaluate(model, root, *words):
    """Exit code, or the sentence in its place."""
    with pytest.raises(SystemExit) as exit_info:
        main([*map(str, ("evaluate", "--model", model, "--dataset", "folder", "--root", root, *words))])
    return exit_info.value.code


def printed(capsys, *words):
    assert evaluate(*words, "--json") in (0, None)
    return json.loads(capsys.readouterr().out)


def test_what_a_constant_reaches_is_beside_the_scores(segmenter, depth_model, kitti, tmp_path, capsys):
    train, val = (load_dataset("folder", kitti, split) for split in ("train", "val"))
    depths = train[0].depth[train[0].depth > 0]
    truth = [depth[(depth > 0.1) & (depth < 100)] for depth in (val[0].depth, val[1].depth)]
    constant = float(np.median(depths))
    expected = np.mean([np.mean(np.abs(constant - depth) / depth) for depth in truth])
    found = printed(capsys, depth_model, kitti, "--baseline", "--min-depth", 0.1, "--max-depth", 100)
    assert found["alignment"] == "none"
    assert found["baselines"]["constant depth: abs_rel"] == pytest.approx(expected, rel=1e-3)
    found = printed(capsys, segmenter, kitti, "--baseline")["baselines"]
    labels = np.concatenate([sample.labels.ravel() for sample in (val[0], val[1])])
    most = np.bincount(train[0].labels[train[0].labels < 255]).argmax()
    scored = labels[labels != 255]
    classes = set(scored.tolist()) | {int(most)}
    assert found["majority class: mean_iou"] == pytest.approx((scored == most).mean() / len(classes))
    without_depth = shutil.copytree(kitti, tmp_path / "data", ignore=shutil.ignore_patterns("depth"))
    message = evaluate(segmenter, without_depth, "--baseline", "--protocol", "paper-text,paper-release")
    assert "--baseline is for the protocol standard alone" in message


def test_the_calibration_error_is_that_of_the_probabilities(segmenter, kitti, capsys):
    found = printed(capsys, segmenter, kitti, "--calibration")
    model = DepthSegForSemanticSegmentation.from_pretrained(segmenter).eval()
    processor = DepthSegImageProcessor.from_pretrained(segmenter)
    sums, total = np.zeros((15, 2)), 0
    for sample in load_dataset("folder", kitti, "val"):
        with torch.no_grad():
            logits = model(**processor(sample.image, return_tensors="pt")).logits
        probable = torch.nn.functional.interpolate(logits, size=sample.labels.shape, mode="bilinear")[0].softmax(0)
        confidence, predicted = (values.numpy() for values in probable.max(0))
        for bin in range(15):
            inside = (sample.labels != 255) & (confidence > bin / 15) & (confidence <= (bin + 1) / 15)
            sums[bin] += confidence[inside].sum(), (predicted == sample.labels)[inside].sum()
        total += (sample.labels != 255).sum()
    assert found["calibration_error"] == pytest.approx(np.abs(sums[:, 0] - sums[:, 1]).sum() / total, rel=1e-4)
    assert found["mean_confidence"] == pytest.approx(sums[:, 0].sum() / total, rel=1e-5)
    message = evaluate(segmenter, kitti, "--calibration", "--protocol", "paper-text")
    assert "The calibration error belongs to the protocol standard" in message


def test_three_stamped_numbers_from_one_pass(segmenter, kitti, capsys):
    scores = printed(capsys, segmenter, kitti, "--protocol", ALL)
    assert list(scores["protocols"]) == ALL.split(",") and scores["images"] == 2 and scores["abs_rel"] > 0
    stamps = {name: Stamp.from_dict(found["stamp"]) for name, found in scores["protocols"].items()}
    assert [stamp.resolution for stamp in stamps.values()] == ["own size", "192x640", "192x640"]
    alone = printed(capsys, segmenter, kitti)
    assert alone["protocol"] == "standard" and alone["stamp"] == scores["protocols"]["standard"]["stamp"]
    assert {name: alone[name] for name in scores["protocols"]["standard"]} == scores["protocols"]["standard"]
    assert alone["abs_rel"] == scores["abs_rel"]


def test_corrupted_images_are_evaluated_as_if_they_were_saved_so(segmenter, kitti, tmp_path, capsys):
    clear = printed(capsys, segmenter, kitti)
    foggy = printed(capsys, segmenter, kitti, "--corruption", "fog:2")
    saved_so = shutil.copytree(kitti, tmp_path / "data")
    for sample in load_dataset("folder", kitti, "val"):
        image = corrupt(sample.image, sample.name, "fog", 2)
        Image.fromarray(image).save(saved_so / "images" / f"{sample.name}.png")
    found = printed(capsys, segmenter, saved_so)
    for name in ("mean_iou", "per_class_iou", "abs_rel"):
        assert foggy[name] == found[name] != clear[name]
    assert foggy["corruption"] == foggy["stamp"]["corruption"] == "fog:2" and "corruption" not in clear
    assert foggy["stamp"]["digest"] != clear["stamp"]["digest"] == found["stamp"]["digest"]
    assert evaluate(segmenter, kitti, "--corruption", "fog:2") in (0, None)
    assert "folder, split val, fog:2: 2 images evaluated" in capsys.readouterr().out
    assert "no corruption 'frog'. Did you mean 'fog'" in evaluate(segmenter, kitti, "--corruption", "frog:2")


def test_the_table_of_a_terminal(segmenter, kitti, capsys):
    assert evaluate(segmenter, kitti, "--protocol", ALL) in (0, None)
    head, columns, *lines = capsys.readouterr().out.splitlines()
    assert head == "folder, split val: 2 images evaluated"
    assert columns.split() == ["protocol", "mean_iou", "pixel_accuracy", "mean_accuracy", "stamp"]
    scores = printed(capsys, segmenter, kitti, "--protocol", ALL)["protocols"]
    for line, (name, found) in zip(lines, scores.items(), strict=False):
        cells = line.split()
        assert cells[0] == name and cells[1] == f"{found['mean_iou']:.4g}" and cells[-1] == found["stamp"]["digest"]
    assert "-" in lines[2].split()  # the released scorer has no mean accuracy
    stamps = lines[-4:-1]
    assert [line.split(":")[0] for line in stamps] == ALL.split(",") and "labels bicubic" in stamps[-1]


def test_the_matrices_of_the_images_are_written(segmenter, kitti, tmp_path, capsys):
    words = (segmenter, kitti, "--protocol", ALL, "--output-dir", tmp_path / "out", "--boundary")
    scores = printed(capsys, *words)
    written, names, matrices = read_pass(tmp_path / "out")
    assert names == KittiLike().names[1:] and set(matrices) == set(ALL.split(","))
    assert written["dataset"] == "folder" and written["abs_rel"] == scores["abs_rel"]
    for name, found in scores["protocols"].items():
        assert {key: written["protocols"][name][key] for key in found} == found
    assert scores["protocols"]["standard"]["boundary_iou"] > 0
    assert "already; choose another --output-dir, or add --overwrite" in evaluate(*words)
    assert evaluate(*words, "--overwrite") in (0, None)


def test_windows_scales_and_flip_are_stamped(segmenter, kitti, capsys):
    words = ("--window", 32, 64, "--stride", 16, 64, "--scales", 0.5, 1, "--flip", "--protocol", "standard,paper-text")
    scores = printed(capsys, segmenter, kitti, *words)["protocols"]
    stamp = Stamp.from_dict(scores["standard"]["stamp"])
    assert (stamp.window, stamp.stride, stamp.scales, stamp.flip) == ((32, 64), (16, 64), (0.5, 1.0), True)
    assert Stamp.from_dict(scores["paper-text"]["stamp"]).window is None


def test_a_depth_model_is_evaluated_by_its_alignment(depth_model, kitti, capsys):
    scores = printed(capsys, depth_model, kitti, "--alignment", "median")
    assert scores["alignment"] == "median" and "stamp" not in scores and "protocol" not in scores


@pytest.mark.parametrize("way", ["--alignment", "--protocol"])
def test_the_former_name_of_alignment(depth_model, kitti, capsys, caplog, way):
    with caplog.at_level(logging.WARNING, "depthseg"):
        scores = printed(capsys, depth_model, kitti, way, "scale_shift")
    assert scores["alignment"] == "scale_shift"
    said = [record.getMessage() for record in caplog.records if "--alignment" in record.getMessage()]
    sentence = "--protocol scale_shift is called --alignment scale_shift now; the old name goes with the next version."
    assert said == ([sentence] if way == "--protocol" else [])


FAULTS = {
    "unknown": (["--protocol", "standart"], "no protocol 'standart'. Did you mean 'standard'"),
    "both": (["--protocol", "median", "--alignment", "none"], "both are given: leave it out"),
    "mixed": (["--protocol", "standard,median"], "median is a value of --alignment"),
    "no protocol": (["--protocol", ","], "No protocol is named"),
    "stride": (["--window", 8, 8, "--stride", 8, 9], "stride of 8 x 9 is larger than the window"),
    "scale": (["--scales", 0], "The scales are 0"),
    "no use": (["--flip", "--protocol", "paper-text"], "belong to the protocol standard"),
    "boundary": (["--boundary", "--protocol", "paper-text"], "boundary IoU belongs to the protocol standard"),
}


@pytest.mark.parametrize(("words", "sentence"), FAULTS.values(), ids=FAULTS)
def test_a_mistake_is_a_sentence(segmenter, kitti, words, sentence):
    said = evaluate(segmenter, kitti, *words)
    assert said.startswith("error: ") and sentence in said


def test_options_of_segmentation_do_not_go_with_a_depth_model(depth_model, kitti, tmp_path):
    said = evaluate(depth_model, kitti, "--flip", "--protocol", "paper-text", "--output-dir", tmp_path / "out")
    assert "is a depth model, and --flip, --output-dir, --protocol belong to segmentation" in said
    assert not (tmp_path / "out").exists()


def test_over_which_classes_a_mean_is_taken_is_printed(segmenter, kitti, capsys):
    assert evaluate(segmenter, kitti, "--protocol", ALL) in (0, None)
    lines = capsys.readouterr().out.splitlines()
    (release,) = (line for line in lines if line.startswith("paper-release: "))
    names = "road, sidewalk, building, vegetation, terrain, sky, car"
    assert f"mean over 7 classes ({names}); stamp" in release
    assert lines[-1].endswith("training/guides/is_this_iou_right.md")


def test_the_same_classes_in_another_order_are_refused_and_other_names_are_said(segmenter, kitti, tmp_path, caplog):
    data = shutil.copytree(kitti, tmp_path / "data")
    names = [f"x{name}" for name in IDS34.classes]
    (data / "classes.txt").write_text("\n".join(names))
    with caplog.at_level(logging.WARNING, "depthseg"):
        assert evaluate(segmenter, data) in (0, None)
    assert (
        f"Class names differ: 0 is {IDS34.classes[0]!r} of the model and {names[0]!r} of the data set" in caplog.text
    )
    (data / "classes.txt").write_text("\n".join(IDS34.classes[::-1]))
    assert "have the same classes in another order: 0 is 'unlabeled' of the model" in evaluate(segmenter, data)


def test_depth_of_a_video_run_is_aligned_and_its_options_are_named(depth_model, kitti, tmp_path, caplog, capsys):
    run = tmp_path / "run"
    shutil.copytree(depth_model, run / "model")
    options = ["model.encoder={model_type: depthseg_resnet}", "data.name=folder", f"data.root={kitti}"]
    options += ["task=depth", "pretext.supervision=mono", "data.options={val_fraction: 0.4, truth: depth}"]
    load_config(None, options).save(run / "config.yaml")
    with caplog.at_level(logging.WARNING, "depthseg"):
        scores = printed(capsys, run / "model", kitti, "--option", "truth=depth")
        assert scores["alignment"] == "median"
        assert printed(capsys, run / "model", kitti, "--alignment", "none")["alignment"] == "none"
    assert 'to do the same: --option "val_fraction=0.4"\n' in caplog.text
    assert "Depth from video has no scale" in caplog.text


def test_an_option_that_is_the_default_is_not_called_another(segmenter, kitti, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(segmenter, run / "model")
    options = ["model.encoder={model_type: depthseg_resnet}", "data.name=folder", f"data.root={kitti}"]
    load_config(None, [*options, "data.options={val_fraction: 0.2}"]).save(run / "config.yaml")
    with caplog.at_level(logging.WARNING, "depthseg"):
        assert evaluate(run / "model", kitti) in (0, None)
        assert "to do the same" not in caplog.text
        assert evaluate(run / "model", kitti, "--option", "val_fraction=0.3") in (0, None)
    assert 'to do the same: --option "val_fraction=0.2"\n' in caplog.text


def test_data_opened_without_depth_are_answered_with_the_option(depth_model, tmp_path):
    root = write_miniature("cityscapes", tmp_path / "cityscapes", 1)
    words = ("evaluate", "--model", depth_model, "--dataset", "cityscapes", "--root", root)
    with pytest.raises(SystemExit, match="cityscapes was opened without depth.* those of depth are depth, max_depth"):
        main([*map(str, words)])


def test_three_protocols_on_kitti_semantics_as_its_archive_unpacks(tmp_path, capsys):
    root = write_miniature("kitti_semantics", tmp_path / "kitti", 1)
    torch.manual_seed(0)
    config = DepthSegConfig(**NETWORK, id2label=LABEL_SPACES["cityscapes19"].id2label)
    model = saved(tmp_path / "model", DepthSegForSemanticSegmentation(config))
    words = ("evaluate", "--model", model, "--dataset", "kitti_semantics", "--root", root, "--split", "all")
    with pytest.raises(SystemExit) as exit_info:
        main([*map(str, words), "--protocol", ALL, "--option", "classes=34", "--json"])
    assert exit_info.value.code in (0, None)
    scores = json.loads(capsys.readouterr().out)
    found = scores["protocols"]
    assert list(found) == ALL.split(",") and scores["images"] == 5
    assert len({Stamp.from_dict(values["stamp"]).digest for values in found.values()}) == 3
    # The number of one protocol does not depend on which others run beside it, nor on how the ids were opened.
    with pytest.raises(SystemExit):
        main([*map(str, words), "--option", "classes=19", "--json"])
    alone = json.loads(capsys.readouterr().out)
    assert alone["mean_iou"] == found["standard"]["mean_iou"]
    assert alone["stamp"] == found["standard"]["stamp"]
    with pytest.raises(SystemExit, match=r"counts the 34 classes of the data set, and the scores are of 19"):
        main([*map(str, words), "--option", "classes=34", "--baseline", "all"])
