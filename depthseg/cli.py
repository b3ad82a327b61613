"""The command `depthseg`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .bench import CASES, DEFAULT_CASES, bench, environment
from .data import DATASETS
from .data.check import check_dataset
from .data.doctor import examine_video
from .engine.command import (
    USER_ERRORS,
    add_evaluation_options,
    add_training_options,
    data_options,
    one_sentence_errors,
    run_evaluation,
    run_training,
    scores_text,
    show_progress,
)
from .engine.predict import predict
from .engine.records import write_json
from .engine.rules import TASKS
from .hub.bundle import prepare
from .hub.facts import Facts, read_facts
from .hub.push import push
from .quickstart import quickstart
from .study.options import FULL_SCALE, PRESETS, load_study
from .study.plan import plan_study, plan_text
from .study.report import write_report
from .study.runner import run_study


def main(arguments: list[str] | None = None) -> None:
    """Run a command.

    Args:
        arguments: Words of the command line; None = those of the process.
    """
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse gives up on words that stand behind a flag where others stood before it.
    wrong = [word for word in rest if word.startswith("-") or "=" not in word or not hasattr(options, "overrides")]
    if wrong:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if rest:
        options.overrides += rest
    sys.exit(options.run(options))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; each command stores its function as `run`."""
    parser = argparse.ArgumentParser(
        prog="depthseg", description="Turn depth networks into segmentation networks, in the Hugging Face way."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_quickstart(commands.add_parser("quickstart", help="the whole path on the procedural world, in minutes"))
    for name, tasks, text in (
        ("pretrain", TASKS, "train a depth network, or a rival of it"),
        ("finetune", ("segmentation",), "turn a depth network into a segmenter"),
    ):
        command = commands.add_parser(name, help=text)
        add_training_options(command)
        command.set_defaults(run=lambda options, tasks=tasks: print_run(tasks, options))
    command = commands.add_parser("evaluate", help="score a model")
    add_evaluation_options(command)
    command.set_defaults(run=lambda options: print(scores_text(run_evaluation(options))))
    add_study(commands.add_parser("study", help="compare initialisations: many runs, one report"))
    add_publish(commands.add_parser("publish", help="put a trained model on the Hub, with its card"))
    add_predict(commands.add_parser("predict", help="labels and depth for your images, with pictures"))
    add_datasets(commands.add_parser("datasets", help="list, check or render data sets"))
    add_bench(commands.add_parser("bench", help="our speed against transformers and plain formulae"))
    return parser


def print_run(tasks: Sequence[str], options: argparse.Namespace) -> None:
    """Train, then print where the model lies and its scores."""
    result = run_training(tasks, options)
    if result.is_main_process:
        print(f"{result.model_dir}\n{scores_text(result.scores)}")


def add_quickstart(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of the quickstart."""
    parser.add_argument("--output-dir", default="depthseg-quickstart", help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier quickstart")
    parser.set_defaults(run=run_quickstart)


def run_quickstart(options: argparse.Namespace) -> None:
    """Run the quickstart and print its table."""
    show_progress()
    with one_sentence_errors():
        print(quickstart(options.output_dir, overwrite=options.overwrite))


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `predict`."""
    parser.add_argument("model", help="directory or Hub id of a depthseg model")
    parser.add_argument("images", nargs="+", help="image files and folders of images")
    parser.add_argument("--output-dir", required=True, help="where label maps, overlays and JSON files go")
    parser.add_argument("--revision", help="commit, tag or branch of a Hub id")
    parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier call")
    parser.set_defaults(run=run_predict)


def run_predict(options: argparse.Namespace) -> int:
    """Predict, name the images that could not be done, and return 1 if there are any."""
    with one_sentence_errors():
        done = predict(
            options.model,
            options.images,
            options.output_dir,
            revision=options.revision,
            overwrite=options.overwrite,
        )
    print(f"{len(done.names)} images done, in {options.output_dir}.")
    for sentence in done.summary():
        print(f"error: {sentence}", file=sys.stderr)
    return 1 if done.failures else 0


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of the comparison."""
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: those not tiny")
    parser.add_argument("--repeats", type=int, default=20, help="runs of each side; default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch; default: %(default)s")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write every single time as JSON, too")
    parser.set_defaults(run=run_bench)


def run_bench(options: argparse.Namespace) -> None:
    """Print both sides of each comparison as it is done."""
    show_progress()
    done = []
    with one_sentence_errors():
        for comparison in bench(tuple(options.cases) or DEFAULT_CASES, options.repeats, options.threads):
            print(comparison, flush=True)
            done.append(comparison.to_dict())
    if options.output:
        write_json(options.output, environment(options.threads) | {"comparisons": done})


def add_study(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of studies."""
    parser.add_argument(
        "name", help=f"{', '.join(sorted(path.stem for path in PRESETS.glob('*.yaml')))}, or a YAML file"
    )
    parser.add_argument("overrides", nargs="*", metavar="OPTION=VALUE", help="such as seeds.finetune=6")
    parser.add_argument("--output-dir", type=Path, help="default: runs/study_NAME, for another scale with its name")
    parser.add_argument("--scale", default=FULL_SCALE, help="full, or one of the study's scales, such as smoke")
    parser.add_argument("--shard", type=read_shard, default=(1, 1), metavar="I/N", help="run the I-th of N parts")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="say what would run, and how long that takes")
    what.add_argument("--report", action="store_true", help="write the report of what is done, and run nothing")
    parser.set_defaults(run=run_study_command)


def read_shard(text: str) -> tuple[int, int]:
    """Read `I/N`."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no part of a study; write I/N, such as 2/8.")
    return int(index), int(count)


def run_study_command(options: argparse.Namespace) -> None:
    """Plan a study, or run what is missing and write the report."""
    show_progress()
    with one_sentence_errors():
        study = load_study(options.name, options.scale, options.overrides)
        scale = "" if study.scale == FULL_SCALE else f"_{study.scale}"
        out = options.output_dir or Path("runs") / f"study_{study.name}{scale}"
        if options.dry_run:
            print(plan_text(plan_study(study, out, options.shard)))
            return
        if not options.report:
            run_study(study, out, options.shard)
        print(write_report(out))


def add_publish(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of publishing."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RUN_DIR OWNER/NAME [OPTION=VALUE ...]",
        help="run directory of finetune or pretrain, repository, and what is different here, such as data.root=/data",
    )
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every checkpoint whose facts lie in FOLDER")
    parser.add_argument("--facts", type=Path, metavar="FILE", help="YAML: licence, intended_use, limits, ...")
    parser.add_argument("--licence", "--license", help="Hub identifier, or other:NAME:LINK")
    parser.add_argument(
        "--licence-of", action="append", default=[], metavar="NAME=ID", help="licence of your data or of weights"
    )
    parser.add_argument(
        "--output-dir", type=Path, help="where it is prepared, with --all a folder each; default: RUN_DIR/published"
    )
    parser.add_argument("--dry-run", action="store_true", help="prepare and check everything, send nothing")
    parser.add_argument("--private", action="store_true", help="a repository that is made is private")
    parser.add_argument("--revision", metavar="BRANCH", help="default: main")
    parser.add_argument("--pull-request", action="store_true", help="open a pull request")
    parser.set_defaults(run=run_publish)


def run_publish(options: argparse.Namespace) -> None:
    """Prepare and check a checkpoint, or several, and put them on the Hub."""
    show_progress()
    overrides = [word for word in options.words if "=" in word]
    names = [word for word in options.words if "=" not in word]
    with one_sentence_errors():
        if options.all is not None:
            if names or options.facts or options.licence or options.licence_of:
                raise ValueError(
                    "--all reads runs, repositories and licences from the files of facts; leave RUN_DIR, OWNER/NAME, "
                    "--facts, --licence and --licence-of out."
                )
            publish_all(options, overrides)
            return
        if len(names) != 2:
            raise ValueError("Give a run directory and owner/name, or --all with a folder of facts.")
        licences = dict(read_pair(text) for text in options.licence_of)
        stated = {"licence": options.licence} if options.licence else {}
        facts = read_facts(options.facts, licences=licences, **stated)
        publish_one(options, facts, Path(names[0]), names[1], options.output_dir, overrides)


def publish_all(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Publish every checkpoint of a folder of facts; those that fail are named in the end."""
    paths = [path for path in sorted(options.all.glob("*.yaml")) if read_facts(path).run]
    if not paths:
        raise FileNotFoundError(f"{options.all} holds no file of facts (*.yaml) that names a run.")
    failed = []
    for path in paths:
        facts = read_facts(path)
        output_dir = options.output_dir / path.stem if options.output_dir else None
        try:
            publish_one(options, facts, Path(facts.run), facts.repo_id, output_dir, overrides)
        except USER_ERRORS as error:
            failed.append(f"{path.stem}: {error}")
    if failed:
        raise ValueError(f"{len(failed)} of {len(paths)} were not published.\n" + "\n".join(failed))


def publish_one(
    options: argparse.Namespace,
    facts: Facts,
    run_dir: Path,
    repo_id: str,
    output_dir: Path | None,
    overrides: Sequence[str],
) -> None:
    """Prepare a checkpoint and, unless it is a dry run, publish it."""
    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id!r} is no repository; write owner/name.")
    folder = output_dir or run_dir / "published"
    prepare(run_dir, repo_id, facts, folder, overrides)
    if options.dry_run:
        print(f"{folder} holds what would be published as {repo_id}; nothing was sent.")
        return
    done = push(
        folder,
        repo_id,
        private=options.private,
        revision=options.revision,
        pull_request=options.pull_request,
    )
    print(f"{done.url}\n{done.repo_id} at revision {done.revision}")


def read_pair(text: str) -> tuple[str, str]:
    """Read `NAME=ID`."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValueError(f"--licence-of {text}: write NAME=ID, such as folder=cc-by-4.0.")
    return name, value


def add_datasets(parser: argparse.ArgumentParser) -> None:
    """Give a parser the commands `list`, `check`, `doctor` and `render`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="known data sets, their splits and terms")
    listing.set_defaults(run=list_datasets)
    check = commands.add_parser("check", help="count files and ids, and say what is wrong")
    check.add_argument("name", choices=list(DATASETS), metavar="NAME", help=f"of {', '.join(DATASETS)}")
    check.add_argument("root")
    check.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="such as depth_scale=1000")
    check.set_defaults(run=run_check)
    doctor = commands.add_parser("doctor", help="how the camera moves in a video, and whether depth can be learned")
    doctor.add_argument("path", help="video file, folder of frames or folder of clips")
    doctor.add_argument("--stride", type=int, default=1, help="frames between two pictures; default: %(default)s")
    doctor.add_argument("--calibration", metavar="FILE", help="camera; default: calib.txt beside the frames")
    doctor.add_argument("--depth", metavar="FOLDER", help="depth files, not to be taken for frames")
    doctor.add_argument("--json", action="store_true", help="print JSON in place of a table")
    doctor.set_defaults(run=run_doctor)
    render = commands.add_parser("render", help="render the procedural world into a folder")
    render.add_argument("root")
    render.add_argument("--split", default="train", choices=DATASETS["synthetic"].splits)
    render.add_argument("--count", type=int, default=1000, help="frames; default: %(default)s")
    render.add_argument("--size", type=int, nargs=2, default=[96, 320], metavar=("HEIGHT", "WIDTH"))
    render.set_defaults(run=run_render)


def list_datasets(options: argparse.Namespace) -> None:
    """Print the table of data sets."""
    for name, entry in DATASETS.items():
        print(f"{name:<16} {entry.summary}\n{'':<16} splits: {', '.join(entry.splits)}; terms: {entry.terms}")


def run_check(options: argparse.Namespace) -> int:
    """Print what a data set holds, and return 1 if something is wrong with it."""
    with one_sentence_errors():
        report = check_dataset(options.name, options.root, **data_options(options.option))
    print(report)
    return 1 if report.problems else 0


def run_doctor(options: argparse.Namespace) -> None:
    """Print what a video shows of the motion of its camera."""
    with one_sentence_errors():
        report = examine_video(
            options.path, stride=options.stride, calibration=options.calibration, depth=options.depth
        )
    print(json.dumps(report.to_dict(), indent=2) if options.json else report)


def run_render(options: argparse.Namespace) -> None:
    """Render, and say where the frames lie."""
    show_progress()
    with one_sentence_errors():
        world = DATASETS["synthetic"].load(options.root, options.split, count=options.count, size=options.size)
    print(f"{len(world)} frames in {world.folder}")


if __name__ == "__main__":
    main()
