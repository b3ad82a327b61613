"""Writing videos and folders of frames for tests."""

import functools

import av
import numpy as np
from PIL import Image

from depthseg.data.synthetic import render


def write_video(path, frames, codec="libx264rgb", pixels="rgb24", rate=10, turned=0, **options):
    """Encode uint8 frames (H, W, 3) or (H, W)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if turned:
            stream.set_display_rotation(turned)
        for frame in frames:
            image = av.VideoFrame.from_ndarray(frame, format="rgb24" if frame.ndim == 3 else "gray")
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    return path


def write_frames(folder, frames, pattern="{:06d}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / pattern.format(number))
    return folder


def noisy_frames(count=12, size=(48, 64), seed=0):
    """Frames that have nothing in common: a wrong one cannot pass for the right one."""
    return list(np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8))


@functools.lru_cache
def world_frame(scene, time, size=(96, 320)):
    return render(*scene, size, time=time, outputs=("image", "pose", "intrinsics", "depth"))
