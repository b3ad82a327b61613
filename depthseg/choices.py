"""The values of options that the command line and the options of a run name, and the nearest one to a mistyped word.

This file imports nothing of the package and no torch, so that answers which need only names come at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal, get_args

ALIGNMENTS = ("none", "median", "scale_shift", "scale_shift_inverse", "fixed")
"""`none`: metres against metres. `median`: times median(truth) / median(prediction) of the image.
`scale_shift`: least-squares scale and shift of the depth of the image. `scale_shift_inverse`: the same of its inverse
depth. `fixed`: times one factor."""

CROPS = {
    "none": (0.0, 1.0, 0.0, 1.0),
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}
"""Part of a KITTI image on which depth is evaluated: first and last row as fractions of the height, first and last
column of the width, cut to whole pixels. `garg` is that of Garg et al. 2016, with which Monodepth2 and most others
evaluate the Eigen split; `eigen` is what the authors of Monodepth found to reproduce the numbers of Eigen et al. 2014
(mrharicot/monodepth, `utils/evaluate_kitti.py`)."""

PROTOCOLS = ("standard", "paper-text", "paper-release")
"""Evaluation protocols of segmentation; `depthseg.engine.protocols` has their rules."""

PoseNetworkName = Literal["separate", "shared", "posecnn"]
POSE_NETWORKS = get_args(PoseNetworkName)
"""Names of the networks that estimate the motion of the camera; `depthseg.pretext.build_pose_network` has them."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most like a mistyped one, whatever its case; None where no known word is near."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    return names[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'NEAREST'?`, or nothing where no known word is near."""
    near = nearest(word, known)
    return f" Did you mean {near!r}?" if near else ""
