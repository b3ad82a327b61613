"""A study of a few seconds on small images of the procedural world."""

from __future__ import annotations

from pathlib import Path

from depthseg.study.options import StudyOptions, load_study

TEXT = """
name: tiny
summary: Does anything happen?
initialisations:
  none: {{title: random initialisation}}
  depth: {{pretrain: {{task: depth}}}}
  deeper: {{after: depth, pretrain: {{task: depth}}}}
architectures:
  eighth:
    model:
      encoder: {{model_type: depthseg_resnet, depth: 18, width_factor: 0.125}}
      head_config: {{decoder_channels: [8, 8, 8, 16, 16]}}
modes:
  frozen: {{model: {{freeze_encoder: true}}}}
benchmarks:
  world: {{num_labelled: [2, 3], folds: {{test: {{data: {{val_split: test}}}}}}}}
seeds: {{pretrain: 1, finetune: 2}}
rates: {{fixed: 0.001, grid: [0.001, 0.003], seeds: 1, num_labelled: 2, data: {{data: {{val_split: val}}}}}}
block_length: 2
measures: [iou_by_depth]
reference: none
pretrain: &run
  data:
    name: synthetic
    root: {root}
    size: [32, 64]
    options: {{size: "${{data.size}}"}}
    train_options: {{count: 4}}
    val_options: {{count: 3}}
  optim: {{batch_size: 2}}
  schedule: {{steps: 2}}
  run: {{trackers: [], cpu: true, select: last, eval_every: 1, report: false}}
finetune:
  <<: *run
  task: segmentation
scales:
  smaller: {{benchmarks: {{world: {{num_labelled: [2]}}}}, rates: {{grid: []}}}}
"""


def tiny_study(folder: Path, *overrides: str, scale: str = "full", text: str = TEXT) -> StudyOptions:
    """The study, with its file and its world in a folder."""
    path = folder / "tiny.yaml"
    path.write_text(text.format(root=folder / "world"))
    return load_study(str(path), scale, overrides)
