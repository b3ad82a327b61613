"""How well the depth and motion of a self-supervised network explain a video, compared with no network at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data.subsets import evenly_spaced
from ..geometry import correspond, pose_from_axis_angle, scale_intrinsics, warp
from ..metrics import chain_poses, straight_line, trajectory_errors
from .evaluation import evaluation_mode
from .records import write_json
from .report import write_panel
from .visualization import ERROR_LIMIT, colourise_error, image_of

if TYPE_CHECKING:
    from torch import nn

    from ..data import Sample, SampleDataset

MOTION_FILE = "motion.json"
PANEL_FILE = "warped.png"
GREY_LEVELS = 255
METHODS = ("model", "identity", "straight_line")
MAX_ROWS = 2
SEARCH_SAMPLES = 64
"""The straight line's step is searched on at most this many samples, evenly spaced, which are kept in memory."""

COARSE_SAMPLES = 16
"""About so many of them are enough to find the interval that contains the best step."""

STEPS = 2.0 ** np.arange(-9, 1)
"""Steps tried at first, ahead and back, as shares of the median depth."""

PRECISION = 0.004
"""Of the best step, as a fraction of the interval."""


Motions = dict[int, np.ndarray]
"""Offset in time -> pose `(4, 4)` from the axes of a camera to those then."""

FocalLengths = list[np.ndarray | None]
"""`[fx, fy]` in pixels of the image: those that the networks use, and those that come with the sample, if any."""


@dataclass(frozen=True)
class View:
    """One sample as the networks see it; S sources.

    Attributes:
        image: `(1, 3, H, W)` in [0, 1].
        sources: S times `(1, 3, H, W)`.
        offsets: S offsets in time.
        depth: `(1, H, W)`.
        intrinsics: `(1, 3, 3)`, those that the networks use.
        given: `(1, 3, 3)`, those that come with the sample, for this size of the image; None = none.
        poses: S times `(1, 4, 4)`, from the axes of this camera to those of the source's.
        warped: S times `(1, 3, H, W)`: the sources as seen from this camera.
        seen: S times bool `(1, H, W)`: which pixels the source shows.
    """

    image: Tensor
    sources: tuple[Tensor, ...]
    offsets: tuple[int, ...]
    depth: Tensor
    intrinsics: Tensor
    given: Tensor | None
    poses: list[Tensor]
    warped: list[Tensor]
    seen: list[Tensor]

    @property
    def motions(self) -> Motions:
        """How the camera moves to each of the sources."""
        return {offset: pose[0].cpu().double().numpy() for offset, pose in zip(self.offsets, self.poses, strict=True)}

    @property
    def focal_lengths(self) -> FocalLengths:
        """Those of its intrinsics, in pixels."""
        both = (self.intrinsics, self.given)
        return [None if each is None else each[0].diagonal()[:2].cpu().double().numpy() for each in both]

    def guess(self, step: float) -> list[Tensor]:
        """The sources, warped as if the camera drove `step` straight ahead from each frame to the next."""
        warped = []
        for source, offset in zip(self.sources, self.offsets, strict=True):
            ahead = self.depth.new_tensor([[0.0, 0.0, -step * offset]])
            pose = pose_from_axis_angle(torch.zeros_like(ahead), ahead)
            warped.append(warp(source, correspond(self.depth, self.intrinsics, self.intrinsics, pose)[0])[0])
        return warped

    def error(self, images: Sequence[Tensor]) -> float:
        """Sum over the pixels that the sources show, and over the sources, of the difference in grey levels."""
        maps = ((image - self.image).abs().mean(1) for image in images)
        sums = [torch.where(seen, error, 0.0).sum() for error, seen in zip(maps, self.seen, strict=True)]
        return GREY_LEVELS * torch.stack(sums).sum().item()


@torch.no_grad()
def look_at(
    index: int,
    objective: nn.Module,
    dataset: SampleDataset,
    make_batch: Callable[[Sample], Mapping[str, Tensor]],
    device: torch.device | str,
) -> View:
    """Show sample number `index` as an objective sees it; see `write_motion_report`."""
    sample = dataset[index]
    batch = {name: values.to(device) for name, values in make_batch(sample).items()}
    found = objective.explain(batch)
    offsets = tuple(objective.source_frames)
    # A stereo partner, if there is one, comes after the frames and says nothing of motion.
    sources = batch["source_images"].unbind(1)[: len(offsets)]
    looked_up = [warp(source, pixels) for source, pixels in zip(sources, found.pixels[0], strict=False)]
    warped, seen = (list(column) for column in zip(*looked_up, strict=True))
    given, size = None, batch["image"].shape[-2:]
    if sample.intrinsics is not None:
        given = scale_intrinsics(torch.from_numpy(sample.intrinsics)[None], sample.image.shape[:2], size)
    poses = found.poses[: len(offsets)]
    return View(batch["image"], sources, offsets, found.depth, found.intrinsics, given, poses, warped, seen)


def write_motion_report(
    folder: str | Path,
    objective: nn.Module,
    dataset: SampleDataset,
    make_batch: Callable[[Sample], Mapping[str, Tensor]],
    device: torch.device | str,
) -> dict[str, Any]:
    """Measure how well a video is explained, and write `motion.json` and `warped.png`.

    Args:
        folder: Where both go.
        objective: A `SelfSupervisedObjective` with source frames; left in the mode (train or eval) it came in.
        dataset: Neighbouring samples of a video, in order; those of several clips are named `CLIP/FRAME`. May have
            `poses` `(N, 4, 4)`, camera to world, `stride`, the number of frames from one offset to the next, and
            `is_continuous`.
        make_batch: From a sample to a batch of one, not jittered.
        device: Where the objective computes.

    Returns:
        `samples`;
        `warp_error`: mean absolute difference between image and sources in grey levels (0 to 255), of the sources
        warped by the `model`, not warped (`identity`), and warped as if the camera drove straight ahead
        (`straight_line`) at the one speed that gives the least error, with the model's depth and intrinsics; all
        three over the same pixels, those that the model finds in the source; None if there are none;
        `seen_share`: share of these pixels;
        `straight_line_step`: that speed, per step of the stride, in the unit of the model's depth;
        `trajectory`: `trajectory_errors` of the motions of the `model`, joined, and of the true mean speed in a
        straight line (`straight_line`), on the longest `clip`; None without true poses;
        `focal_length`: `learned` and `given`, `[fx, fy]` in pixels of the network's image, mean over the samples,
        and by which share the learned one is longer (`relative_error`); None if it is not learned, and the last two
        None where none is given.

    Raises:
        ValueError: An objective without source frames, an empty data set, or as many poses as there are not samples.
    """
    if not getattr(objective, "source_frames", ()) or not len(dataset):
        raise ValueError("A motion report needs a video: an objective with source frames, and at least one sample.")
    look = partial(look_at, objective=objective, dataset=dataset, make_batch=make_batch, device=device)
    with evaluation_mode(objective):
        step = best_step(look, len(dataset))
        errors, motions, focal_lengths = measure(map(look, range(len(dataset))), step)
        report = {
            "samples": len(dataset),
            **errors,
            "straight_line_step": step,
            "trajectory": compare_trajectories(motions, dataset),
            "focal_length": compare_focal_lengths(focal_lengths) if objective.camera is not None else None,
        }
        middle = len(dataset) // 2
        write_warped_panel(Path(folder) / PANEL_FILE, look(middle), dataset.names[middle])
    write_json(Path(folder) / MOTION_FILE, report)
    return report


def best_step(look: Callable[[int], View], count: int) -> float:
    """Speed of the straight-line drive with the least warp error: a coarse search, then Brent's method.

    It is in the unit of the depth per step of the stride; `look` shows each of `count` samples by its number.
    """
    views = [look(index) for index in evenly_spaced(count, SEARCH_SAMPLES)]
    unit = float(np.median([view.depth[view.depth.isfinite() & (view.depth > 0)].median().item() for view in views]))

    def error(step: float, every: int = 1) -> float:
        """Warp error of a step, summed over every so many samples."""
        return sum(view.error(view.guess(step)) for view in views[::every])

    tried = unit * np.concatenate([-STEPS[::-1], [0.0], STEPS])
    best = int(np.argmin([error(step, max(1, len(views) // COARSE_SAMPLES)) for step in tried]))
    low, high = tried[max(best - 1, 0)], tried[min(best + 1, len(tried) - 1)]
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(error, bounds=(low, high), method="bounded", options={"xatol": PRECISION * (high - low)})
    return float(min(tried[best], found.x, key=error))


def measure(views: Iterable[View], step: float) -> tuple[dict[str, Any], list[Motions], list[FocalLengths]]:
    """Go through the video once, and compare with a straight-line drive of a speed.

    Returns:
        `warp_error` and `seen_share`, and of each sample the motions and the focal lengths.
    """
    sums, seen, pixels, motions, focal_lengths = dict.fromkeys(METHODS, 0.0), 0, 0, [], []
    for view in views:
        for method, images in zip(METHODS, (view.warped, view.sources, view.guess(step)), strict=True):
            sums[method] += view.error(images)
        seen += sum(int(mask.sum()) for mask in view.seen)
        pixels += sum(mask.numel() for mask in view.seen)
        motions.append(view.motions)
        focal_lengths.append(view.focal_lengths)
    errors = {method: value / seen if seen else None for method, value in sums.items()}
    return {"warp_error": errors, "seen_share": seen / pixels}, motions, focal_lengths


def compare_trajectories(motions: list[Motions], dataset: SampleDataset) -> dict[str, Any] | None:
    """Errors of the joined motions and of the straight line on the longest clip.

    None without poses, and where a list has left out or shuffled frames (`is_continuous`): motions cannot be joined.
    """
    truth = getattr(dataset, "poses", None) if getattr(dataset, "is_continuous", True) else None
    if truth is None:
        return None
    if len(truth) != len(dataset):
        raise ValueError(f"The data set has {len(dataset)} samples, but {len(truth)} poses; it needs one for each.")
    offset = min(motions[0], key=lambda offset: (abs(offset), -offset))
    clip, samples = longest_clip(dataset.names)
    chosen = samples[:: abs(offset) * getattr(dataset, "stride", 1)]
    if len(chosen) < 2:
        return None
    if offset > 0:
        relative = [motions[index][offset] for index in chosen[:-1]]
    else:
        relative = [np.linalg.inv(motions[index][offset]) for index in chosen[1:]]
    expected = np.asarray(truth, dtype=np.float64)[chosen]
    found = {"model": chain_poses(np.stack(relative)), "straight_line": straight_line(expected)}
    return {"clip": clip, **{method: trajectory_errors(poses, expected) for method, poses in found.items()}}


def longest_clip(names: Sequence[str]) -> tuple[str, list[int]]:
    """Name and sample numbers of the clip with the most samples; names are `CLIP/FRAME`, or `FRAME` alone."""
    clips = groupby(range(len(names)), key=lambda index: names[index].rpartition("/")[0])
    return max(((clip, list(samples)) for clip, samples in clips), key=lambda pair: len(pair[1]))


def compare_focal_lengths(focal_lengths: list[FocalLengths]) -> dict[str, Any]:
    """Learned and given focal lengths, mean over the samples."""
    learned, given = (list(each) for each in zip(*focal_lengths, strict=True))
    learned = np.mean(learned, axis=0)
    if any(each is None for each in given):
        return {"learned": learned.tolist(), "given": None, "relative_error": None}
    given = np.mean(given, axis=0)
    return {"learned": learned.tolist(), "given": given.tolist(), "relative_error": (learned / given - 1).tolist()}


def write_warped_panel(path: str | Path, view: View, name: str) -> None:
    """Write a PNG of one sample: target, source, warped source and what is left of the difference."""
    rows, captions = [], []
    for number, offset in enumerate(view.offsets[:MAX_ROWS]):
        warped, seen = view.warped[number][0], view.seen[number][0]
        error = torch.where(seen, (warped - view.image[0]).abs().mean(0), 0.0).cpu().numpy()
        shown = [image_of(values) for values in (view.image[0], view.sources[number][0], warped)]
        rows.append([*shown, colourise_error(error)])
        captions.append(f"{name}, source {offset:+d}")
    limit = round(GREY_LEVELS * ERROR_LIMIT)
    write_panel(path, rows, ("target", "source", "warped", f"error, bright: {limit} grey levels or more"), captions)
