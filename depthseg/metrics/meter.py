"""What the metrics of a data set have in common: they add up image by image."""

from __future__ import annotations

import copy
from typing import Any

import torch


class Meter:
    """Sums over the images of a data set, from which its scores follow.

    Attributes:
        state: The sums, on the CPU, of a shape that depends on the metric, such as `(K, K)`. The state of a data
            set is the sum of the states of its images, so parts of it, as of several processes, are evaluated
            separately and their states added (or all-reduced by sum).
    """

    state: torch.Tensor

    def update(self, *image: Any) -> None:
        """Add an image: its prediction, its ground truth, and what else the metric needs."""
        raise NotImplementedError

    def compute(self) -> Any:
        """Scores of all images so far."""
        raise NotImplementedError

    def state_of(self, *image: Any) -> torch.Tensor:
        """The state of one image alone, such as `(K, K)`; takes what `update` takes, and leaves the meter as it is."""
        alone = copy.copy(self)
        alone.state = torch.zeros_like(self.state)
        alone.update(*image)
        return alone.state
