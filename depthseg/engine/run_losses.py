"""The loss of a run: of a model from Python as the options say, and of a resumed run as it began."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError

from ..models import DepthSegConfig
from .checkpoint import SELECTED
from .records import RUN_RECORD, read_run_record, write_json
from .tasks import is_self_supervised, task_of

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator
    from torch import nn

    from ..data import SampleDataset
    from .options import RunConfig

OPTIONS = ("depth_loss", "segmentation_loss", "class_weights", "label_smoothing")


def set_losses(config: RunConfig, model: nn.Module, train_set: SampleDataset) -> None:
    """Let a model that was passed from Python have the loss that the options name; what is null stays its own.

    Raises:
        ValueError: The options do not fit each other or the classes of the model.
    """
    given = {name: value for name in OPTIONS if (value := getattr(config.model, name)) is not None}
    if "class_weights" in given:
        given["class_weights"] = task_of(config).model_options(config, train_set)["class_weights"]
    before = {name: getattr(model.config, name) for name in given}
    try:
        for name, value in given.items():
            setattr(model.config, name, value)
        model.config.validate()
    except StrictDataclassError as error:
        for name, value in before.items():
            setattr(model.config, name, value)
        raise ValueError(f"The options of `model` do not fit the model given: {error.__cause__ or error}") from error


def keep_losses(config: RunConfig, model: nn.Module, run_dir: Path, checkpoint: Path) -> None:
    """Give the model of a run that is resumed the loss with which it began.

    What the options leave open may be chosen otherwise by another version of depthseg, or by other labels. The model
    is changed in place.
    """
    record = read_run_record(run_dir / RUN_RECORD)
    if config.model.class_weights is not None and "class_weights" in record:
        model.config.class_weights = record["class_weights"]
    if _is_depth_loss_open(config):
        model.config.depth_loss = record.get("depth_loss") or _depth_loss_before(run_dir, checkpoint)


def record_losses(config: RunConfig, model: nn.Module, run_dir: Path, accelerator: Accelerator) -> None:
    """Write into `run.json` what was chosen where the options leave it open; called by all processes."""
    chosen: dict[str, Any] = {}
    if config.model.class_weights is not None:
        chosen["class_weights"] = model.config.class_weights
    if _is_depth_loss_open(config):
        chosen["depth_loss"] = model.config.depth_loss
    if accelerator.is_main_process and chosen:
        write_json(run_dir / RUN_RECORD, read_run_record(run_dir / RUN_RECORD) | chosen)


def _is_depth_loss_open(config: RunConfig) -> bool:
    of_depth = config.task == "depth" and not is_self_supervised(config)
    return of_depth and config.model.pretrained is not None and config.model.depth_loss is None


def _depth_loss_before(run_dir: Path, checkpoint: Path) -> str:
    """The loss of a run whose record does not name it: that of its saved model, or of one that names none."""
    for folder in (checkpoint / SELECTED, run_dir / "model"):
        if (folder / "config.json").is_file():
            stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return stored.get("depth_loss", DepthSegConfig.depth_loss)
    return DepthSegConfig.depth_loss
