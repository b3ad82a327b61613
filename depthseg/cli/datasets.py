"""`depthseg datasets`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..data import DATASETS
from ..engine.command import data_options, one_sentence_errors, show_progress

if TYPE_CHECKING:
    from .parser import CommandParser


def add_options(parser: CommandParser) -> None:
    """Give a parser the commands `list`, `check`, `doctor`, `choose`, `render` and `import`."""
    commands = parser.add_commands()
    listing = commands.add_parser("list", help="known data sets, their splits and licences")
    listing.set_defaults(run=list_datasets)
    check = commands.add_parser("check", help="count files and ids, and say what is wrong")
    check.add_argument("name", choices=list(DATASETS), metavar="NAME", help=f"of {', '.join(DATASETS)}")
    check.add_argument("root")
    check.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="such as depth_scale=1000")
    check.set_defaults(run=run_check)
    doctor = commands.add_parser(
        "doctor", help="how the camera moves in a video, and whether depth can be trained on it"
    )
    doctor.add_argument("path", help="video file, folder of frames or folder of clips")
    doctor.add_argument("--stride", type=int, default=1, help="frames between two images; default: %(default)s")
    doctor.add_argument("--calibration", metavar="FILE", help="camera; default: calib.txt beside the frames")
    doctor.add_argument("--depth", metavar="FOLDER", help="depth files, not to be taken for frames")
    doctor.add_argument("--json", action="store_true", help="print JSON in place of a table")
    doctor.set_defaults(run=run_doctor)
    choose = commands.add_parser("choose", help="which frames of a film or folder to label")
    choose.add_argument("path", help="video file, folder of images or folder of clips")
    choose.add_argument(
        "--model", required=True, help="directory or Hub id of a model, by whose features they are compared"
    )
    choose.add_argument("--count", type=int, default=16, help="how many; default: %(default)s")
    choose.add_argument("--out", metavar="DIR", help="write them as PNG files into this new folder")
    choose.set_defaults(run=run_choose)
    render = commands.add_parser(
        "render", help="render the procedural world into a folder, or a miniature of an official layout"
    )
    render.add_argument("root", nargs="?", metavar="FOLDER", help="where the frames go; --out says the same")
    render.add_argument("--out", metavar="FOLDER", help="where the frames go")
    render.add_argument(
        "--layout", metavar="NAME", help="miniature of a data set in its official layout: cityscapes, kitti-raw, ..."
    )
    render.add_argument("--split", default="train", choices=DATASETS["synthetic"].splits)
    render.add_argument("--count", type=int, help="frames; default: 1000, or 2 in each split of a miniature")
    render.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="default: 96 320, or small")
    render.set_defaults(run=run_render)
    _add_import(commands.add_parser("import", help="write what an annotation tool exports as a data folder"))


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SRC", help="files or folders of the export")
    parser.add_argument("--from", dest="tool", metavar="TOOL", help=f"one of {', '.join(_TOOLS)}; default: found out")
    parser.add_argument("--out", required=True, metavar="DIR", help="the data folder; it must not exist, or be empty")
    parser.add_argument(
        "--images", action="append", default=[], metavar="DIR", help="where the images are, if not beside SRC"
    )
    parser.add_argument(
        "--order",
        choices=("largest-first", "file"),
        help="what is painted first; default: largest-first for coco and yolo, else as in the file (CVAT: z-order)",
    )
    parser.add_argument(
        "--background",
        choices=("class", "ignore"),
        default="class",
        help="pixels of no object: class 0 `background` (default), or ignored",
    )
    parser.add_argument("--ignore", nargs="+", default=[], metavar="LABEL", help="labels whose pixels are ignored")
    parser.add_argument("--classes", metavar="FILE", help="class names in the order of their ids, one a line")
    parser.add_argument("--crowd", choices=("class", "ignore"), default="class", help="COCO's crowd regions")
    parser.add_argument("--line-width", type=float, default=10, help="of lines, pixels; default: %(default)g")
    parser.add_argument(
        "--transfer", choices=("copy", "hardlink", "symlink"), default="copy", help="of the images; default: copy"
    )
    parser.set_defaults(run=run_import)


_TOOLS = ("coco", "cvat", "label-studio", "labelme", "roboflow", "voc", "yolo")


def list_datasets(options: argparse.Namespace) -> None:
    """Print the table of data sets."""
    for name, entry in DATASETS.items():
        print(f"{name:<16} {entry.summary}\n{'':<16} splits: {entry.shown_splits}; licence: {entry.licence}")


def run_check(options: argparse.Namespace) -> int:
    """Print what a data set holds, and return 1 if something is wrong with it."""
    from ..data.check import check_dataset

    with one_sentence_errors():
        report = check_dataset(options.name, options.root, **data_options(options.option))
    print(report)
    return 1 if report.problems else 0


def run_doctor(options: argparse.Namespace) -> None:
    """Print what a video shows of the motion of its camera."""
    from ..data.doctor import examine_video

    with one_sentence_errors():
        report = examine_video(
            options.path, stride=options.stride, calibration=options.calibration, depth=options.depth
        )
    print(json.dumps(report.to_dict(), indent=2) if options.json else report)


def run_choose(options: argparse.Namespace) -> None:
    """Print the names of the frames to label, the most useful first."""
    with one_sentence_errors():
        from ..engine.choosing import choose_frames

        print("\n".join(choose_frames(options.path, options.model, options.count, options.out)))


def run_render(options: argparse.Namespace) -> None:
    """Render, and say where the frames are."""
    show_progress()
    with one_sentence_errors():
        folder = options.out or options.root
        if folder is None:
            raise ValueError("Say where the frames go: depthseg datasets render FOLDER, or --out FOLDER.")
        size = tuple(options.size) if options.size else None
        if options.layout is not None:
            from ..data.miniatures import write_miniature

            name = options.layout.replace("-", "_")
            print(f"{name} in {write_miniature(name, folder, 2 if options.count is None else options.count, size)}")
            return
        count = 1000 if options.count is None else options.count
        world = DATASETS["synthetic"].load(folder, options.split, count=count, size=size or (96, 320))
    print(f"{len(world)} frames in {world.folder}")


def run_import(options: argparse.Namespace) -> None:
    """Import, and say what was written."""
    from ..data.importing import ImportOptions, import_annotations

    show_progress()
    with one_sentence_errors():
        lines = Path(options.classes).read_text("utf-8-sig").splitlines() if options.classes else []
        result = import_annotations(
            options.sources,
            options.out,
            tool=options.tool,
            images=options.images,
            options=ImportOptions(
                order=options.order,
                background=options.background,
                ignore=options.ignore,
                classes=[line.strip() for line in lines if line.strip()],
                transfer=options.transfer,
            ),
            line_width=options.line_width,
            crowd=options.crowd,
        )
    done = {"copy": "copied", "hardlink": "linked (hard links)", "symlink": "linked (symbolic links)"}
    print(f"{result.images} images, {done[options.transfer]}, with {len(result.classes)} classes in {result.folder}")
    for split, count in result.splits.items():
        print(f"  {split}.txt: {count} images")
    for name in result.classes:
        print(f"  {name}: {result.objects[name]} objects")
    for note in result.notes:
        print(f"  note: {note}")
    print(f"Check it with: depthseg datasets check folder {result.folder}")
