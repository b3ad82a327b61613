"""The README and the pages that it links to are right: tables, numbers, commands and snippets."""

import importlib.util
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from depthseg import __version__
from depthseg.engine.config import load_config
from depthseg.study.report.findings import claim_rows, rows_of, verdict
from depthseg.study.report.tables import VERDICTS
from depthseg.study.report.text import between, signed

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TRAINING = (ROOT / "training" / "README.md").read_text()
STUDIES = (ROOT / "training" / "studies" / "README.md").read_text()
PAGES = [
    ROOT / name
    for name in ("README.md", "training/README.md", "training/studies/README.md", "model_cards/README.md")
    + ("depthseg/models/README.md", "depthseg/data/README.md", ".github/CONTRIBUTING.md")
    + (".agents/skills/depthseg/SKILL.md",)
]
RESULTS = ROOT / "training" / "results"
TINY = ROOT / "model_cards" / "depthseg-tiny-world"
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_generated_tables_are_up_to_date():
    spec = importlib.util.spec_from_file_location("render_pages", ROOT / "training" / "render_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(module.PAGES) == 3 and len(module.TABLES) == 8
    for name in module.PAGES:
        page = (ROOT / name).read_text()
        assert "<!-- table: " in page and page == module.fill(page), f"run training/render_pages.py for {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", page.read_text()):
        path = page.parent / target if target else page
        assert path.exists(), f"{page} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert anchor[1:] in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings]


def test_the_two_commands_stand_alone():
    assert COMMANDS[0].strip() == "python -m pip install -e . && depthseg quickstart"
    assert 'python -m pip install -e ".[test]" && python -m pytest\n' in COMMANDS


def test_first_snippet_segments_an_image():
    done = subprocess.run([sys.executable, "-c", SNIPPETS[0]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    height, width = np.asarray(Image.open(TINY / "street.png")).shape[:2]
    assert f"({height}, {width})" in done.stdout.replace("torch.Size([", "(").replace("])", ")")


def test_tiny_checkpoint_is_small_and_in_half_precision():
    assert (TINY / "model.safetensors").stat().st_size <= 10e6
    weights = load_file(TINY / "model.safetensors")
    assert {str(w.dtype) for n, w in weights.items() if "num_batches" not in n} == {"torch.bfloat16"}
    assert json.loads((TINY / "config.json").read_text())["keep_depth"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_recipes_and_options_that_a_page_names_exist(page):
    text = page.read_text()
    for name in re.findall(r"(?:training|model_cards)/[\w./-]+\.(?:py|yaml|sh|md|png|json)", text):
        assert (ROOT / name).exists(), name
    for command in re.findall(r"--config [^`\n|]*", text):
        _, recipe, *words = command.split()
        if re.fullmatch(r"[a-z0-9_]+", recipe):
            load_config(recipe, [word for word in words if re.fullmatch(r"[a-z_]+\.[a-z_.]+=\S+", word)])


def test_every_recipe_is_in_the_table():
    named = re.findall(r"^\| `(\w+)` \|", TRAINING.split("## Your own data")[0], re.MULTILINE)
    assert sorted(named) == sorted(path.stem for path in (ROOT / "training" / "configs").glob("*.yaml"))


def test_the_version_is_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


@pytest.mark.parametrize("name", ["camvid_fewshot", "camvid_film", "camvid_imagenet_mobilenetv2", "quickstart"])
def test_numbers_are_those_of_the_records(name):
    table = json.loads((RESULTS / f"{name}.json").read_text())["mean_iou"]
    assert table
    for initialisation, scores in table.items():
        mean, spread = 100 * statistics.mean(scores), 100 * statistics.stdev(scores)
        seeds = ", ".join(f"{100 * score:.1f}" for score in scores)
        assert f"| {initialisation} | {mean:.1f} ± {spread:.1f} | {seeds} |" in TRAINING


PRE_TRAININGS = {
    "supervised": "depth labels",
    "cropped": "depth labels, patches of 48x48",
    "stereo": "stereo pairs",
    "mono": "video of one camera, median aligned",
    "mono_stereo": "video of a stereo rig",
    "mono_learned_intrinsics": "video, focal length learned, median aligned",
    "classification": "classification of objects",
    "inpainting": "inpainting",
    "flow": "optical flow, images aligned",
}
OWN_SCORES = {
    "classification": ("accuracy {}", "accuracy"),
    "inpainting": ("L1 in the holes {}", "hole_l1"),
    "flow": ("end-point error {} px, photometric loss {}", "end_point_error", "photometric_loss"),
    "mono_learned_intrinsics": ("focal length off by {}", "focal_error"),
}


def mean_and_spread(values):
    return f"{statistics.mean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


@pytest.mark.parametrize(
    "name", sorted({path.stem.rpartition("_")[0] for path in (RESULTS / "pretext").glob("*_seed*")})
)
def test_numbers_of_the_pre_trainings_are_those_of_the_records(name):
    runs = [json.loads(path.read_text()) for path in sorted((RESULTS / "pretext").glob(f"{name}_seed?.json"))]
    assert {run["step"] for run in runs} == {1500}
    depth = ["", ""]
    if "abs_rel" in runs[0]:
        depth = [mean_and_spread([run[score] for run in runs]) for score in ("abs_rel", "delta1")]
        median = name in ("mono", "mono_learned_intrinsics")
        assert {(run["alignment"], run["images"]) for run in runs} == {("median" if median else "none", 100)}
    words, *scores = OWN_SCORES.get(name, ("",))
    own = words.format(*(mean_and_spread([run[score] for run in runs]) for score in scores))
    assert f"| {PRE_TRAININGS[name]} | {len(runs)} | {depth[0]} | {depth[1]} | {own} |" in TRAINING


def test_depth_from_video_is_compared_with_both_constants():
    mono = [json.loads(path.read_text())["abs_rel"] for path in (RESULTS / "pretext").glob("mono_seed?.json")]
    constant = json.loads((RESULTS / "pretext" / "constant.json").read_text())
    once, aligned = (statistics.mean(mono) / constant[name]["abs_rel"] for name in ("none", "median"))
    assert f"is {once:.2f} times that of the best constant depth, and {aligned:.2f} times that of\none" in TRAINING


def test_numbers_of_the_best_constants_are_those_of_the_record():
    found = json.loads((RESULTS / "pretext" / "constant.json").read_text())
    for alignment, row in (("none", "best constant depth"), ("median", "best constant depth, median aligned")):
        assert f"| {row} | | {found[alignment]['abs_rel']:.3f} | {found[alignment]['delta1']:.3f} |" in TRAINING
    flows = {
        "no_flow": "no flow",
        "same_flow": "the same flow in every frame, at best",
        "turn_and_no_flow": "the rotation of the camera, found by image alignment",
        "turn_and_same_flow": "the rotation and the same flow in every frame, at best",
    }
    for name, row in flows.items():
        words = OWN_SCORES["flow"][0].format(*(f"{found[name][score]:.3f}" for score in OWN_SCORES["flow"][1:]))
        assert f"| {row} | | | | {words} |" in TRAINING
    assert f"the true flow has {found['true_flow']['photometric_loss']:.3f}" in TRAINING


def test_numbers_of_the_real_video_are_those_of_the_record():
    found = json.loads((RESULTS / "kitti_clip.json").read_text())["intrinsics"]
    given, learned = found["given"], found["learned (one_camera)"]
    ate = {name: run["ate"] for name, run in given["trajectory"].items() if name != "clip"}
    rows = {
        "neighbours as they are": f"{given['warp_error']['identity']:.1f} | |",
        "driving straight on, with the network's depth": f"{given['warp_error']['straight_line']:.1f} | "
        f"{ate['straight_line']:.2f} m |",
        "network, given intrinsics": f"{given['warp_error']['model']:.1f} | {ate['model']:.2f} m |",
        "network, learned focal length (against driving straight: "
        f"{learned['warp_error']['straight_line']:.1f})": f"{learned['warp_error']['model']:.1f} | "
        f"{learned['trajectory']['model']['ate']:.2f} m |",
    }
    for name, numbers in rows.items():
        assert f"| {name} | {numbers}" in TRAINING
    focal = learned["focal_length"]
    assert f"{focal['learned'][0]:.0f} pixels, the true one {focal['given'][0]:.0f}" in TRAINING


def test_numbers_of_the_real_pair_are_those_of_the_record():
    found = json.loads((RESULTS / "stereo_motorcycle.json").read_text())
    constant = found["best constant disparity"]
    text = " ".join(TRAINING.split())
    assert f"is {found['median_error_px']:.2f} pixels, and {100 * found['bad4']:.1f} %" in text
    assert f"has {constant['median_error_px']:.1f} pixels and {100 * constant['bad4']:.1f} %" in text


def study_numbers(name):
    return json.loads((ROOT / "training" / "studies" / "results" / name / "report" / "results.json").read_text())


def study_scores(numbers):
    """A line an initialisation: mean IoU in each setting with runs, and how many runs it is the mean of."""
    settings = [setting for setting in numbers["settings"] if rows_of(numbers["main"], setting)]
    for init, entry in numbers["initialisations"].items():
        cells = []
        for setting in settings:
            rows = rows_of(numbers["main"], setting)
            (row,) = [row for row in rows if row["initialisation"] == init] or [None]
            cells.append(
                "" if row is None else f"{row['mean_iou']:.1f} ± {spread_of(numbers, row):.1f} ({row['runs']})"
            )
        yield f"| {entry['title']} | {' | '.join(cells)} |"


def spread_of(numbers, row):
    """Standard deviation over the runs, each the mean of its folds, from their records."""
    folder = ROOT / "training" / "studies" / "results" / numbers["name"] / numbers["folder"]
    runs = {}
    for record in (json.loads((folder / f"{key}.json").read_text()) for key in row["records"]):
        run = record["pretrain_seed"], record["finetune_seed"]
        runs.setdefault(run, []).append(record["scores"]["mean_iou"])
    return 100 * statistics.stdev(statistics.mean(folds) for folds in runs.values())


def study_claims(numbers):
    """A line a claim: what the study says of it in each setting that a claim is about."""
    rows = {claim["text"]: claim_rows(claim, numbers) for claim in numbers["claims"]}
    settings = [setting for setting in numbers["settings"] if any(rows_of(found, setting) for found in rows.values())]
    for claim in numbers["claims"]:
        cells = []
        for setting in settings:
            (row,) = rows_of(rows[claim["text"]], setting) or [None]
            text = "" if row is None else f"{VERDICTS[verdict(row)]}, {signed(row['difference'])}"
            cells.append(text + (f" ({between(row['interval'])})" if row and row["interval"] else ""))
        yield f"| {claim['text']} | {' | '.join(cells)} |"


@pytest.mark.parametrize("name", ["camvid", "camvid_real", "world"])
def test_what_the_page_says_of_a_study_is_what_its_report_says(name):
    numbers = study_numbers(name)
    for line in (*study_scores(numbers), *study_claims(numbers)):
        assert f"\n{line}\n" in STUDIES
