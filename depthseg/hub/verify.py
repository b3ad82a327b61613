"""Checks before a checkpoint is published: it loads without depthseg, and its scores are those of its run."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import models
from ..data import DATASETS
from ..engine.build import build_datasets, source_of
from ..engine.evaluation import class_meter, depth_meter, evaluate_images, json_scores, stamp_of, sum_up
from ..engine.lora import is_adapter, load_adapted
from ..engine.predict import load_model
from ..engine.records import write_json
from ..engine.scoring import Scorer
from ..engine.tasks import task_of
from ..metrics.blocks import blocks_of, interval_of_iou, interval_of_mean
from ..metrics.depth import depth_scores_of_images

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn
    from transformers import PreTrainedModel

    from ..engine.options import RunConfig
    from .record import RunRecord

DRAWS = 2000
BLOCK_LENGTH = 10
"""Consecutive images of a sequence that are resampled together, because neighbouring frames are similar."""

TOLERANCE = 1e-3
"""By how much a score may differ from the record: machines round differently, and a pixel changes its class.

A rare class has few pixels, and a single one moves its IoU far. What the mean of K classes may move, one class alone
may have moved by K times as much.
"""

CLASSES = "per_class_iou"

STORED = ("data", "split", "size", "block_length", "intervals", "scores")

IMAGE_SCORES = ("abs_rel", "delta1")
"""Depth scores with an interval."""

CLEAN_PROCESS = """
import json, sys
sys.modules["depthseg"] = None
import numpy, transformers
folder, auto_class, image, answer = sys.argv[1:]
processor = transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
repo, load = folder, json.loads(sys.stdin.readline())
if load:
    exec(load)
elif hasattr(transformers, auto_class):
    model = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True)
else:  # transformers has no such class for optical flow
    code = json.load(open(folder + "/config.json"))["auto_map"][auto_class]
    model = transformers.dynamic_module_utils.get_class_from_dynamic_module(code, folder).from_pretrained(folder)
inputs = processor(images=[numpy.load(image, allow_pickle=False)], return_tensors="pt")
if auto_class == "AutoModelForOpticalFlow":
    inputs["other_pixel_values"] = inputs["pixel_values"].flip(-1)
outputs = model.eval()(**inputs)
name = next(name for name in json.loads(sys.stdin.read()) if name in outputs)
numpy.save(answer, outputs[name].detach().float().numpy())
"""
"""Processor and model in an environment with transformers and without depthseg."""

ADAPTED_MODEL = """
from peft import PeftModel
from transformers import AutoConfig
from transformers.dynamic_module_utils import get_class_from_dynamic_module

config = AutoConfig.from_pretrained(repo, trust_remote_code=True)
model_class = get_class_from_dynamic_module({code!r}, repo)
base = model_class.{method}(
    {base!r}, revision={revision!r}, dtype="float32", head_type=config.head_type, head_config=config.head_config{more}
)
model = model_class(config)
model.encoder.load_state_dict(base.encoder.state_dict())
model = PeftModel.from_pretrained(model, repo).eval()
""".strip()
"""Loads the adapters in `repo` with their base; in the card, and in the check."""

OUTPUTS = ("logits", "predicted_depth", "flow", "reconstruction")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A repeated evaluation of a model, image by image.

    Attributes:
        scores: The scores of the run; for a segmenter that also predicts depth, both.
        intervals: Score -> lower and upper end of its 95 % interval over test images, for these weights.
        names: Of the images.
        per_image: `confusion` int64 `(N, K, K)`, rows = truth; depth scores `(N,)` by name, NaN if an image has no
            depth; empty for pre-training tasks other than depth and segmentation.
        data: Name of the data set.
        split: Its split.
        size: Height and width of the first image.
        block_length: Consecutive images of a sequence that were resampled together for the intervals.
    """

    scores: dict[str, Any]
    intervals: dict[str, tuple[float, float]]
    names: list[str]
    per_image: dict[str, np.ndarray]
    data: str
    split: str
    size: tuple[int, int]
    block_length: int


def can_evaluate(record: RunRecord) -> bool:
    """Whether the evaluation of a run can be repeated from its weights.

    Depth from video without ground truth was evaluated with the pose network, which is not saved.
    """
    return record.config.task != "depth" or "abs_rel" in record.scores


def evaluate_checkpoint(config: RunConfig, model_dir: Path, alignment: str | None = None) -> Evaluation:
    """Evaluate weights on the device of their run: labels and depth image by image, other tasks as a whole.

    Args:
        config: Options of a run; its validation images are used.
        model_dir: The weights.
        alignment: Of depth; None = the default of its depth type.
    """
    train_set, dataset = build_datasets(config.data)
    device = torch.device("cuda" if torch.cuda.is_available() and not config.run.cpu else "cpu")
    data, block_length = source_of(config.data)[0], 1
    per_image: dict[str, np.ndarray] = {}
    intervals: dict[str, tuple[float, float] | None] = {}
    if task_of(config).predicts_maps:
        model, processor = load_model(model_dir, device=str(device))
        labels = class_meter(model, dataset) if isinstance(model, models.DepthSegForSemanticSegmentation) else None
        depth = depth_meter(model, dataset, alignment=alignment)
        meters = {task: meter for task, meter in (("segmentation", labels), ("depth", depth)) if meter is not None}
        states = [image for _, image in evaluate_images(model, processor, dataset, meters)]
        scores = sum_up(meters, states)
        arrays = {task: torch.stack([image[task] for image in states]).numpy() for task in meters}
        block_length = BLOCK_LENGTH if data is None or DATASETS[data].is_sequence else 1
        blocks = np.array(blocks_of(dataset.names, block_length))
        if "segmentation" in meters:
            scores["stamp"] = stamp_of(dataset.label_space).to_dict()
            per_image["confusion"] = arrays["segmentation"]
            intervals["mean_iou"] = interval_of_iou(arrays["segmentation"], blocks, DRAWS)
        if "depth" in meters:
            errors = depth_scores_of_images(arrays["depth"])
            per_image |= {name: errors[name] for name in IMAGE_SCORES}
            intervals |= {name: interval_of_mean(errors[name], blocks, DRAWS) for name in IMAGE_SCORES}
    else:
        model = model_of(model_dir).to(device, memory_format=torch.channels_last)
        processor = models.DepthSegImageProcessor.from_pretrained(model_dir)
        objective = task_of(config).objective(config, model, train_set).to(device).eval()
        # No Accelerator: its device would be that of all further runs of this process.
        alone = SimpleNamespace(device=device, process_index=0, num_processes=1, is_main_process=True)
        scores = Scorer(config, objective, processor, dataset, alone)()
    return Evaluation(
        scores=json_scores(scores),
        intervals={name: ends for name, ends in intervals.items() if ends is not None},
        names=list(dataset.names),
        per_image=per_image,
        data=data,
        split=config.data.val_split,
        size=dataset[0].image.shape[:2],
        block_length=block_length,
    )


def model_of(model_dir: Path) -> nn.Module:
    """The task model of a checkpoint in float32, for evaluation."""
    return class_of(model_dir).from_pretrained(model_dir, dtype=torch.float32).eval()


def class_of(model_dir: Path) -> type[PreTrainedModel]:
    """The class of the model that a folder contains."""
    return getattr(models, json.loads((model_dir / "config.json").read_text())["architectures"][0])


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write `scores.json` and the scores of every image, `per_image.npz`, to a new folder."""
    folder.mkdir()
    np.savez_compressed(folder / "per_image.npz", names=np.array(evaluation.names), **evaluation.per_image)
    known = {name: getattr(evaluation, name) for name in STORED}
    write_json(folder / "scores.json", known | {"images": len(evaluation.names)})


def read_evaluation(folder: Path) -> Evaluation:
    """Read the files of `write_evaluation`."""
    known = json.loads((folder / "scores.json").read_text())
    with np.load(folder / "per_image.npz", allow_pickle=False) as arrays:
        per_image = dict(arrays)
    names = per_image.pop("names").tolist()
    return Evaluation(names=names, per_image=per_image, **{name: known[name] for name in STORED})


def compare_scores(found: dict[str, Any], recorded: dict[str, Any], where: Path) -> None:
    """Refuse weights whose scores differ from those that their run logged.

    Raises:
        ValueError: A score differs by more than `TOLERANCE`, or by that share of it where it is above 1; the IoU of
            one of K classes by more than K times as much.
    """
    wrong, before = [], _flat(recorded)
    for name, value in _flat(found).items():
        expected = before.get(name)
        if isinstance(value, float) and isinstance(expected, float):
            allowed = TOLERANCE * (len(recorded[CLASSES]) if name.startswith(f"{CLASSES}.") else 1)
            if not math.isclose(value, expected, rel_tol=allowed, abs_tol=allowed):
                wrong.append(f"{name} is {value:.5g}, not {expected:.5g}")
    if wrong:
        raise ValueError(
            f"The weights in {where} do not reproduce the scores that their run logged: {'; '.join(wrong)}. Weights, "
            "data or record have changed since. Restore them, or train again."
        )


def _flat(scores: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for name, value in scores.items():
        inside = _flat(value) if isinstance(value, dict) else {"": value}
        flat |= {f"{name}.{key}".rstrip("."): number for key, number in inside.items()}
    return flat


def adapted_model(
    architecture: str, base: str, revision: str | None, method: str, arguments: Mapping[str, Any]
) -> str:
    """The lines of Python that load adapters with their base, where transformers and peft are.

    Args:
        architecture: Class of the model.
        base: Repository of the base.
        revision: Its revision.
        method: The class method that loads it.
        arguments: Of that method.
    """
    code = models.modeling_depthseg.auto_map()[getattr(models, architecture).auto_class]
    more = "".join(f", {name}={value!r}" for name, value in arguments.items())
    return ADAPTED_MODEL.format(code=code, method=method, base=base, revision=revision, more=more)


def check_loads_elsewhere(folder: Path, load: str = "") -> None:
    """Load a checkpoint in a new process where depthseg cannot be imported, and compare its output.

    Args:
        folder: The checkpoint, with its code.
        load: Lines of Python that load `model` from `repo`; empty = an Auto class does.

    Raises:
        ValueError: It does not load there, or its output differs.
    """
    model_class = class_of(folder)
    with tempfile.TemporaryDirectory() as scratch:
        image, answer = Path(scratch, "image.npy"), Path(scratch, "answer.npy")
        size = json.loads((folder / "preprocessor_config.json").read_text()).get("size") or {"height": 64, "width": 96}
        pixels = np.random.default_rng(0).integers(0, 256, (size["height"], size["width"], 3), dtype=np.uint8)
        np.save(image, pixels)
        arguments = (str(folder.resolve()), model_class.auto_class, str(image), str(answer))
        done = subprocess.run(
            [sys.executable, "-I", "-c", CLEAN_PROCESS, *arguments],
            input=f"{json.dumps(load)}\n{json.dumps(OUTPUTS)}",
            env=os.environ | {"HF_MODULES_CACHE": str(Path(scratch, "modules")), "HF_HUB_OFFLINE": "1"},
            cwd=scratch,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["the process printed no error"])[-1]
            raise ValueError(f"{folder} does not load in a process without depthseg: {last}")
        elsewhere = np.load(answer, allow_pickle=False)
    here = _output_of(folder, model_class, pixels)
    if here.shape != elsewhere.shape or not np.allclose(here, elsewhere, rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"The output of {folder} differs in a process without depthseg. The code next to the weights is from "
            "another release: load the model and save it again with this release."
        )


@torch.no_grad()
def _output_of(folder: Path, model_class: type[PreTrainedModel], pixels: np.ndarray) -> np.ndarray:
    model = load_adapted(model_class, folder) if is_adapter(folder) else model_class.from_pretrained(folder).eval()
    inputs = models.DepthSegImageProcessor.from_pretrained(folder)(images=[pixels], return_tensors="pt")
    if model_class is models.DepthSegForOpticalFlow:
        inputs["other_pixel_values"] = inputs["pixel_values"].flip(-1)
    outputs = model(**inputs)
    return outputs[next(name for name in OUTPUTS if name in outputs)].float().numpy()
