"""The commands of the guides, run in the order of their page in the current folder, at a tiny size.

A bash block has one command a line; python blocks of a page share their names. Training commands get the options of
their recipe from the test, which make them tiny, and every text that a test replaces must occur on the page.

What needs more than one process, another machine or the network is checked as far as that is possible here: options
are read by the launcher's own parser, and the script then runs in this process on the CPU.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from guide_scripts import GUIDES
from huggingface_hub.cli.hf import app as hf_command
from packaging.requirements import Requirement
from torch.distributed.run import get_args_parser as torchrun_parser

from depthseg.cli import build_parser, main
from depthseg.engine.config import load_config

CHECKOUT = GUIDES.parents[1]
TINY = (
    *("optim.batch_size=2", "schedule.steps=2", "schedule.warmup_steps=0", "run.cpu=true", "run.trackers=[]"),
    "data.cache=off",
)
SMALL_RESNET = ("model.encoder.width_factor=0.125", "data.size=[32,64]")
"""Options that make recipes with a ResNet tiny."""

SCRIPT_HEADER = re.compile(r"^# /// script\n((?:#(?: .*)?\n)+)# ///$", re.MULTILINE)
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]


def read_guide(name: str) -> str:
    """The text of a page."""
    return (GUIDES / f"{name}.md").read_text(encoding="utf-8")


def run_guide(
    name: str,
    replaced: Mapping[str, str] | None = None,
    sizes: Mapping[str, Sequence[str]] | None = None,
    more: Callable[[str], Iterator[tuple[str, bool]]] = lambda page: iter(()),
) -> dict[str, str]:
    """Run all blocks of a page.

    Args:
        name: Of the page.
        replaced: Text of the page -> what is run in its place.
        sizes: Recipe -> options that follow those of `TINY` and of the page in each training command of it.
        more: Finds further commands of the page, which run after its blocks, such as `table_calls`.

    Returns:
        Command as the page has it -> what it printed.
    """
    page, replaced, sizes = read_guide(name), replaced or {}, sizes or {}
    _link_checkout()
    printed: dict[str, str] = {}
    names: dict[str, object] = {"__name__": "__guide__"}
    unused = set(replaced)
    for command, code in (*commands_of(page), *more(page)):
        if command in printed:
            continue
        text = command
        for old, new in replaced.items():
            unused -= {old} if old in text else set()
            text = text.replace(old, new)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            if code:
                exec(compile(text, f"{name}.md", "exec"), names)  # noqa: S102
            else:
                run_command(text, sizes)
        printed[command] = output.getvalue()
    assert printed, f"{name}.md has no commands"
    assert not unused, f"{name}.md does not have {unused}"
    return printed


def run_command(command: str, sizes: Mapping[str, Sequence[str]]) -> None:
    """Run one line of a bash block, or check what cannot be run here."""
    words = shlex.split(command, comments=True)
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # a variable of the environment
        words = words[1:]
    match words:
        case ["depthseg", *rest]:
            _run_depthseg(_tiny(rest, sizes))
        case ["python", "-m", "pip", *rest]:
            _check_install(rest)
        case ["python", script, *rest]:
            _run_script(script, _tiny(rest, sizes))
        case ["uv", "run", script, *rest]:
            read_header(script)
            _run_script(script, _tiny(rest, sizes))
        case ["accelerate", "launch", *rest]:
            options = launch_command_parser().parse_args(rest)
            assert load_config_from_file(options.config_file).use_cpu is False
            _run_script(options.training_script, _tiny(options.training_script_args, sizes))
        case ["torchrun", *rest]:
            options = torchrun_parser().parse_args(rest)
            _run_script(options.training_script, _tiny(options.training_script_args, sizes))
        case ["sbatch", job, script, *rest]:
            text = Path(job).read_text()
            assert text.startswith("#!/usr/bin/env bash\n#SBATCH") and 'exec python "$@" run.resume=true' in text
            _run_script(script, [*_tiny(rest, sizes), "run.resume=true"])
        case ["hf", "jobs", "uv", "run", *rest]:
            script, *rest = _check_job(rest)
            _run_script(script, _tiny(rest, sizes))
        case _:
            raise AssertionError(f"a command that is not known here: {command}")


def read_command(command: str) -> None:
    """Read one line of a bash block without running it: its words, and the options of a run."""
    words = shlex.split(command, comments=True)
    if words[0] == "depthseg":
        build_parser().parse_args(words[1:])
    if "--config" in words:
        recipe, *rest = words[words.index("--config") + 1 :]
        load_config(recipe, rest)


def read_header(script: str | Path) -> dict:
    """The PEP 723 header of a script."""
    (block,) = SCRIPT_HEADER.findall(Path(script).read_text(encoding="utf-8"))
    return tomllib.loads("".join(line.removeprefix("#").removeprefix(" ") for line in block.splitlines(keepends=True)))


def commands_of(page: str) -> Iterator[tuple[str, bool]]:
    """Each command of a page, and whether it is Python."""
    for language, block in re.findall(r"^```(bash|python)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        if language == "python":
            yield block, True
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("#"):
                yield line, False


def table_calls(page: str) -> Iterator[tuple[str, bool]]:
    """The calls in the last column of the tables of a page, and whether each is Python."""
    for call in re.findall(r"^\| .* \| `([^`]+)` \|$", page, re.MULTILINE):
        yield call, not call.startswith("depthseg ")


def _link_checkout() -> None:
    """Pages name scripts as in the checkout."""
    if not Path("training").exists():
        Path("training").symlink_to(CHECKOUT / "training")


def _tiny(words: Sequence[str], sizes: Mapping[str, Sequence[str]]) -> list[str]:
    """The words of a command; those of a training command with tiny sizes."""
    if "--config" not in words:
        return list(words)
    return [*words, *TINY, *sizes[words[words.index("--config") + 1]]]


@contextlib.contextmanager
def _ending_well() -> Iterator[None]:
    """A command may end its process, with code 0."""
    try:
        yield
    except SystemExit as end:
        assert end.code in (0, None), end.code


def _run_depthseg(words: Sequence[str]) -> None:
    with _ending_well():
        main(list(words))


def _run_script(script: str, words: Sequence[str]) -> None:
    with patch.object(sys, "argv", [script, *words]), _ending_well():
        runpy.run_path(script, run_name="__main__")


def _check_install(words: Sequence[str]) -> None:
    """What is to be installed is the project with extras that it has, or what an extra requires."""
    action, *packages = words
    assert action == "install" and packages
    extras = PROJECT["optional-dependencies"]
    required = [package for extra in extras.values() for package in extra]
    for package in packages:
        wanted = Requirement(package)
        assert package in required or (wanted.name == PROJECT["name"] and wanted.extras <= set(extras)), package


def _check_job(words: Sequence[str]) -> list[str]:
    """`hf` reads the options of a job and prints what it would submit; returns its script, which has a header."""
    with _ending_well():
        hf_command.main(["jobs", "uv", "run", "--dry-run", *words])
    (place,) = [place for place, word in enumerate(words) if word.endswith(".py")]
    read_header(words[place])
    return list(words[place:])
