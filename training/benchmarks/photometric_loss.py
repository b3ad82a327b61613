"""Run time of the photometric loss and of the plain implementation of `depthseg bench photometric`, at any size.

    python training/benchmarks/photometric_loss.py

It also prints the difference of the gradients.
"""

from __future__ import annotations

import argparse

import torch

from depthseg.bench.photometric import SIDES, compare, gradients, make_inputs
from depthseg.bench.timing import relative_difference


def main() -> None:
    """Print both times, their ratio, and the differences of values and gradients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for comparison in compare("photometric", options.repeats, batch=options.batch, size=tuple(options.size)):
        print(comparison)
    exact = make_inputs(options.batch, *options.size, dtype=torch.float64)
    pairs = zip(*(gradients(loss, exact) for loss in SIDES.values()), strict=True)
    print(f"gradients in float64 differ by {max(relative_difference(*pair) for pair in pairs):.0e} of the largest")


if __name__ == "__main__":
    main()
