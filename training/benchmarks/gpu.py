"""What this machine's GPU does in at most eight minutes, as JSON in training/benchmarks/results/.

    python training/benchmarks/gpu.py

Parts that are done are not run again, so the same command resumes. CamVid takes part where the environment variable
DEPTHSEG_DATA names a folder with camvid/ in it. `--device cpu --tiny` tries the command without a GPU.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from depthseg.bench.device_parts import PARTS, Where, header_of, run_to_file
from depthseg.bench.device_run import TOTAL_SECONDS, run_parts

CHECKOUT = Path(__file__).resolve().parents[2]
RESULTS = CHECKOUT / "training" / "benchmarks" / "results"
WORK = CHECKOUT / "runs" / "benchmark"


def main() -> None:
    """Parse, and run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--device", help="default: the GPU")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU, whose times mean nothing")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: a file in results/, named by the device")
    parser.add_argument("--again", action="store_true", help="run parts that are done, too")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    import torch

    device = options.device or (torch.accelerator.current_accelerator() or torch.device("cpu")).type
    if device == "cpu" and not options.tiny:
        print("PyTorch finds no GPU on this machine: nothing is measured. To try the command: --device cpu --tiny")
        return
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    where = Where(device, CHECKOUT, WORK, options.tiny)
    if options.rows:
        run_to_file(options.parts[0], where, options.rows)
        return
    header = header_of(where)
    name = f"{header['device']}{'_tiny' if options.tiny else ''}".lower().replace(" ", "_")
    output = options.output or (WORK if options.tiny else RESULTS) / f"{name}.json"

    def command(part: str, rows: Path) -> list[str]:
        tiny = ["--tiny"] if options.tiny else []
        return [sys.executable, str(Path(__file__).resolve()), part, "--device", device, "--rows", str(rows), *tiny]

    slowness = 10 if options.tiny else 1
    budgets = {part: slowness * PARTS[part].seconds for part in options.parts or PARTS}
    run_parts(budgets, command, output, header, options.again, total_seconds=slowness * TOTAL_SECONDS)
    print(output)


if __name__ == "__main__":
    main()
