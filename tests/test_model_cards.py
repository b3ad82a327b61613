"""The card of the checkpoint in the repository: its numbers are its record's, its snippet runs without depthseg."""

import json
import re
import subprocess
import sys
from pathlib import Path

from depthseg.data.synthetic import WORLD_VERSION, SyntheticWorld
from depthseg.engine.evaluation import evaluate_model
from depthseg.engine.predict import load_model

ROOT = Path(__file__).parents[1]
TINY = ROOT / "model_cards" / "depthseg-tiny-world"
CARD = (TINY / "README.md").read_text()
RECORD = json.loads((TINY / "results.json").read_text())


def test_numbers_are_those_of_the_record():
    labels, depth = RECORD["labels"], RECORD["depth"]
    assert f"| mIoU, 11 classes of CamVid | {100 * labels['mean_iou']:.1f} % |" in CARD
    assert f"| pixel accuracy | {100 * labels['pixel_accuracy']:.1f} % |" in CARD
    assert f"| depth AbsRel, no alignment | {depth['abs_rel']:.3f} |" in CARD
    assert all(f"{name} {100 * iou:.1f}" in CARD for name, iou in labels["per_class_iou"].items())
    assert RECORD["world_version"] == WORLD_VERSION and WORLD_VERSION in CARD and "$" not in CARD


def test_the_checkpoint_still_scores_what_the_record_says(tmp_path):
    model, processor = load_model(TINY)
    frames = SyntheticWorld(tmp_path, "test", count=24, size=(120, 160))
    labels = evaluate_model(model, processor, frames, "segmentation")
    depth = evaluate_model(model, processor, frames, "depth")
    # The first 24 of the record's 200 frames: near its numbers, far from an untrained network's (2 to 9 %).
    assert abs(labels["pixel_accuracy"] - RECORD["labels"]["pixel_accuracy"]) < 0.05
    assert abs(depth["abs_rel"] - RECORD["depth"]["abs_rel"]) < 0.08


def test_snippet_runs_where_depthseg_cannot_be_imported():
    snippet = re.search(r"```python\n(.*?)```", CARD, re.DOTALL)[1]
    blocker = "import sys\nsys.modules['depthseg'] = None\n"
    done = subprocess.run([sys.executable, "-I", "-c", blocker + snippet], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "120, 160" in done.stdout
