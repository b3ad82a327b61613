"""Class scores of a video that follow the motion of its frames, and how much the labels flicker along it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.video_motion import dense_motion


@dataclass
class Flicker:
    """Pixels whose class differs from where they were in the frame before.

    Attributes:
        changed: How many.
        followed: Of how many whose motion is known.
    """

    changed: int = 0
    followed: int = 0

    def update(self, earlier: np.ndarray, later: np.ndarray, places: np.ndarray, known: np.ndarray) -> None:
        """Compare the labels `(H, W)` of two frames; `places` and `known` as `dense_motion` returns them."""
        columns, rows = np.rint(places[known]).astype(np.int64).T
        self.changed += int(np.count_nonzero(earlier[rows, columns] != later[known]))
        self.followed += int(np.count_nonzero(known))

    @property
    def share(self) -> float | None:
        """Share of the pixels that were followed, 0 to 1; None if there are none."""
        return self.changed / self.followed if self.followed else None


@dataclass
class Smoother:
    """Adds to the class scores of each frame those of the frame before, moved to where their pixels are now.

    Where the motion of a pixel is not known, or it comes into view, its own scores stand alone.

    Attributes:
        share: Weight of what is carried along, between 0 and 1.
        carried: Scores `(1, K, h, w)` of the last frame; None before the first one.
    """

    share: float
    carried: Tensor | None = field(default=None)

    def update(self, scores: Tensor, motion: tuple[np.ndarray, np.ndarray] | None) -> Tensor:
        """Smooth the scores of the next frame.

        Args:
            scores: `(1, K, h, w)`, of any size as long as all frames have the same.
            motion: From the last frame to this one, as `dense_motion` returns it; None for the first one.

        Returns:
            Scores of the same shape.
        """
        scores = scores.float()
        if self.carried is not None and motion is not None:
            places, known = (torch.from_numpy(np.ascontiguousarray(values)).to(scores.device) for values in motion)
            scores = torch.where(*self._mixed(scores, places, known), scores)
        self.carried = scores
        return scores

    def _mixed(self, scores: Tensor, places: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Where the motion is known `(1, 1, h, w)`, and the scores there."""
        height, width = known.shape
        size = scores.shape[-2:]
        # As grid_sample has it: -1 and 1 are the borders of the image, whatever its size.
        grid = (2 * places + 1) / places.new_tensor([width, height]) - 1
        if size != (height, width):
            grid = F.interpolate(grid.permute(2, 0, 1)[None], size, mode="bilinear", align_corners=False)
            grid = grid[0].permute(1, 2, 0)
        sure = F.interpolate(known[None, None].float(), size, mode="nearest") > 0
        moved = F.grid_sample(self.carried, grid[None], padding_mode="border", align_corners=False)
        return sure, self.share * moved + (1 - self.share) * scores

    def save(self, path: Path) -> None:
        """Write what is carried along to a `.npy` file, nothing if there is nothing."""
        if self.carried is not None:
            np.save(path, self.carried.cpu().numpy())

    def load(self, path: Path, device: torch.device) -> None:
        """Take up what `save` wrote, if there is such a file."""
        if path.is_file():
            self.carried = torch.from_numpy(np.load(path, allow_pickle=False)).to(device)


def motion_between(earlier: np.ndarray | None, later: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """`dense_motion` from one frame to the next; None where there is no earlier one."""
    return None if earlier is None else dense_motion(earlier, later)
