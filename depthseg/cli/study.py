"""`depthseg study`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ..engine.command import one_sentence_errors, show_progress
from ..study.options import FULL_SCALE, PRESETS, load_study

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of studies."""
    parser.add_argument(
        "name", help=f"{', '.join(sorted(path.stem for path in PRESETS.glob('*.yaml')))}, or a YAML file"
    )
    parser.add_argument("overrides", nargs="*", metavar="OPTION=VALUE", help="such as seeds.finetune=6")
    parser.add_argument("--output-dir", type=Path, help="default: runs/study_NAME, for another scale with its name")
    parser.add_argument("--scale", default=FULL_SCALE, help="full, or one of the study's scales, such as smoke")
    parser.add_argument("--shard", type=read_shard, default=(1, 1), metavar="I/N", help="run the I-th of N parts")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="report what would run, and how long that takes")
    what.add_argument("--report", action="store_true", help="write the report of what is done, and run nothing")
    parser.add_argument("--html", action="store_true", help="also write the report as one HTML page")
    parser.set_defaults(run=run)


def read_shard(text: str) -> tuple[int, int]:
    """Read `I/N`."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no part of a study; write I/N, such as 2/8.")
    return int(index), int(count)


def run(options: argparse.Namespace) -> None:
    """Plan a study, or run what is missing and write the report."""
    with one_sentence_errors():
        if options.dry_run and options.html:
            raise ValueError("--dry-run writes no report; leave out --html.")
        study = load_study(options.name, options.scale, options.overrides)
        from ..study.plan import plan_study, plan_text
        from ..study.power import count_test_blocks, power_text
        from ..study.report import write_report
        from ..study.runner import run_study

        if options.html:  # a package that is missing is said before the runs
            from ..study.report.html import write_page
        show_progress()
        scale = "" if study.scale == FULL_SCALE else f"_{study.scale}"
        out = options.output_dir or Path("runs") / f"study_{study.name}{scale}"
        if options.dry_run:
            print(plan_text(plan_study(study, out, options.shard)))
            if power := power_text(study, count_test_blocks(study, out)):
                print(f"\n{power}")
            return
        if not options.report:
            run_study(study, out, options.shard)
        report = write_report(out)
        page = write_page(report) if options.html else report.with_name("index.html")
        if not options.html and page.is_file():
            logger.warning("%s is of an earlier report; --html renders it again", page)
        print(page if options.html else report)
