"""A few images with the ids of KITTI's label files, and a segmenter that looks at one pixel at a time."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from transformers.modeling_outputs import SemanticSegmenterOutput

from depthseg.data import LABEL_SPACES, Sample
from depthseg.models import DepthSegImageProcessor

IDS34, CLASSES19 = LABEL_SPACES["kitti34"], LABEL_SPACES["cityscapes19"]
FILE_IDS_OF_19 = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
SIZES = ((38, 124), (37, 122), (40, 130))


class KittiLike:
    """Blocks of random ids under noise, of different sizes.

    Args:
        classes: 34 = the ids of the label files; 19 = the evaluated classes, 255 elsewhere.
        count: Number of images.
        ids: To draw from; the first image has the first half of them, so that some images lack classes.
    """

    def __init__(self, classes=34, count=3, ids=tuple(range(34))):
        self.label_space = {34: IDS34, 19: CLASSES19}[classes]
        self.reads = []
        self.samples, self.file_ids = [], []
        for index in range(count):
            rng = np.random.default_rng(index)
            height, width = SIZES[index % len(SIZES)]
            drawn = rng.choice(ids[: len(ids) // 2] if index == 0 else ids, (height // 6 + 1, width // 6 + 1))
            files = np.kron(drawn, np.ones((6, 6))).astype(np.uint8)[:height, :width]
            image = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3)).repeat(4, 0).repeat(4, 1)
            to_19 = np.full(256, 255, np.uint8)
            to_19[list(FILE_IDS_OF_19)] = range(19)
            labels = files if classes == 34 else to_19[files]
            self.file_ids.append(files)
            image, depth = image.astype(np.uint8)[:height, :width], rng.uniform(1, 80, files.shape)
            self.samples.append(Sample(f"{index:06d}_10", image, labels, depth.astype(np.float32)))
        self.names = [sample.name for sample in self.samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.reads.append(index)
        return self.samples[index]


class PixelModel(nn.Module):
    """Class scores of each pixel from its colour alone; counts what it is run on.

    Args:
        classes: 19 or 34 of KITTI, or a number of made-up classes.
        shrink: The logits have one pixel for this many of the image, as those of most networks.
    """

    def __init__(self, classes=34, shrink=1, seed=0):
        super().__init__()
        names = {34: IDS34.classes, 19: CLASSES19.classes}.get(classes, tuple(f"c{i}" for i in range(classes)))
        generator = torch.Generator().manual_seed(seed)
        self.head = nn.Conv2d(3, classes, 1)
        self.head.weight.data = torch.randn(self.head.weight.shape, generator=generator)
        self.head.bias.data = torch.randn(self.head.bias.shape, generator=generator)
        self.shrink, self.inputs = shrink, []
        self.config = SimpleNamespace(one_class=False, num_labels=classes, id2label=dict(enumerate(names)))

    @property
    def device(self):
        return self.head.weight.device

    def forward(self, pixel_values):
        assert not self.training
        self.inputs.append(pixel_values)
        logits = self.head(pixel_values)[..., :: self.shrink, :: self.shrink]
        return SemanticSegmenterOutput({"logits": logits, "predicted_depth": 5 + logits[:, 0]})


def processor_of(size=None, resample=2):
    return DepthSegImageProcessor(size=size and {"height": size[0], "width": size[1]}, resample=resample)


def input_of(image, size, resample):
    """What the network sees of an image, by Pillow and ImageNet's numbers alone."""
    from PIL import Image

    pixels = np.asarray(Image.fromarray(image).resize(size[::-1], resample)).astype(np.float32) / 255
    pixels = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


@torch.no_grad()
def prediction_of(model, image, size, resample):
    """Most probable class of each pixel, uint8 `(H, W)`, of an image resized for the network and compared there."""
    logits = model.head(input_of(image, size, resample))[..., :: model.shrink, :: model.shrink]
    logits = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
    return logits[0].argmax(0).numpy().astype(np.uint8)


def main(folder):
    """Evaluate by all protocols in the processes of a launcher, and write what was found."""
    from pathlib import Path

    from accelerate import Accelerator

    from depthseg.engine.one_pass import evaluate_protocols, write_pass
    from depthseg.engine.protocols import TABLE, rules_of
    from depthseg.metrics import DepthErrors

    accelerator = Accelerator(cpu=True)
    model, data = PixelModel().eval(), KittiLike(count=5)
    rules = rules_of(list(TABLE), model, data)
    options = {"depth_errors": DepthErrors("median"), "keep_matrices": True}
    found = evaluate_protocols(model, processor_of((32, 96)), data, rules, accelerator, **options)
    if accelerator.is_main_process:
        write_pass(Path(folder), found, rules, data.names, {"processes": accelerator.num_processes})
    accelerator.end_training()


if __name__ == "__main__":
    import sys

    main(sys.argv[1])
