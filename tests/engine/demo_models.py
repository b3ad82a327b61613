"""Tiny checkpoints and files for the web page."""

import torch
from data.video_files import world_frame, write_video
from PIL import Image

from depthseg import (
    DepthSegConfig,
    DepthSegForDepthEstimation,
    DepthSegForSemanticSegmentation,
    DepthSegImageProcessor,
)
from depthseg.data.label_spaces import LABEL_SPACES
from depthseg.data.synthetic import render

CLASSES = LABEL_SPACES["camvid11"].classes


def write_model(folder, seed=0, depth_only=False, keep_depth=True):
    """A network with random weights that has the classes of CamVid."""
    torch.manual_seed(seed)
    config = DepthSegConfig(
        encoder_config={"model_type": "depthseg_resnet", "width_factor": 0.125},
        head_config={"decoder_channels": [8, 8, 8, 8, 8]},
        id2label=dict(enumerate(CLASSES)),
        keep_depth=keep_depth and not depth_only,
    )
    model_class = DepthSegForDepthEstimation if depth_only else DepthSegForSemanticSegmentation
    model_class(config).save_pretrained(folder)
    DepthSegImageProcessor(size={"height": 64, "width": 128}).save_pretrained(folder)
    return folder


def write_street(path, size=(96, 192)):
    Image.fromarray(render(0, 7, size, outputs=("image",))["image"]).save(path)
    return path


def write_film(path, count=6, size=(64, 96), rate=10):
    frames = [world_frame((0, 1), time, size)["image"] for time in range(count)]
    return write_video(path, frames, "libx264", "yuv420p", rate=rate)
