"""Tables of the pages that list what the code has: encoders, heads, depth models, data sets, checkpoints.

    python training/render_pages.py

Fills the part between `<!-- table: NAME -->` and `<!-- end -->` of every page in PAGES from the registries and
the facts of the checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from depthseg.convert.kinds import KINDS
from depthseg.data import DATASETS
from depthseg.hub.facts import read_facts
from depthseg.models import DEPTH_FAMILIES, ENCODERS, HEADS, UNSUPPORTED_FAMILIES
from depthseg.models.encoders_depthseg import UNSUPPORTED_BACKBONES

ROOT = Path(__file__).parents[1]
PAGES = ("depthseg/models/README.md", "depthseg/data/README.md", "model_cards/README.md")
CARDS = ROOT / "model_cards"


def table(header: str, rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {header} |", "|" + "---|" * (header.count("|") + 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def paper(address: str) -> str:
    """A link to a paper."""
    return f"[paper]({address})"


def card_rows() -> Iterable[tuple[str, ...]]:
    """Name, summary and licence of each checkpoint."""
    for path in sorted(CARDS.glob("*.yaml")):
        facts = read_facts(path)
        yield f"[{path.stem}]({path.stem}/README.md)", " ".join(facts.summary.split()), f"`{facts.licence}`"


TABLES: dict[str, Callable[[], str]] = {
    "encoders": lambda: table(
        "encoder | | source",
        ((f"`{n}`", e.summary + " *One image size.*" * e.fixed_size, paper(e.source)) for n, e in ENCODERS.items()),
    ),
    "unsupported backbones": lambda: table(
        "backbone | why not", ((f"`{name}`", reason) for name, reason in UNSUPPORTED_BACKBONES.items())
    ),
    "heads": lambda: table(
        "head | tasks | encoders | | source",
        (
            (f"`{n}`", ", ".join(e.tasks), ", ".join(e.encoders or ["any"]), e.summary, paper(e.source))
            for n, e in HEADS.items()
        ),
    ),
    "published kinds": lambda: table(
        "kind | | licence as published | source",
        ((f"`{n}`", k.summary, k.licence, paper(k.paper)) for n, k in KINDS.items()),
    ),
    "depth families": lambda: table(
        "model type | | depth here | source",
        ((f"`{n}`", f.summary, f.meaning, paper(f.source)) for n, f in DEPTH_FAMILIES.items()),
    ),
    "unsupported depth families": lambda: table(
        "model type | why not", ((f"`{name}`", reason + ".") for name, reason in UNSUPPORTED_FAMILIES.items())
    ),
    "data sets": lambda: table(
        "data set | | splits | licence",
        ((f"`{n}`", e.summary, e.shown_splits, e.licence) for n, e in DATASETS.items()),
    ),
    "checkpoints": lambda: table("checkpoint | | licence", card_rows()),
}


def fill(page: str) -> str:
    """The text of a page with every table made anew."""
    return re.sub(
        r"(<!-- table: ([\w ]+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}",
        page,
        flags=re.DOTALL,
    )


def main() -> None:
    """Write every page."""
    for name in PAGES:
        path = ROOT / name
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
