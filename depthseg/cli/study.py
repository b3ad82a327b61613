"""`depthseg study`."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.command import one_sentence_errors, show_progress
from ..study.options import FULL_SCALE, OWN, PRESETS, load_study

if TYPE_CHECKING:
    from ..study.options import StudyOptions
    from ..study.plan import PlanRow

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
    parser.add_argument("--hours", type=read_hours, metavar="H", help="own: cut the plan to so many hours")
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


def read_hours(text: str) -> float:
    """Read a number of hours above 0."""
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of hours above 0; write --hours 2 or --hours 0.5.")
    return hours


def run(options: argparse.Namespace) -> None:
    """Plan a study, or run what is missing and write the report."""
    with one_sentence_errors():
        _check(options)
        study = load_study(options.name, options.scale, [] if options.name == OWN else options.overrides)
        from ..study.plan import plan_study, plan_text
        from ..study.power import count_test_blocks, power_text
        from ..study.report import write_report
        from ..study.runner import run_study

        if options.html:  # a package that is missing is said before the runs
            from ..study.report.html import write_page
        show_progress()
        scale = "" if study.is_full else f"_{study.scale}"
        out = options.output_dir or Path("runs") / f"study_{study.name}{scale}"
        study, rows = _planned(options, study, out)
        if options.dry_run:
            print(plan_text(rows or plan_study(study, out, options.shard)))
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
        if options.name == OWN:
            _answer(report)


def _check(options: argparse.Namespace) -> None:
    if options.dry_run and options.html:
        raise ValueError("--dry-run writes no report; leave out --html.")
    if options.hours and options.name != OWN:
        raise ValueError(f"--hours belongs to the study {OWN}, whose plan it cuts; leave it out.")
    if options.hours and options.shard[1] > 1:
        raise ValueError("--hours cuts the plan to what one machine does; leave out --shard.")


def _planned(options: argparse.Namespace, study: StudyOptions, out: Path) -> tuple[StudyOptions, list[PlanRow] | None]:
    """The study `own` fitted to its data and cut to the hours, with its plan if known; any other study as it is."""
    if options.name != OWN or options.report:
        return study, None
    from ..study import own

    study, rows = own.load_own(options.scale, options.overrides), None
    if options.hours:
        study, rows = own.within(study, out, options.hours)
    logger.info("the plan: %s", own.describe(study))
    return study, rows


def _answer(report: Path) -> None:
    from ..study.own import answer

    print(answer(json.loads(report.with_name("results.json").read_text(encoding="utf-8"))))
