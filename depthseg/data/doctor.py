"""Looks at a video before a depth network is trained on it: does the camera move enough?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .subsets import evenly_spaced
from .video import VideoSequences
from .video_motion import PairMotion, measure_pair

STATIC_MOTION = 5e-4
"""Share of the width by which points of a static pair move at most, in the median: a third of a pixel of 640."""
LEAST_PARALLAX = 2e-3
"""Share of the width: less of it than this (1.3 pixels of 640) teaches little about depth."""
MOST_MOTION = 0.12
"""Share of the width: faster points are lost by the matching of a photometric loss."""
LEAST_ROTATION = 0.3
"""Degrees that the faster-turning pairs have to reach for the focal length to be seen."""
EXPOSURE_JUMP = 0.15
"""Share by which brightness changes from one frame to the next in a jump; more over longer strides, as it drifts."""

_MANY = 0.5
_LONGEST_STRIDE = 16
_QUICK_PAIRS = 20


@dataclass
class VideoReport:
    """What `examine_video` found; medians are over the examined pairs, None where nothing could be measured.

    Attributes:
        path: The video.
        clips: Number of clips.
        frames: Number of frames of all clips.
        size: Height and width in pixels.
        frame_rate: Frames a second, where the video says it.
        calibrated: Whether the camera was known; else its focal length is taken for the width of the image.
        stride: Frames between the two images of a pair.
        pairs: Number of pairs examined, evenly spread.
        static_share: Share of pairs in which the image stands still.
        lost_share: Share of pairs in which too few points can be followed.
        motion: Share of the width that a point moves.
        parallax: Share of the width that a point moves beyond what the rotation of the camera explains.
        rotation: Degrees that the camera turns from frame to frame.
        most_rotation: The same for the tenth of the pairs that turn fastest.
        exposure_jumps: Where the brightness jumps: the name of the later frame of each such pair, the first one seen
            after the jump.
        suggested_stride: The shortest stride with enough parallax; None if there is none.
        advice: Sentences on what stands in the way of training depth, and what to do; empty if all is well.
    """

    path: Path
    clips: int
    frames: int
    size: tuple[int, int]
    frame_rate: float | None
    calibrated: bool
    stride: int
    pairs: int
    static_share: float
    lost_share: float
    motion: float | None
    parallax: float | None
    rotation: float | None
    most_rotation: float | None
    exposure_jumps: list[str] = field(default_factory=list)
    suggested_stride: int | None = None
    advice: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All attributes, ready for JSON."""
        return {**asdict(self), "path": str(self.path), "size": list(self.size)}

    def __str__(self) -> str:
        """A table, and the advice below it."""
        rows = [
            ("clips, frames", f"{self.clips}, {self.frames} of {self.size[1]}x{self.size[0]} pixels"),
            ("frame rate", "not known" if self.frame_rate is None else f"{self.frame_rate:g} a second"),
            ("camera", "calibrated" if self.calibrated else "not calibrated, focal length guessed as the width"),
            ("pairs examined", f"{self.pairs}, {self.stride} frame{'s' * (self.stride > 1)} apart"),
            ("static", f"{self.static_share:.0%} of the pairs"),
            ("motion", _percent(self.motion)),
            ("parallax", _percent(self.parallax)),
            ("rotation", _degrees(self.rotation, self.most_rotation)),
            (
                "exposure jumps",
                ", ".join(self.exposure_jumps[:8]) + ", ..." * (len(self.exposure_jumps) > 8) or "none",
            ),
            ("suggested stride", "none" if self.suggested_stride is None else str(self.suggested_stride)),
        ]
        lines = [str(self.path), *(f"  {name:<17} {value}" for name, value in rows)]
        return "\n".join(
            lines + [f"- {sentence}" for sentence in self.advice or ["This video is suitable for training depth."]]
        )


def examine_video(
    root: str | Path,
    *,
    stride: int = 1,
    calibration: str | Path | None = None,
    depth: str | Path | None = None,
    clips: Sequence[str] | None = None,
    pairs: int = 60,
) -> VideoReport:
    """Measure how a camera moves through a video.

    Args:
        root: A video file, a folder of frames or a folder of clips, as `VideoSequences` takes them.
        stride: Frames between the two images of a pair.
        calibration: File of the camera; None = `calib.txt` if there is one, else the focal length is guessed.
        depth: Folder of depth files, so that images in it are not taken for frames.
        clips: Files and folders of clips below `root`; None = all.
        pairs: At most so many pairs are examined, evenly spread; exposure jumps elsewhere are not seen.

    Raises:
        FileNotFoundError: A file is missing.
        ImportError: OpenCV or PyAV is missing.
        ValueError: An option out of range, too few frames, or a file that cannot be used.
    """
    if pairs < 1:
        raise ValueError(f"pairs={pairs} is out of range; examine 1 pair or more.")
    # Each sample is the later image of its pair.
    options: dict[str, Any] = {"calibration": calibration, "depth": depth, "clips": clips}
    open_video = partial(VideoSequences, root, "all", frames=(-1,), **options)
    video = open_video(stride=stride)
    chosen = evenly_spaced(len(video), pairs)
    motions = [_measure(video, index) for index in chosen]
    followed = [motion for motion in motions if motion.followed]
    first = video[0]
    report = VideoReport(
        path=Path(root),
        clips=len(video.clips),
        frames=sum(len(clip.frames) for clip in video.clips),
        size=first.image.shape[:2],
        frame_rate=video.frame_rate,
        calibrated=first.intrinsics is not None,
        stride=stride,
        pairs=len(motions),
        static_share=_static_share(motions),
        lost_share=1 - len(followed) / len(motions),
        motion=_middle([motion.motion for motion in followed]),
        parallax=_middle([motion.parallax for motion in followed]),
        rotation=_middle([motion.rotation / stride for motion in followed]),
        most_rotation=_middle([motion.rotation / stride for motion in followed], 0.9),
        exposure_jumps=[
            video.names[index]
            for index, motion in zip(chosen, motions, strict=True)
            if abs(math.log(motion.gain)) > math.log1p(EXPOSURE_JUMP) * math.sqrt(stride)
        ],
    )
    report.suggested_stride = _suggest_stride(report, open_video)
    report.advice = _advice(report)
    return report


def _measure(video: VideoSequences, index: int) -> PairMotion:
    sample = video[index]
    return measure_pair(sample.frames[-1], sample.image, sample.intrinsics)


def _middle(values: list[float], quantile: float = 0.5) -> float | None:
    return float(np.quantile(values, quantile)) if values else None


def _static_share(motions: list[PairMotion]) -> float:
    return sum(motion.followed and motion.motion < STATIC_MOTION for motion in motions) / len(motions)


def _suggest_stride(report: VideoReport, open_video: Callable[..., VideoSequences]) -> int | None:
    """The given stride if it shows enough parallax, else the first of its doubles that does; it is measured."""
    if _enough(report.static_share, report.parallax):
        return report.stride
    stride = 2 * report.stride
    while report.motion is not None and stride <= min(_LONGEST_STRIDE * report.stride, report.frames // 3):
        try:
            video = open_video(stride=stride)
        except (ValueError, FileNotFoundError):  # every clip is shorter, or no frame that is left has a depth file
            return None
        motions = [_measure(video, index) for index in evenly_spaced(len(video), _QUICK_PAIRS)]
        followed = [motion for motion in motions if motion.followed]
        if len(followed) < _MANY * len(motions):
            return None
        if _enough(_static_share(motions), _middle([motion.parallax for motion in followed])):
            return stride
        stride *= 2
    return None


def _enough(static_share: float, parallax: float | None) -> bool:
    return static_share < _MANY and parallax is not None and parallax >= LEAST_PARALLAX


def _advice(report: VideoReport) -> list[str]:
    """What stands in the way, the gravest first."""
    rotation = report.most_rotation or 0.0
    longer = report.suggested_stride not in (None, report.stride)
    sentences = []
    # Where most pairs can be followed, there are medians.
    parallax, motion = report.parallax or 0.0, report.motion or 0.0
    if report.lost_share >= _MANY:
        sentences.append(
            f"In {report.lost_share:.0%} of the pairs too few points can be followed: the video is too fast, too dark "
            "or blurred. Use a shorter stride or a higher frame rate."
        )
    elif report.static_share >= _MANY and longer:
        sentences.append(f"Most pairs are static: use stride {report.suggested_stride}.")
    elif report.static_share >= _MANY:
        sentences.append(
            "The camera does not move: depth cannot be trained on this video. Take one from a camera that travels, "
            "or cut the standing parts away."
        )
    elif parallax < LEAST_PARALLAX and longer:
        sentences.append(f"There is little parallax from frame to frame: use stride {report.suggested_stride}.")
    elif parallax < LEAST_PARALLAX:
        sentences.append(
            "The camera rotates but hardly moves: without parallax depth cannot be trained on this video."
        )
    elif motion > MOST_MOTION:
        sentences.append(
            f"The video is too fast: points move by {motion:.0%} of the width from frame to frame. Use a "
            "shorter stride or a higher frame rate, or drive slower."
        )
    if rotation < LEAST_ROTATION and report.motion is not None and not report.calibrated:
        sentences.append(
            "The camera shows no rotation: its focal length cannot be estimated from this video, give a calibration."
        )
    elif rotation < LEAST_ROTATION and report.motion is not None:
        sentences.append(
            "The camera shows no rotation: the focal length cannot be estimated from this video, use the calibration."
        )
    if report.exposure_jumps:
        sentences.append(
            f"The brightness jumps at {len(report.exposure_jumps)} of the frames examined: fix the exposure of the "
            "camera, or cut there."
        )
    return sentences


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{100 * share:.2f} % of the width, median"


def _degrees(median: float | None, most: float | None) -> str:
    if median is None:
        return "not measured"
    return f"{median:.2f} degrees a frame, median; {most:.2f} in the fastest tenth"
