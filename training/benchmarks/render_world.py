"""Frames of the procedural world that one core renders per second."""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from depthseg.data.synthetic import OUTPUTS, render


def main() -> None:
    """Render frames and print frames per second of processor time and of wall time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--outputs", nargs="+", default=["image", "depth", "labels"], choices=OUTPUTS)
    options = parser.parse_args()
    render(0, 0, options.size, outputs=options.outputs)
    wall, processor = time.perf_counter(), time.process_time()
    for index in range(1, options.frames + 1):
        render(0, index, options.size, outputs=options.outputs)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    rate, by_clock = options.frames / processor, options.frames / wall
    print("{}x{}".format(*options.size), f"{rate:.1f} frames per second of one core, {by_clock:.1f} in wall time")


if __name__ == "__main__":
    main()
