"""Video files: written in pieces, and joined without encoding anything again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..data.decoding import import_av
from .atomic import atomic_path


@dataclass(frozen=True)
class Coding:
    """How the frames of a video are stored.

    Attributes:
        codec: FFmpeg's name of the encoder.
        stored: Its name of the pixel format in the file.
        given: Of the frames that are written.
        options: Of the encoder.
    """

    codec: str
    stored: str
    given: str
    options: dict[str, str]


# Without frames that are stored after a later one, the times of a piece can be written in any file as they are.
COLOUR = Coding("libx264", "yuv420p", "rgb24", {"crf": "18", "preset": "veryfast", "bf": "0"})
# Each frame by itself: its bytes do not depend on where a piece begins.
IDS = Coding("ffv1", "gray", "gray", {"g": "1"})
DEPTH = Coding("ffv1", "gray16le", "gray16le", {"g": "1"})

# Without the time and the random numbers that formats write into their header.
_REPEATABLE = {"fflags": "+bitexact"}


class VideoWriter:
    """Encodes frames of one size; a context.

    Args:
        path: The file, whose ending says the format.
        coding: How frames are stored; of colour frames of odd width or height the last column or row is doubled.
        rate: Frames a second.
    """

    def __init__(self, path: Path, coding: Coding, rate: Fraction) -> None:
        self._av = import_av()
        self._coding, self._rate, self._count = coding, rate, 0
        self._container = self._av.open(str(path), "w", container_options=_REPEATABLE)
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None and self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()

    def write(self, frame: np.ndarray) -> None:
        """Append a frame: uint8 `(H, W, 3)` RGB, uint8 `(H, W)` or uint16 `(H, W)`, as the coding says."""
        if self._coding is COLOUR:
            frame = np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)], mode="edge")
        if self._stream is None:
            self._stream = self._container.add_stream(
                self._coding.codec, rate=self._rate, options=dict(self._coding.options)
            )
            self._stream.height, self._stream.width = frame.shape[:2]
            self._stream.pix_fmt = self._coding.stored
            self._stream.codec_context.thread_count = 1
        image = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=self._coding.given)
        image.pts, image.time_base = self._count, 1 / self._rate
        self._count += 1
        self._container.mux(self._stream.encode(image))


def join(
    pieces: Sequence[Path],
    path: Path,
    times: Sequence[int],
    time_base: Fraction,
    rate: Fraction,
    rotation: int = 0,
) -> None:
    """Put the frames of several video files of one coding into one, whole or not at all.

    Args:
        pieces: The files, in order.
        path: The file to write.
        times: When each frame is shown, in units of `time_base`, from 0 on.
        time_base: Seconds.
        rate: Frames a second, on average.
        rotation: Degrees, counter-clockwise, that players turn the frames by.
    """
    av = import_av()
    last = times[-1] - times[-2] if len(times) > 1 else max(1, round(1 / rate / time_base))
    lengths = [*np.diff(times).tolist(), last]
    moments = zip(times, lengths, strict=True)
    with atomic_path(path) as temporary, av.open(str(temporary), "w", container_options=_REPEATABLE) as joined:
        stream = None
        for piece in pieces:
            with av.open(str(piece)) as source:
                template = source.streams.video[0]
                if stream is None:
                    stream = joined.add_stream_from_template(template)
                    stream.time_base, stream.codec_context.framerate = time_base, rate
                    if rotation:
                        stream.set_display_rotation(rotation)
                for packet in source.demux(template):
                    if not packet.size:
                        continue
                    time, length = next(moments)
                    packet.stream, packet.time_base = stream, time_base
                    packet.pts = packet.dts = int(time)
                    packet.duration = int(length)
                    joined.mux(packet)
