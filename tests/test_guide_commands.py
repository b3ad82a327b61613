"""Every command of the guides runs, in the order of its page, on tiny data and with tiny networks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from convert.vit_networks import DinoV3
from data.map_files import save_depth, save_labels
from data.video_files import world_frame, write_video
from engine.test_before_after import write_depth_anything
from guide_commands import (
    CHECKOUT,
    PROJECT,
    SMALL_RESNET,
    commands_of,
    read_command,
    read_guide,
    read_header,
    run_command,
    run_guide,
    table_calls,
)
from guide_scripts import load_script
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

from depthseg.data import doctor
from depthseg.data.synthetic import render
from depthseg.engine.config import load_config
from depthseg.engine.scoring import FLAT_SPREAD
from depthseg.hub import licences

PAGES = (
    *("demo", "depth_anything_on_your_depth", "dino_segmenter", "from_other_libraries", "may_i_use_this_commercially"),
    *("one_gpu_to_a_cluster", "own_film_without_calibration"),
)
CLASSES = ("road", "building", "sky")
RESULTS = CHECKOUT / "training" / "results"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where the commands of a page are typed."""
    monkeypatch.chdir(tmp_path)


def write_data(root, count=6, size=(48, 96)):
    """Images of the procedural world with depth and label maps of three classes."""
    for name in ("images", "depth", "labels"):
        Path(root, name).mkdir(parents=True)
    for number in range(count):
        scene = render(0, number, size, outputs=["image", "depth", "labels"])
        Image.fromarray(scene["image"]).save(Path(root, "images", f"{number}.png"))
        save_depth(Path(root, "depth", f"{number}.png"), np.uint16(256 * scene["depth"]))
        save_labels(Path(root, "labels", f"{number}.png"), np.uint8(scene["labels"] % len(CLASSES)))
    Path(root, "classes.txt").write_text("\n".join(CLASSES))


def write_dinov2(folder):
    """A bare DINOv2 as transformers saves it, with the file of its image processor."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "mlp_ratio": 2}
    Dinov2Model(Dinov2Config(**size, image_size=28, patch_size=14)).save_pretrained(folder)
    processor = {"image_processor_type": "BitImageProcessor", "do_rescale": True, "rescale_factor": 1 / 255}
    processor |= {"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    Path(folder, "preprocessor_config.json").write_text(json.dumps(processor))


def config_of(model):
    return json.loads(Path(model, "config.json").read_text())


def statuses(model):
    """Part -> what became of it when the model was initialised."""
    return {part["part"]: part["status"] for part in config_of(model)["weight_lineage"][-1]["parts"]}


@pytest.mark.parametrize("name", PAGES)
def test_commands_of_a_page_are_understood(name):
    """Without running them: every command line and every option of a run exists."""
    for command, code in (*commands_of(read_guide(name)), *table_calls(read_guide(name))):
        if not code:
            read_command(command)
    prose = re.sub(r"^```.*?^```$", "", read_guide(name), flags=re.MULTILINE | re.DOTALL)
    for option in re.findall(r"`((?:data|model|optim|pretext|run|schedule)\.[a-z_.]+=[^`{} ]+)`", prose):
        recipe = "pretrain_video_mono" if option.startswith("pretext") else None
        load_config(recipe, ["model.encoder={model_type: depthseg_resnet}", option])


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_short_and_its_links_lead_somewhere(name):
    page = read_guide(name)
    assert len(page.splitlines()) <= 90
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]+)(#[^)]*)?\)", page):
        path = CHECKOUT / "training" / "guides" / target
        assert path.exists(), target
        titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
        assert not anchor or anchor[1:] in [
            re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles
        ]


def test_depth_anything_on_your_depth():
    write_data("my_depth")
    write_depth_anything(Path("relative"))
    write_depth_anything(Path("metric"), depth_estimation_type="metric", max_depth=80)
    small = ("data.size=[28,42]", "run.report=false")
    recipe = "--config depth_anything_own_depth data.root=my_depth"
    printed = run_guide(
        "depth_anything_on_your_depth",
        {
            recipe: f"{recipe} model.pretrained=relative",
            "depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf": "metric",
            "run.output_dir=runs/own_metric": "run.output_dir=runs/own_metric run.report=false",
        },
        {"depth_anything_own_depth": ("data.size=[28,42]",), "folder_fewshot_resnet18": small},
    )
    assert statuses("runs/depth_anything_own_depth/model") == dict.fromkeys(
        ("encoder", "head", "depth_predictor"), "taken"
    )
    assert "constant depth" in Path("runs/depth_anything_own_depth/report/before_after.md").read_text()
    kinds = {name: config_of(f"runs/{name}/model") for name in ("depth_anything_own_depth", "own_metric")}
    assert [(kind["depth_type"], kind["depth_loss"], kind["max_depth"]) for kind in kinds.values()] == [
        ("relative_inverse", "ssi", 100.0),
        ("metric", "silog", 80.0),
    ]
    segmenter = statuses("runs/folder_fewshot/model")
    assert (segmenter["encoder"], segmenter["head"], segmenter["classifier"]) == ("taken", "taken", "new")
    check, doctor_report, scores = (
        next(text for command, text in printed.items() if words in command)
        for words in ("datasets check", "datasets doctor", "depthseg evaluate")
    )
    assert "median" in check and "static" in doctor_report and "scale_shift_inverse" in scores
    assert len(list(Path("depth_predictions").glob("json/*.json"))) == 6


def test_dino_segmenter():
    write_data("my_data")
    torch.manual_seed(0)
    torch.save(DinoV3().state_dict(), "dinov3_vits16_pretrain_lvd1689m.pth")
    write_dinov2("dinov2")
    size = ("data.size=[32,48]", "run.report=false")
    printed = run_guide(
        "dino_segmenter",
        {"facebook/dinov2-small": "dinov2", "out_indices: [9]": "out_indices: [3]"},
        {"folder_fewshot_resnet18": size},
    )
    for name, head in (("dinov2_linear", "linear"), ("dinov3_linear", "linear"), ("dinov3_masks", "mask_queries")):
        config = config_of(f"runs/{name}/model")
        assert config["head_type"] == head and statuses(f"runs/{name}/model")["encoder"] == "taken"
        hashes = json.loads(Path("runs", name, "run.json").read_text())["encoder_hash"]
        assert hashes["before"] == hashes["after"]
    assert config_of("runs/dinov2_block9/model")["encoder_config"]["out_indices"] == [3]
    convert, python, evaluate = (
        printed[command] for command in printed if "runs/dinov" not in command or "--flip" in command
    )
    assert "DINOv3" in convert and "majority class" in evaluate and "encoder of the checkpoint" in python


def test_the_numbers_of_dino_are_those_of_the_repository():
    page = read_guide("dino_segmenter")
    rows = re.findall(r"^\| `\[(\d+)\]`.* \| ([\d.]+) \|$", (CHECKOUT / "depthseg/models/README.md").read_text(), re.M)
    assert f"| {dict(rows)['9']}; {dict(rows)['12']} |" in page
    table6 = (CHECKOUT / "depthseg/study/presets/table6.yaml").read_text()
    assert "{initialisation: dinov2, mode: linear, benchmark: ade20k, mean_iou: 47.7}" in table6
    assert "| DINOv2, linear | ADE20K | 47.7 |" in page


@pytest.fixture(scope="module")
def may_i():
    return load_script("may_i_use_this_commercially")


def test_the_licences_are_up_to_date(may_i):
    page = may_i.PAGE.read_text()
    assert page == may_i.fill(page), "run training/guides/may_i_use_this_commercially.py"
    (printed,) = run_guide("may_i_use_this_commercially").values()
    allowed, refused = printed.splitlines()
    assert allowed == "[]"
    assert refused.startswith("The data set camvid is under cc-by-nc-4.0, for non-commercial use only")


@pytest.mark.parametrize(
    ("licence", "follows"),
    [
        ("apache-2.0", "under any licence that keeps the notices"),
        ("cc0-1.0", "under any licence"),
        ("cc-by-nc-4.0", "under a non-commercial licence"),
        ("cc-by-nc-sa-3.0", "under cc-by-nc-sa-3.0 or cc-by-nc-sa-4.0"),
        ("dinov3-license", "under dinov3-license"),
        ("apple-amlr", "under apple-amlr"),
    ],
)
def test_what_a_licence_asks_of_a_derived_model(may_i, licence, follows):
    assert may_i.derived(licences.LICENCES[licence], "weights") == follows


def test_every_rule_of_licences_has_a_row(may_i):
    ids = [id for family in (*may_i.DEPTH, *may_i.IMAGE) for id in family.ids]
    for pattern, _ in licences._WEIGHTS:
        assert any(re.fullmatch(pattern, id, re.IGNORECASE) for id in ids), pattern


def test_a_row_of_two_licences_is_named(may_i):
    both = may_i.Family("both", ("depth-anything/Depth-Anything-V2-Small-hf", "apple/DepthPro-hf"), "")
    with pytest.raises(ValueError, match="'both' has the licences apache-2.0, apple-amlr; it needs one"):
        may_i.licence_of(both)


@pytest.mark.heavy
def test_own_film_without_calibration():
    write_data("my_data")
    write_video(Path("drive.mp4"), [world_frame((0, 1), time)["image"] for time in range(6)])
    film = (*SMALL_RESNET, "data.size=[32,96]", "pretext.pose_encoder={width_factor: 0.125}")
    printed = run_guide(
        "own_film_without_calibration",
        sizes={"pretrain_video_mono": film, "folder_fewshot_resnet18": (*SMALL_RESNET, "run.report=false")},
    )
    segmenter = statuses("runs/folder_fewshot/model")
    assert (segmenter["encoder"], segmenter["head"]) == ("taken", "taken")
    shown = "".join(printed.values())
    assert "identity" in shown and "straight_line" in shown
    report = printed["depthseg datasets doctor drive.mp4"]
    for name in re.findall(
        r"^\| ([a-z ]+) \|", read_guide("own_film_without_calibration").split("## The focal")[0], re.M
    ):
        assert name == "line" or f"\n  {name} " in report, name


def test_the_numbers_of_the_film_are_those_of_the_doctor_and_of_the_records():
    page = read_guide("own_film_without_calibration")
    assert f"| {100 * doctor.LEAST_PARALLAX:g} % of the width or more |" in page
    assert f"| less than {100 * doctor.MOST_MOTION:g} % of the width |" in page
    assert f"| {doctor.LEAST_ROTATION} degrees a frame or more in the fastest tenth |" in page
    assert f"`depth_spread` below {FLAT_SPREAD}" in page
    found = json.loads((RESULTS / "kitti_clip.json").read_text())["intrinsics"]
    errors = found["given"]["warp_error"]
    numbers = [f"{errors[name]:.1f}" for name in ("model", "identity", "straight_line")]
    assert f"they are {numbers[0]}, {numbers[1]} and {numbers[2]}" in page
    learned = found["learned (one_camera)"]
    focal = learned["focal_length"]
    assert f"{focal['learned'][0]:.0f} pixels were learned where {focal['given'][0]:.0f} are true" in page
    assert f"{learned['warp_error']['model']:.1f} in place of {errors['model']:.1f} grey levels" in page


def test_one_gpu_to_a_cluster():
    write_data("my_data")
    Path("depthseg").symlink_to(CHECKOUT / "depthseg")
    small = (*SMALL_RESNET, "data.num_workers=0", "run.precision=no", "run.report=false")
    run_guide(
        "one_gpu_to_a_cluster",
        {"data.root=/data": "data.root=my_data", "run.output_dir=/runs/first": "run.output_dir=runs/first"},
        {"folder_fewshot_resnet18": small},
    )
    assert Path("runs/first/model").is_dir()


@pytest.mark.parametrize("name", ["finetune_segmentation", "pretrain_depth", "evaluate"])
def test_the_header_of_a_script_has_the_requirements_of_the_project(name):
    header = read_header(CHECKOUT / "training" / f"{name}.py")
    video = PROJECT["optional-dependencies"]["video"] if name == "pretrain_depth" else []
    assert header == {
        "requires-python": PROJECT["requires-python"],
        "dependencies": [*PROJECT["dependencies"], *video],
    }


@pytest.mark.parametrize(
    "command",
    [
        "accelerate launch --config_file training/launch/none.yaml training/evaluate.py",
        "accelerate launch --processes 8 training/evaluate.py",
        "torchrun --nproc 8 training/evaluate.py",
        "hf jobs uv run --flavor abacus training/evaluate.py",
        "python -m pip install depthseg[films]",
        "depthseg fine-tune --config folder_fewshot_resnet18",
        "mpirun python training/evaluate.py",
    ],
)
def test_a_wrong_command_is_seen(command):
    Path("training").symlink_to(CHECKOUT / "training")
    with pytest.raises((AssertionError, SystemExit, FileNotFoundError)):
        run_command(command, {"folder_fewshot_resnet18": ()})


@pytest.mark.heavy
def test_from_other_libraries():
    write_data("my_data")
    write_dinov2("dinov2")
    write_depth_anything(Path("relative"))
    replaced = {
        '"swin"}': '"swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]}',
        '{"model_type": "depthseg_resnet", "depth": 18}': '{"model_type": "depthseg_resnet", "width_factor": 0.125}',
        "facebook/dinov2-small": "dinov2",
        "depth-anything/Depth-Anything-V2-Small-hf": "relative",
        "max_steps=100": "max_steps=1, use_cpu=True, disable_tqdm=True",
    }
    size = ("data.size=[28,56]", "run.report=false")
    printed = run_guide("from_other_libraries", replaced, {"folder_fewshot_resnet18": size}, table_calls)
    assert Path("model.onnx").is_file() and len(list(Path("predictions").glob("json/*.json"))) == 6
    (score,) = (text for command, text in printed.items() if command.startswith("print(SegmentationMetric"))
    assert 0 <= float(score) <= 1
