"""Baselines on the procedural world: mIoU from colour only and from position only, on unseen frames.

    python training/benchmarks/world_baselines.py

The baseline for depth is the best constant depth.
"""

from __future__ import annotations

import argparse

from depthseg.data.synthetic import WORLD_VERSION, SyntheticWorld
from depthseg.engine.command import show_progress
from depthseg.metrics.baselines import (
    ColourClassifier,
    ConstantDepth,
    MajorityClass,
    PositionPrior,
    score_depth_baseline,
    score_segmentation_baseline,
)


def main() -> None:
    """Fit on frames of the train split, evaluate on frames of the test split, print one line per baseline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data/world", help="where frames are rendered; default: %(default)s")
    parser.add_argument("--train-frames", type=int, default=1000)
    parser.add_argument("--test-frames", type=int, default=100)
    parser.add_argument("--size", type=int, nargs=2, default=[64, 192], metavar=("HEIGHT", "WIDTH"))
    options = parser.parse_args()
    show_progress()
    train_set = SyntheticWorld(options.root, "train", count=options.train_frames, size=tuple(options.size))
    test_set = SyntheticWorld(options.root, "test", count=options.test_frames, size=tuple(options.size))
    print(f"world {WORLD_VERSION}, {len(train_set)} frames to fit, {len(test_set)} to test")
    for baseline in (MajorityClass, PositionPrior, ColourClassifier):
        scores = score_segmentation_baseline(baseline(train_set), test_set)
        print(f"{baseline.__name__:<17} mIoU {100 * scores['mean_iou']:.1f} %")
    depth = score_depth_baseline(ConstantDepth(train_set), test_set)
    print(f"{'ConstantDepth':<17} AbsRel {depth['abs_rel']:.3f}")


if __name__ == "__main__":
    main()
