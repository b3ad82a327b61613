"""`depthseg publish`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..engine.command import USER_ERRORS, one_sentence_errors, show_progress
from ..hub.facts import Facts, read_facts


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of publishing."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RUN_DIR OWNER/NAME [OPTION=VALUE ...]",
        help="run directory, folder of convert or of adapters, or file of export; repository; options changed here",
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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Prepare and check a checkpoint, or several, and put them on the Hub."""
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
            raise ValueError(
                "Give a run directory, a folder of depthseg convert or of adapters, or a file of depthseg export, and "
                "owner/name; or --all with a folder of facts."
            )
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
    from ..hub.bundle import prepare
    from ..hub.push import push
    from ..hub.without_run import has_no_run, prepare_without_run

    show_progress()
    folder = output_dir or (run_dir.parent if run_dir.is_file() else run_dir) / "published"
    if has_no_run(run_dir):
        prepare_without_run(run_dir, repo_id, facts, folder)
    else:
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
