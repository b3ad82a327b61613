"""Predictions for a video, in pieces that outlive an interruption."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..data.decoding import VideoFrames
from ..data.label_spaces import LabelSpace
from .atomic import atomic_folder
from .inference import maps_of
from .prediction_files import depth_scale, sixteen_bits
from .records import write_json
from .smoothing import Flicker, Smoother, motion_between
from .stopping import StopRequest
from .tiling import MapPredictor
from .video_writing import COLOUR, DEPTH, IDS, VideoWriter, join
from .visualization import blend_labels, colourise_predicted_depth, legend_strip

PIECE = 128
"""Frames of a piece, rounded up to whole batches; a process that is killed loses no more."""
LARGEST_WIDTH = 3840
"""Widest image of several beside each other: few players show more."""
LONGEST_LEGEND = 40
"""Classes of a legend at most."""
# How much larger than in the first frame a relative depth of later ones can get before it is clipped.
_HEADROOM = 4

CODINGS = {"labels": IDS, "overlay": COLOUR, "depth": DEPTH, "side_by_side": COLOUR}


@dataclass
class Last:
    """What the next frame is compared with: the image, its labels, and those that smoothing was applied to."""

    image: np.ndarray
    labels: np.ndarray | None
    raw_labels: np.ndarray | None


class VideoPrediction:
    """The prediction of one video.

    Args:
        network: Predicts its frames.
        video: The video.
        pieces: Folder of finished pieces; those that are there are kept.
        space: Classes and colours.
        smooth: Weight of the class scores of earlier frames; None = each frame by itself.
    """

    def __init__(
        self, network: MapPredictor, video: VideoFrames, pieces: Path, space: LabelSpace, smooth: float | None
    ) -> None:
        self._network, self._video, self._pieces, self._space = network, video, pieces, space
        self._smoother = None if smooth is None else Smoother(smooth)
        self._last: Last | None = None
        self._scale: tuple[float, float] | None = None

    def run(self, stop: StopRequest) -> bool:
        """Predict the frames that are still to do.

        Args:
            stop: Asks to leave after the frames at work.

        Returns:
            Whether all frames are done.

        Raises:
            ValueError: A frame cannot be decoded, or the output of the model is not finite.
        """
        count = len(self._video)
        done = self._resume()
        with tqdm(total=count, initial=done, unit="frame", desc=self._video.path.name, disable=None) as bar:
            while done < count and not stop.received:
                with atomic_folder(self._pieces / f"{done:08d}") as folder:
                    folder.mkdir()
                    piece = self._predict_piece(folder, done, stop, bar)
                done += piece
        return done == count

    def write(self, files: dict[str, Path], origin: dict[str, str]) -> None:
        """Join the pieces to the files of the video, its summary last.

        Args:
            files: Kind of output -> file.
            origin: Which model it was, for the summary.
        """
        video, folders = self._video, self._folders()
        times, rate = (video.times - video.times[0]).tolist(), self._rate
        height, width = video.size
        for kind in CODINGS:
            parts = [path for folder in folders for path in folder.glob(f"{kind}.mkv")]
            if parts:
                join(parts, files[kind], times, video.time_base, rate, video.rotation or 0)
        steps = np.diff(times)
        records = [_read(folder) for folder in folders]
        summary: dict[str, Any] = {
            "video": str(video.path),
            **origin,
            "frames": len(video),
            "frame_rate": float(rate),
            "variable_frame_rate": bool(len(steps) and np.ptp(steps) > 1),
            "width": width,
            "height": height,
            "rotation": video.rotation or 0,
            "seconds_per_frame": sum(record["seconds"] for record in records) / len(video),
        }
        if "pixels" in records[0]:
            pixels = np.sum([record["pixels"] for record in records], axis=0)
            shares = dict(zip(self._space.classes, (pixels / pixels.sum()).tolist(), strict=True))
            ranked = sorted(shares, key=lambda name: -shares[name])
            summary["classes"] = {name: shares[name] for name in ranked if shares[name]}
            summary["flicker"] = {kind: _flicker(records, kind) for kind in records[0]["flicker"]}
        if records[0]["depth"]:
            summary["depth"] = records[0]["depth"]
        write_json(files["summary"], summary)

    @property
    def _rate(self) -> Any:
        return self._video.average_rate or 1

    def _folders(self) -> list[Path]:
        return sorted(path.parent for path in self._pieces.glob("[0-9]*/piece.json"))

    def _resume(self) -> int:
        """Take up the state behind the last finished piece; returns how many frames are done."""
        self._size = self._video.size
        folders = self._folders()
        if not folders:
            return 0
        record, state = _read(folders[-1]), np.load(folders[-1] / "state.npz", allow_pickle=False)
        done = record["first"] + record["frames"]
        maps = {name: state.get(name) for name in ("labels", "raw_labels")}
        self._last = Last(self._read(done - 1), **maps)
        if self._smoother is not None:
            self._smoother.load(folders[-1] / "carried.npy", self._network.model.device)
        if record["depth"]:
            self._scale = record["depth"]["file_scale"], record["depth"]["file_offset"]
        return done

    def _read(self, number: int) -> np.ndarray:
        *_, (_, image) = self._video.up_to(number)
        if image.shape[:2] != self._size:
            raise ValueError(
                f"{self._video.describe(number)} is {image.shape[1]}x{image.shape[0]} pixels, but the video begins "
                f"with {self._size[1]}x{self._size[0]}; cut it where the size changes."
            )
        return image

    def _predict_piece(self, folder: Path, first: int, stop: StopRequest, bar: tqdm) -> int:
        """Write the files of a piece; returns its number of frames."""
        batch_size = self._network.batch_size
        end = min(first + math.ceil(PIECE / batch_size) * batch_size, len(self._video))
        pixels = np.zeros(len(self._space.classes), np.int64)
        flicker = {"before": Flicker(), "after": Flicker()} if self._smoother else {"before": Flicker()}
        began, done = time.perf_counter(), first
        with ExitStack() as writers:
            opened: dict[str, VideoWriter] = {}
            while done < end and not (stop.received and done > first):
                images = [self._read(number) for number in range(done, min(done + batch_size, end))]
                for image, labels, depth in self._maps(images, flicker):
                    if labels is not None:
                        pixels += np.bincount(labels.ravel(), minlength=len(pixels))[: len(pixels)]
                    for kind, frame in self._drawn(image, labels, depth).items():
                        if kind not in opened:
                            path = folder / f"{kind}.mkv"
                            opened[kind] = writers.enter_context(VideoWriter(path, CODINGS[kind], self._rate))
                        # As the frames of the video are stored; players turn both.
                        opened[kind].write(np.rot90(frame, -(self._video.rotation or 0) // 90))
                    bar.update()
                done += len(images)
        record: dict[str, Any] = {"first": first, "frames": done - first, "seconds": time.perf_counter() - began}
        record["depth"] = None
        if self._scale is not None:
            scale, offset = self._scale
            record["depth"] = {
                "type": self._network.model.config.depth_type,
                **{"file_scale": scale, "file_offset": offset},
            }
        state = {}
        if self._last.labels is not None:
            record["pixels"] = pixels.tolist()
            record["flicker"] = {kind: [each.changed, each.followed] for kind, each in flicker.items()}
            state = {"labels": self._last.labels, "raw_labels": self._last.raw_labels}
        np.savez_compressed(folder / "state.npz", **state)
        if self._smoother is not None:
            self._smoother.save(folder / "carried.npy")
        write_json(folder / "piece.json", record)
        return done - first

    def _maps(
        self, images: list[np.ndarray], flicker: dict[str, Flicker]
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray | None]]:
        """Frames with their labels and depth; flicker is counted on the way."""
        outputs: list[Any] = [None] * len(images)
        if self._smoother is None:
            found = self._network.maps(images)
        else:
            outputs = self._network.outputs(images)
            found = [maps_of(each, self._network.processor, self._size) for each in outputs]
        for image, (raw_labels, depth), output in zip(images, found, outputs, strict=True):
            labels = raw_labels
            if raw_labels is not None:
                motion = motion_between(None if self._last is None else self._last.image, image)
                if self._smoother is not None:
                    output["logits"] = self._smoother.update(output["logits"], motion)
                    labels = maps_of(output, self._network.processor, self._size)[0]
                if motion is not None:
                    flicker["before"].update(self._last.raw_labels, raw_labels, *motion)
                    if self._smoother is not None:
                        flicker["after"].update(self._last.labels, labels, *motion)
            self._last = Last(image, labels, raw_labels)
            yield image, labels, depth

    def _drawn(self, image: np.ndarray, labels: np.ndarray | None, depth: np.ndarray | None) -> dict[str, np.ndarray]:
        """The frame of each output, upright."""
        frames, beside = {}, [image]
        if labels is not None:
            frames["labels"] = labels
            frames["overlay"] = blend_labels(image, labels, self._space.palette)
            beside.append(frames["overlay"])
        if depth is not None:
            config = self._network.model.config
            if self._scale is None:
                self._scale = depth_scale(config, 0.0, _HEADROOM * float(depth.max()))
            frames["depth"] = sixteen_bits(depth, *self._scale)
            beside.append(colourise_predicted_depth(depth, config.depth_type))
        frames["side_by_side"] = self._beside(beside, labels is not None)
        return frames

    def _beside(self, images: list[np.ndarray], with_legend: bool) -> np.ndarray:
        height, width = images[0].shape[:2]
        if len(images) * width > LARGEST_WIDTH:
            size = LARGEST_WIDTH // len(images), round(height * LARGEST_WIDTH / (len(images) * width))
            images = [np.asarray(Image.fromarray(each).resize(size, Image.Resampling.BILINEAR)) for each in images]
        row = np.concatenate(images, axis=1)
        if not with_legend or len(self._space.classes) > LONGEST_LEGEND:
            return row
        return np.concatenate([row, self._legend_of(row.shape[1])])

    def _legend_of(self, width: int) -> np.ndarray:
        if not hasattr(self, "_legend"):
            colours = zip(self._space.classes, self._space.palette, strict=True)
            self._legend = legend_strip(dict(colours), width)
        return self._legend


def _read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "piece.json").read_text(encoding="utf-8"))


def _flicker(records: list[dict[str, Any]], kind: str) -> float | None:
    changed, followed = np.sum([record["flicker"][kind] for record in records], axis=0).tolist()
    return Flicker(changed, followed).share
