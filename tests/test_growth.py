"""What an addition touches: one of each kind is added to a copy of the package, in these files and no other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import depthseg
from depthseg.recipes import recipes

RUN_OPTION = {
    "engine/options.py": (
        ("        momentum: Momentum of SGD.\n", "        amsgrad: Whether Adam keeps the largest second moment.\n"),
        ("    momentum: NotNegative = 0.9\n", "    amsgrad: bool = False\n"),
    ),
    "engine/optim.py": (
        (
            'kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[options.name]\n',
            "    kind = partial(kind, amsgrad=options.amsgrad)\n",
        ),
        ("import math\n", "from functools import partial\n"),
    ),
}

DATASET = {
    "data/stripes.py": '''"""Images of stripes."""

import numpy as np

from .label_spaces import LabelSpace, default_palette
from .sample import Sample


class Stripes:
    """Two classes in stripes of a given width."""

    splits = ("train", "val")

    def __init__(self, root, split, *, width: int = 4):
        self.names = [f"{split}_{index}" for index in range(3)]
        self.label_space = LabelSpace("stripes", ("dark", "bright"), default_palette(2))
        self._width = width

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        labels = np.tile(np.arange(48) // self._width % 2, (32, 1)).astype(np.uint8)
        return Sample(self.names[index], np.repeat(255 * labels[..., None], 3, axis=2), labels)
''',
    "data/__init__.py": (
        (
            "DATASETS: dict[str, DatasetEntry] = {\n",
            '    "stripes": DatasetEntry(Stripes, Stripes.splits, "stripes of two classes", OWN_LICENCE),\n',
        ),
        ("from .stereo import StereoPairs\n", "from .stripes import Stripes\n"),
    ),
}

HEAD = {
    "models/heads_half_depthseg.py": '''"""A head of one convolution to half the channels."""

from dataclasses import dataclass

from torch import Tensor, nn

from .encoders_base_depthseg import EncoderFeatures
from .heads_blocks_depthseg import PixelHead


@dataclass(frozen=True)
class HalfHeadConfig:
    """Options of [`HalfHead`]: none."""


class HalfHead(PixelHead):
    """A 1x1 convolution on the deepest map."""

    def __init__(self, channels, strides, num_prefix_tokens, config):
        super().__init__(slice(-1, None), channels[-1] // 2, strides[-1])
        self.convolution = nn.Conv2d(channels[-1], channels[-1] // 2, 1)

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`DepthSegHead.forward`]."""
        return [self.convolution(features.maps[-1])]
''',
    "models/heads_depthseg.py": (
        (
            "HEADS: dict[str, HeadEntry] = {\n",
            '    "half": HeadEntry(HalfHead, HalfHeadConfig, "dense", ("depth", "segmentation"), 1, "", ""),\n',
        ),
        ("from .heads_fcn_depthseg import", "from .heads_half_depthseg import HalfHead, HalfHeadConfig\n"),
    ),
}

PRETEXT_TASK = {
    "models/modeling_pretext_depthseg.py": (
        (
            "def side_by_side(",
            '''class DepthSegForMeanColour(DepthSegPreTrainedModel):
    """Predicts the mean colour of an image."""

    auto_class = "AutoModelForMeanColour"
    _auto_class = auto_class
    parts = ("encoder", "pretext_head")

    @classmethod
    def build_pretext_head(cls, encoder: DepthSegEncoder, config: DepthSegConfig) -> ImageClassifier:
        """From the deepest map to a colour."""
        return ImageClassifier(encoder, 3)

    def __init__(self, config: DepthSegConfig):
        super().__init__(config)
        self.pretext_head = self.build_pretext_head(self.encoder, config)
        self.finish_init()

    def freeze_unused_parameters(self) -> None:
        """Take the parameters that the deepest map does not depend on out of training."""
        for parameter in self.encoder.unused_parameters(slice(-1, None)):
            parameter.requires_grad_(False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Predict `(B, 3)`."""
        return self.pretext_head(self.encode(pixel_values).maps[-1])


''',
        ),
    ),
    "pretext/mean_colour.py": '''"""Prediction of the mean colour."""

import torch
from torch import nn


class MeanColourObjective(nn.Module):
    """L1 error of the mean colour."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def count_valid(self, batch):
        """Number of images."""
        return torch.tensor([len(batch["image"])])

    def forward(self, batch, num_valid=None):
        """Compute the loss of one (micro-)batch."""
        count = (self.count_valid(batch) if num_valid is None else num_valid)[0]
        error = self.model(batch["pixel_values"]) - batch["image"].mean((2, 3))
        return {"loss": error.abs().mean(1).sum() / count}
''',
    "metrics/colour.py": '''"""Errors of mean colours."""

import torch

from .meter import Meter


class ColourErrors(Meter):
    """Mean absolute error."""

    def __init__(self):
        self.state = torch.zeros(2, dtype=torch.float64)

    def update(self, predicted, image):
        """Evaluate a batch."""
        error = (predicted - image.mean((2, 3))).abs().mean(1).double()
        self.state += torch.stack([error.sum(), torch.tensor(len(error)).double()])

    def compute(self):
        """The mean over images."""
        return {"colour_l1": (self.state[0] / self.state[1]).item()}
''',
    "engine/tasks.py": (
        (
            "TASKS = {\n",
            """    "mean_colour": Task(
        DepthSegForMeanColour,
        "mean colour of an image",
        (Score("colour_l1", "L1 error of the colour", min),),
        lambda config: BatchContent(images=True),
        lambda config, model, train_set: MeanColourObjective(model),
        meter=lambda model: ColourErrors(),
        measure=lambda meter, objective, batch, sample: meter.update(
            objective.model(batch["pixel_values"]), batch["image"]
        ),
        needs_labels=False,
    ),
""",
        ),
        (
            "from .batches import BatchContent\n",
            "from ..metrics.colour import ColourErrors\n"
            "from ..models.modeling_pretext_depthseg import DepthSegForMeanColour\n"
            "from ..pretext.mean_colour import MeanColourObjective\n",
        ),
    ),
    "engine/options.py": (("Task = Literal[", '"mean_colour", '),),
}

MEASURE = {
    "metrics/largest_class.py": '''"""How much of the predictions is of the most frequent class."""

import numpy as np


def largest_class_share(predictions):
    """Share of the pixels of label maps, from 0 to 1."""
    counts = np.bincount(np.concatenate([labels.ravel() for labels in predictions]))
    return counts.max() / counts.sum()
''',
    "engine/analysis.py": (
        (
            "MEASURES = {\n",
            """    "largest_class": Measure(
        "Share of the most frequent class",
        "percent",
        compute=lambda model, processor, dataset: largest_class_share(
            labels for labels, _ in evaluate_images(model, processor, dataset, {})
        ),
    ),
""",
        ),
        ("from ..metrics.groups import", "from ..metrics.largest_class import largest_class_share\n"),
    ),
}

ADDITIONS = {
    "run option": (RUN_OPTION, 2),
    "data set": (DATASET, 2),
    "head": (HEAD, 2),
    "pretext task": (PRETEXT_TASK, 5),
    "measure": (MEASURE, 2),
}
"""What is added -> the files, each the text of a new one or pairs of a line and what comes beside it; how many."""

SCRIPTS = {
    "run option": """
from depthseg.engine.config import load_config, own_options
from depthseg.engine.optim import build_optimizer
from torch import nn
from depthseg.engine.options import RunConfig
from depthseg.reading import reference
from depthseg.recipes import recipes
assert not any("optim.amsgrad" in own_options(load_config(name)) for name in recipes())
line = "- `optim.amsgrad` (true or false; default false): Whether Adam keeps the largest second moment."
assert line in reference(RunConfig).splitlines()
config = load_config("camvid_fewshot_resnet18", ["optim.amsgrad=yes"])
assert own_options(config)["optim.amsgrad"] is True
assert build_optimizer(nn.Linear(1, 1), None, config.optim).defaults["amsgrad"] is True
""",
    "data set": """
from depthseg.engine.run import train
from depthseg.engine.config import load_config
config = load_config(None, [*TINY, "data.name=stripes", "data.root=.", "data.options.width=6"])
assert 0 <= train(config).scores["mean_iou"] <= 1
""",
    "head": """
import torch
from depthseg import DepthSegConfig, DepthSegForDepthEstimation, DepthSegForSemanticSegmentation
encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
DepthSegForDepthEstimation(DepthSegConfig(encoder_config=encoder, head_type="half")).save_pretrained("saved")
model = DepthSegForSemanticSegmentation.from_pretrained("saved", num_labels=3)
assert [(part.part, part.status) for part in model.transfer_report.parts][1] == ("head", "taken")
assert model(torch.rand(1, 3, 32, 64)).logits.shape[:2] == (1, 3)
from pathlib import Path
assert Path("saved/heads_half_depthseg.py").is_file()
""",
    "pretext task": """
from depthseg import DepthSegForSemanticSegmentation
from depthseg.data import load_dataset
from depthseg.engine.run import train
from depthseg.engine.config import load_config
import numpy as np
from depthseg.data import Sample

class Colours:
    names, label_space = ["red", "blue"], None

    def __len__(self):
        return 2

    def __getitem__(self, index):
        image = np.zeros((32, 48, 3), np.uint8)
        image[..., index] = 200
        return Sample(self.names[index], image)

done = train(load_config(None, [*TINY, "task=mean_colour"]), Colours(), Colours())
assert 0 < done.scores["colour_l1"] < 10 and done.scores["val_loss"] > 0
model = DepthSegForSemanticSegmentation.from_pretrained(done.model_dir, num_labels=3)
parts = {part.part: part.status for part in model.transfer_report.parts}
assert parts == {"encoder": "taken", "head": "new", "classifier": "new", "pretext_head": "left over"}
from depthseg.engine.tasks import TASKS
from depthseg.hub.card import Card
assert TASKS["mean_colour"].scores[0].text(0.25) == "0.250"
""",
    "measure": """
import numpy as np
from depthseg import DepthSegConfig, DepthSegForSemanticSegmentation, DepthSegImageProcessor
from depthseg.data import LabelSpace, Sample, default_palette
from depthseg.engine.analysis import MEASURES, measure_model
from depthseg.study.options import load_study
from depthseg.study.report.tables import measure_of

class One:
    names, label_space = ["one"], LabelSpace("two", ("a", "b"), default_palette(2))

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return Sample("one", np.zeros((32, 48, 3), np.uint8), np.zeros((32, 48), np.uint8))

encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
model = DepthSegForSemanticSegmentation(DepthSegConfig(encoder_config=encoder, head_type="linear", num_labels=2))
processor = DepthSegImageProcessor(size={"height": 32, "width": 48})
share = measure_model(model.eval(), processor, One(), ["largest_class"])["largest_class"]
assert 0.5 <= share <= 1
assert "largest_class" in load_study("world", overrides=["measures=[largest_class]"]).measures
assert measure_of("largest_class").title == "Share of the most frequent class"
""",
}

TINY = [
    *("model.encoder={model_type: depthseg_resnet, depth: 18, width_factor: 0.125}", "model.head_type=linear"),
    *("data.size=[32,48]", "optim.batch_size=2", "schedule.steps=2", "run.cpu=true", "run.report=false"),
    *("run.output_dir=run", "run.trackers=[]"),
]


RUN_ALL = """
import json, os, sys, traceback
tiny, scripts = json.loads(sys.argv[1])
outcomes, start = {}, os.getcwd()
for kind, script in scripts.items():
    os.makedirs(os.path.join(start, kind))
    os.chdir(os.path.join(start, kind))
    try:
        exec(script, {"TINY": tiny})
        outcomes[kind] = ""
    except BaseException:
        outcomes[kind] = traceback.format_exc()
print(json.dumps(outcomes))
"""


def add(package: Path, files: dict) -> None:
    """Make the changes to a package; what comes beside `def` or an unfinished line comes before or right after it."""
    for name, change in files.items():
        path = package / name
        if isinstance(change, str):
            assert not path.exists()
            path.write_text(change)
            continue
        text = path.read_text()
        for place, new in change:
            place = place.rstrip("\n")
            found = re.findall(f"^.*{re.escape(place)}.*\n", text, re.MULTILINE)
            assert len(found) == 1, (name, place, found)
            if place.startswith("def "):
                text = text.replace(found[0], new + found[0])
            elif new.endswith("\n"):
                text = text.replace(found[0], found[0] + new)
            else:
                text = text.replace(place, place + new)
        path.write_text(text)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Kind of addition -> what its script in a package with all of them ended with; nothing = as it should."""
    folder = tmp_path_factory.mktemp("grown")
    package = folder / "depthseg"
    shutil.copytree(Path(depthseg.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    configs = Path(next(iter(recipes().values())).path).parent
    shutil.copytree(configs, package / "configs", dirs_exist_ok=True)
    for files, _ in ADDITIONS.values():
        add(package, files)
    command = [sys.executable, "-c", RUN_ALL, json.dumps([TINY, SCRIPTS])]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ADDITIONS)
def test_an_addition_touches_few_files(kind, outcomes):
    files, count = ADDITIONS[kind]
    assert len(files) == count
    assert outcomes[kind] == ""
