"""A parser that reads one command at a time and answers a mistyped word with the nearest known one."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ..choices import did_you_mean


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose options are added when its command is named.

    Args:
        *args: As for `ArgumentParser`.
        fill: Adds the options; None = they are added by hand.
        **kwargs: As for `ArgumentParser`.
    """

    def __init__(self, *args: Any, fill: Callable[[CommandParser], None] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fill = fill
        self._commands: argparse._SubParsersAction[CommandParser] | None = None

    def add_commands(self) -> argparse._SubParsersAction[CommandParser]:
        """Let commands follow, and return where they are added."""
        self._commands = self.add_subparsers(required=True, metavar="COMMAND")
        return self._commands

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Read the words of this command; argparse calls this for a command inside a command, too."""
        words = sys.argv[1:] if args is None else list(args)
        if self._fill is not None:
            fill, self._fill = self._fill, None
            fill(self)
        if self._commands is not None:
            self._check_command(words)
        else:
            self._check_flags(words)
        return super().parse_known_args(words, namespace)

    def _check_command(self, words: list[str]) -> None:
        if not words:
            self.print_help(sys.stderr)
            self.exit(2)
        known = self._commands.choices
        if words[0].startswith("-"):
            self._check_flags(words[:1])
        elif words[0] not in known:
            near = did_you_mean(words[0], known)
            self.error(f"there is no command {words[0]!r}.{near} Commands: {', '.join(known)}.")

    def _check_flags(self, words: list[str]) -> None:
        """Refuse unknown flags before argparse says which others are missing."""
        known = re.findall(r"(?<![\w-])--[a-z][a-z-]*", self.format_help())
        before_end = words[: words.index("--")] if "--" in words else words
        for flag in (word.partition("=")[0] for word in before_end if word.startswith("--")):
            # As argparse has it, the beginning of a flag is enough.
            if not any(name.startswith(flag) for name in known):
                self.error(f"there is no option {flag!r}.{did_you_mean(flag, known)} `{self.prog} --help` lists them.")
