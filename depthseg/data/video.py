"""Videos and folders of frames as training data: each frame with its neighbours in time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .calibration import Calibration, read_calibration, read_poses, resize_intrinsics
from .clips import Clip, FrameCache, find_clips
from .depth_formats import check_depth_format
from .folder import divide_in_order
from .image_folders import MapFiles
from .images import KITTI_DEPTH_SCALE, check_same_size, read_depth
from .neighbours import span_of, steps_of, with_neighbours
from .sample import Sample

if TYPE_CHECKING:
    from .label_spaces import LabelSpace

logger = logging.getLogger(__name__)

NEIGHBOURS = (-1, 1)


class VideoSequences:
    """Every frame of one or several videos that has the neighbours asked for.

    ```
    ROOT.mp4                  one video, or
    ROOT/000000.png ...       one folder of frames in natural order, or
    ROOT/CLIP/000000.png ...  clips, each a folder of frames or a video file, at any depth
    ROOT/calib.txt            optional, here, beside ROOT.mp4 or the frames of a clip, as KITTI odometry has it
    ROOT/poses.txt            optional, likewise; camera to world, one line a frame
    ```

    Frames are decoded when they are asked for, grey ones as three equal channels, and kept in memory while there is
    room. Samples are named `CLIP/000012`, by the file or by the number of the frame from 0 on. Reading a video out of
    order is slow where key frames are far apart; a folder of frames, or `size`, makes up for it.

    Args:
        root: A video file or a folder.
        split: `train`, `val` or `all`.
        frames: Offsets of the neighbours, in steps of `stride`.
        stride: Frames from one step to the next.
        calibration: File of the camera (see `read_calibration`), looked for in the folder of `root` first; None =
            `calib.txt` if there is one.
        poses: File of poses, likewise; None = `poses.txt` if there is one with a line for each frame.
        depth: Folder of depth files `CLIP/NAME.png|tif|npy`, or without `CLIP/` if there is one clip; some frames may
            have none.
        val_fraction: Share of the frames at the end of each clip that are `val`; neighbours lie on the same side.
            0 = `train` and `val` are both everything: scores then show how well the video is fitted, not how well
            anything generalises.
        size: Height and width that frames are resized to as they are read; intrinsics and depth follow.
        depth_scale: Units of 16-bit depth files per metre.
        depth_format: What whole numbers in depth files mean, as in `FolderDataset`.
        value_range: Pixel values `[low, high]` of black and white in frames of more than 8 bits, for training; None =
            found in the frames, see `find_value_range`.
        clips: Files and folders of clips below `root`, such as `[monday, tuesday/front]`; None = all that are found.

    Attributes:
        names: Names of the samples.
        poses: float64 `(N, 4, 4)`, camera to world, of the samples; None where a clip has none.
        stride, value_range: As given.
        frame_rate: Frames a second, None where clips do not say or differ.

    Raises:
        FileNotFoundError: A file or folder is missing.
        ValueError: An option out of range, too few frames, or a file that cannot be used.
    """

    splits = ("train", "val", "all")

    def __init__(
        self,
        root: str | Path,
        split: str = "all",
        *,
        frames: Sequence[int] = NEIGHBOURS,
        stride: int = 1,
        calibration: str | Path | None = None,
        poses: str | Path | None = None,
        depth: str | Path | None = None,
        val_fraction: float = 0.0,
        size: Sequence[int] | None = None,
        depth_scale: float = KITTI_DEPTH_SCALE,
        value_range: Sequence[float] | None = None,
        depth_format: str = "scaled",
        clips: Sequence[str] | None = None,
    ) -> None:
        _check_options(size, depth_scale)
        check_depth_format(depth_format)
        self._root = Path(root)
        self.stride = stride
        self.value_range = value_range
        self._steps = steps_of(frames, stride)
        self._size = None if size is None else (int(size[0]), int(size[1]))
        self._depth_folder = None if depth is None else self._locate(depth)
        self._depth_scale = depth_scale
        self._depth_format = depth_format
        self.label_space: LabelSpace | None = None
        self.clips = find_clips(root, [self._depth_folder] if self._depth_folder else [], clips)
        self._cache = FrameCache(self.clips, self._size)
        self._depth_files = [self._list_depth(clip) for clip in self.clips]
        self._places = self._find_places(split, val_fraction)
        self.names = [f"{self.clips[clip].name}/{self.clips[clip].frame_name(n)}" for clip, n in self._places]
        self._calibrations = [self._calibration_of(clip, calibration) for clip in self.clips]
        self._check_calibrations()
        self._check_depth()
        self.poses = self._read_poses(poses)
        rates = {clip.frames.frame_rate for clip in self.clips}
        self.frame_rate = rates.pop() if len(rates) == 1 else None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Frame and neighbours, with intrinsics and depth where there are any.

        Raises:
            ValueError: A frame or depth file cannot be read, or has another size than its clip.
        """
        clip, number = self._places[index]
        # In the order of time, which is the quick one for a decoder.
        near = {step: self._cache.read(clip, number + step) for step in sorted({0, *self._steps.values()})}
        return Sample(
            name=self.names[index],
            image=near[0],
            depth=self._depth_of(clip, number),
            frames={offset: near[step] for offset, step in self._steps.items()},
            intrinsics=self._intrinsics_of(clip),
        )

    def has_depth(self, index: int) -> bool:
        """Whether a frame has a depth file."""
        return self._depth_folder is not None and self._depth_file(*self._places[index]) is not None

    def pixel_aspect(self, index: int) -> float:
        """Ratio fy / fx that a camera of square pixels has at the size of this sample: not 1 if `size` squeezes."""
        if self._size is None:
            return 1.0
        height, width = self._cache.full_size(self._places[index][0])
        return (self._size[0] / height) / (self._size[1] / width)

    def _locate(self, path: str | Path) -> Path:
        folder = self._root.parent if self._root.is_file() else self._root
        return folder / path if (folder / path).exists() else Path(path)

    def _find_places(self, split: str, val_fraction: float) -> list[tuple[int, int]]:
        """Clip and frame number of every sample of a split."""
        places = []
        for index, clip in enumerate(self.clips):
            numbers = divide_in_order(range(len(clip.frames)), split, val_fraction)
            places += [(index, number) for number in with_neighbours(numbers, self._steps)]
        if not places:
            longest = max(len(clip.frames) for clip in self.clips)
            part = f" and val_fraction={val_fraction:g}" if val_fraction else ""
            raise ValueError(
                f"The split {split!r} of {self._root} has no sample: its longest clip has {longest} frames"
                f"{' in all' if part else ''}, and neighbours at {sorted(self._steps.values())} need "
                f"{span_of(self._steps)} in a row. Give a longer video, or other options frames and stride{part}."
            )
        return places

    def _calibration_of(self, clip: Clip, given: str | Path | None) -> Calibration | None:
        found = clip.nearest("calib.txt", self._root) if given is None else self._locate(given)
        return None if found is None else read_calibration(found)

    def _check_calibrations(self) -> None:
        """Refuse a calibration that does not fit before anything is trained on it."""
        for clip in sorted({clip for clip, _ in self._places}):
            self._intrinsics_of(clip)

    def _intrinsics_of(self, clip: int) -> np.ndarray | None:
        calibration = self._calibrations[clip]
        if calibration is None:
            return None
        full_size = self._cache.full_size(clip)
        intrinsics = calibration.for_size(full_size)
        return intrinsics if self._size is None else resize_intrinsics(intrinsics, full_size, self._size)

    def _check_depth(self) -> None:
        if self._depth_folder is None:
            return
        if not self._depth_folder.is_dir():
            raise FileNotFoundError(f"The folder of depth files {self._depth_folder} does not exist.")
        if not any(self._depth_file(*place) for place in self._places):
            raise FileNotFoundError(
                f"{self._depth_folder} has no depth file for any frame, such as {self.names[0]}.png; the names must "
                "be those of the frames."
            )

    def _list_depth(self, clip: Clip) -> list[MapFiles]:
        """Depth files of a clip; those of a single clip may be in the depth folder itself."""
        if self._depth_folder is None:
            return []
        return [MapFiles(self._depth_folder / clip.name), *[MapFiles(self._depth_folder)] * (len(self.clips) == 1)]

    def _depth_file(self, clip: int, number: int) -> Path | None:
        name = self.clips[clip].frame_name(number)
        return next((found for files in self._depth_files[clip] if (found := files.find(name))), None)

    def _depth_of(self, clip: int, number: int) -> np.ndarray | None:
        path = self._depth_file(clip, number) if self._depth_folder else None
        if path is None:
            return None
        depth = read_depth(path, self._depth_scale, self._depth_format)
        full_size = self._cache.full_size(clip)
        check_same_size(self.clips[clip].frames.describe(number), np.empty(full_size), path, depth)
        if self._size is None:
            return depth
        return np.asarray(Image.fromarray(depth).resize(self._size[::-1], Image.Resampling.NEAREST))

    def _read_poses(self, given: str | Path | None) -> np.ndarray | None:
        """Poses of all samples, or None as soon as one clip lacks them."""
        of_clip = {}
        for index in sorted({clip for clip, _ in self._places}):
            clip = self.clips[index]
            path = clip.nearest("poses.txt", self._root) if given is None else self._locate(given)
            if path is None:
                return None
            poses = read_poses(path)
            if len(poses) != len(clip.frames):
                sentence = f"{path} has {len(poses)} poses, but the clip {clip.name} has {len(clip.frames)} frames"
                if given is not None:
                    raise ValueError(f"{sentence}; one line a frame is expected.")
                logger.warning("%s; the poses are not used.", sentence)
                return None
            of_clip[index] = poses
        return np.stack([of_clip[clip][number] for clip, number in self._places])


def _check_options(size: Sequence[int] | None, depth_scale: float) -> None:
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size={list(size)} is not valid; give [height, width] in pixels, each at least 1.")
    if not depth_scale > 0:
        raise ValueError(f"depth_scale={depth_scale} is out of range; it is the file units per metre, above 0.")
