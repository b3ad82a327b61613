"""Frames of video files by their number, exactly."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
"""Endings of the video files that are looked for in folders, in lower case."""

_REMEDY = "Convert it, such as with: ffmpeg -i {name} -c:v libx264 -crf 18 converted.mp4"


class VideoFrames:
    """The frames of a video file in the order of their showing; any of them can be read at any time.

    Opening the file reads the times of all packets without decoding one. A frame is found by its time: the decoder
    goes to the key frame before it, unless it is on its way already, and decodes up to it. So frame 12 is the same
    image whether frame 11 was read before or not. Reading in order is fast.

    An object that was copied to another process, or that another process was forked with, opens the file anew there.

    Args:
        path: The file.

    Attributes:
        times: int64, when each frame is shown, in units of `time_base`.
        time_base: Seconds, a fraction.
        average_rate: Frames a second, a fraction; None where neither the file nor its times say. `frame_rate` is the
            float that the file itself gives.
        rotation: Degrees, counter-clockwise, that frames are turned by to be upright; None before the first is read.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: PyAV is missing.
        ValueError: The file is not a video, or does not say when its frames are shown.
    """

    _container: av.container.InputContainer | None
    _decoded: Iterator[Any] | None
    _position: int | None
    _pid: int | None

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"There is no video file {path}.")
        self._forget()
        times, key_times = self._index()
        self.times = np.array(sorted(times), dtype=np.int64)
        self._key_times = np.array(sorted(key_times), dtype=np.int64)
        if len(set(times)) < len(times) or not key_times:
            raise ValueError(f"{path} does not give each of its frames a time of its own. {self._remedy()}")
        stream = self._open().streams.video[0]
        self.frame_rate = float(stream.average_rate) if stream.average_rate else None
        self.time_base = stream.time_base or Fraction(1, 1000)
        self.average_rate: Fraction | None = stream.average_rate or self._rate_of_times()
        self.rotation: int | None = None
        self._size: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.times)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind."""
        return {**self.__dict__, "_container": None, "_decoded": None, "_position": None, "_pid": None}

    def up_to(self, number: int) -> Iterator[tuple[int, np.ndarray]]:
        """Frame `number`, the last one, and before it what had to be decoded on the way, if anything.

        Yields:
            The number of a frame, and the frame: uint8 `(H, W, 3)` RGB, upright.

        Raises:
            ValueError: The frame cannot be decoded.
        """
        wanted = int(self.times[number])
        self._leave_parent()
        last = None
        try:
            for frame in self._decode_up_to(wanted):
                last = self._position = frame.pts
                self.rotation = _quarter_turns(frame) * 90
                yield int(np.searchsorted(self.times, frame.pts)), _upright_rgb(frame)
        except _errors() as error:
            self._forget()
            raise ValueError(f"{self.describe(number)} cannot be decoded: {error}. {self._remedy()}") from error
        if last != wanted:
            self._forget()
            raise ValueError(f"{self.describe(number)} is damaged and cannot be decoded. {self._remedy()}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an upright frame; the first one is decoded for it.

        Raises:
            ValueError: It cannot be decoded.
        """
        if self._size is None:
            *_, (_, frame) = self.up_to(0)
            self._size = frame.shape[:2]
        return self._size

    def describe(self, number: int) -> str:
        """The frame in words, for messages."""
        return f"Frame {number} of {self.path}"

    def _rate_of_times(self) -> Fraction | None:
        length = int(self.times[-1] - self.times[0])
        return Fraction(len(self) - 1, length) / self.time_base if length else None

    def _index(self) -> tuple[list[int], list[int]]:
        """Times of all frames, and of those that decoding can begin at."""
        times, key_times = [], []
        try:
            container = self._open()
            for packet in container.demux(container.streams.video[0]):
                if not packet.size or packet.is_discard:
                    continue
                if packet.pts is None:
                    raise ValueError(f"{self.path} does not say when its frames are shown. {self._remedy()}")
                times.append(packet.pts)
                if packet.is_keyframe:
                    key_times.append(packet.pts)
        except _errors() as error:
            raise ValueError(f"{self.path} is not a video that can be read, or is damaged: {error}.") from error
        finally:
            self._forget()
        if not times:
            raise ValueError(f"{self.path} is a video without a single frame.")
        return times, key_times

    def _open(self) -> av.container.InputContainer:
        self._leave_parent()
        if self._container is None:
            self._container, self._pid = import_av().open(str(self.path)), os.getpid()
            if not self._container.streams.video:
                raise ValueError(f"{self.path} has no images, only {len(self._container.streams)} other streams.")
            # What has threads cannot be freed in a process that was forked off: it waits for threads that the fork did
            # not copy. So decoder and converter of colours have none; worker processes share the work instead.
            self._container.streams.video[0].codec_context.thread_count = 1
        return self._container

    def _leave_parent(self) -> None:
        """After a fork, drop the parent's file: the place in it would be shared."""
        if self._pid not in (None, os.getpid()):
            self._forget()

    def _decode_up_to(self, wanted: int) -> Iterator[Any]:
        """Frames in order, the last of which has the time `wanted` if it can be decoded."""
        key = bisect.bisect_right(self._key_times, wanted) - 1
        start = int(self._key_times[max(key, 0)])
        # Formats without an index, such as .ts, may come out behind the place asked for: then from the beginning.
        for begin in (start, None):
            if begin is None or self._position is None or not start <= self._position < wanted:
                self._start_at(begin)
            assert self._decoded is not None, "a decoder that has a position has begun"
            frame = next(self._decoded, None)
            if frame is not None and frame.pts <= wanted:
                break
        while frame is not None and frame.pts < wanted:
            yield frame
            assert self._decoded is not None, "nobody forgets a file while frames are taken from it"
            frame = next(self._decoded, None)
        if frame is not None and frame.pts == wanted and not frame.is_corrupt:
            yield frame

    def _start_at(self, time: int | None) -> None:
        """Let the decoder begin at a key frame, or where the file begins."""
        if time is None:
            self._forget()
        container = self._open()
        stream = container.streams.video[0]
        if time is not None:
            container.seek(time, stream=stream)
        self._decoded = (frame for frame in container.decode(stream) if frame.pts is not None)

    def _forget(self) -> None:
        self._container, self._decoded, self._position, self._pid = None, None, None, None

    def _remedy(self) -> str:
        return _REMEDY.format(name=self.path.name)


def import_av() -> Any:
    """PyAV, or an `ImportError` that says how to get it."""
    try:
        import av
    except ImportError as error:
        raise ImportError('Reading and writing video files needs PyAV: python -m pip install "av>=18"') from error
    return av


def _errors() -> tuple[type[Exception], ...]:
    return (import_av().error.FFmpegError, EOFError)


def _upright_rgb(frame: av.VideoFrame) -> np.ndarray:
    """The image as cameras mean it to be shown: a phone that is held upright writes a quarter turn into the file."""
    if frame.format.name.startswith("gray"):
        # Straight from the one channel: a conversion of colour spaces has nothing to add but rounding.
        pixels = np.repeat(frame.to_ndarray(format="gray", threads=1)[..., None], 3, axis=2)
    else:
        pixels = frame.to_ndarray(format="rgb24", threads=1)
    return np.ascontiguousarray(np.rot90(pixels, _quarter_turns(frame)))


def _quarter_turns(frame: av.VideoFrame) -> int:
    return round(frame.rotation / 90)
