"""Two finished runs of a few seconds: depth in the procedural world, and labels that begin with it."""

from __future__ import annotations

from pathlib import Path

from depthseg.engine.config import load_config
from depthseg.engine.run import train


def tiny_runs(folder: Path) -> dict[str, Path]:
    """Run directories by task."""
    shared = [
        *("data.name=synthetic", f"data.root={folder / 'world'}", "data.size=[32,64]"),
        *("data.options={size: [32, 64]}", "data.train_options={count: 4}", "data.val_options={count: 12}"),
        *("optim.batch_size=2", "schedule.steps=4", "run.eval_every=2", "run.trackers=[]", "run.cpu=true"),
    ]
    encoder = "model.encoder={model_type: depthseg_resnet, depth: 18, width_factor: 0.125}"
    head = "model.head_config={decoder_channels: [8, 8, 8, 16, 16]}"
    runs = {task: folder / task for task in ("depth", "segmentation")}
    train(load_config(None, [*shared, encoder, head, "task=depth", f"run.output_dir={runs['depth']}"]))
    start = [f"model.pretrained={runs['depth'] / 'model'}", "data.subset_size=2", "run.select=last"]
    train(load_config(None, [*shared, *start, f"run.output_dir={runs['segmentation']}"]))
    return runs
