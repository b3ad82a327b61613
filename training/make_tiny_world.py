"""Make model_cards/depthseg-tiny-world from its training run: bfloat16 weights, scores on unseen frames, its card.

The last of the three commands that the card names, in a checkout.
"""

from __future__ import annotations

import argparse
import string
from pathlib import Path

import torch
from PIL import Image

from depthseg.data.synthetic import WORLD_VERSION, SyntheticWorld
from depthseg.engine.config import load_config
from depthseg.engine.evaluation import evaluate_model
from depthseg.engine.predict import load_model
from depthseg.engine.records import write_json

CARDS = Path(__file__).parents[1] / "model_cards"
TEST_FRAMES = 200


def main() -> None:
    """Save the weights, score what was saved, and fill in the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/tiny_world", type=Path)
    options = parser.parse_args()
    folder = CARDS / "depthseg-tiny-world"
    config, (model, processor) = load_config(options.run / "config.yaml"), load_model(options.run / "model")
    depth_config = load_config(Path(config.model.pretrained).parent / "config.yaml")
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    model, processor = load_model(folder)
    test_set = SyntheticWorld(config.data.root, "test", count=TEST_FRAMES, size=tuple(config.data.size))
    labels = evaluate_model(model, processor, test_set, "segmentation")
    depth = evaluate_model(model, processor, test_set, "depth")
    Image.fromarray(test_set[0].image).save(folder / "street.png")
    write_json(folder / "results.json", {"world_version": WORLD_VERSION, "labels": labels, "depth": depth})
    facts = {
        "parameters": f"{model.num_parameters() / 1e6:.1f} million",
        "megabytes": f"{(folder / 'model.safetensors').stat().st_size / 1e6:.1f}",
        "test_frames": TEST_FRAMES,
        "height": config.data.size[0],
        "width": config.data.size[1],
        **{name: f"{100 * labels[name]:.1f}" for name in ("mean_iou", "pixel_accuracy")},
        "abs_rel": f"{depth['abs_rel']:.3f}",
        "delta1": f"{100 * depth['delta1']:.1f}",
        "per_class": ", ".join(f"{name} {100 * iou:.1f}" for name, iou in labels["per_class_iou"].items()),
        "world_version": WORLD_VERSION,
        "train_frames": config.data.train_options["count"],
        "depth_steps": depth_config.schedule.steps,
        "joint_steps": config.schedule.steps,
        "batch_size": config.optim.batch_size,
    }
    template = string.Template((CARDS / "depthseg-tiny-world.template.md").read_text())
    (folder / "README.md").write_text(template.substitute(facts))


if __name__ == "__main__":
    main()
