"""Write the tables of `price_of_defects.md` from the records of the studies.

    python training/guides/price_of_defects.py

Fills the part between `<!-- NAME -->` and `<!-- end -->`: `switches`, and for each study what its records say. A cell
without a finished run says so.
"""

from __future__ import annotations

import re
from pathlib import Path

from depthseg.study.defects.prices import prices
from depthseg.study.options import load_study
from depthseg.study.report.prices import all_switches, price_table, read_prices, setting_title, summary, switch_table

GUIDES = Path(__file__).parent
PAGE = GUIDES / "price_of_defects.md"
RESULTS = GUIDES.parent / "studies" / "results"
STUDIES = ("defects", "defects_pretraining", "defects_camvid")


def section(name: str, results: Path = RESULTS) -> str:
    """What a study says: its sentences, and a table for each setting."""
    out = results / name
    numbers = read_prices(out) if out.is_dir() else prices(load_study(name), [])
    tables = (f"**{setting_title(setting)}**\n\n{price_table(numbers, setting)}" for setting in numbers["settings"])
    return "\n\n".join([*summary(numbers), *tables])


def fill(page: str, results: Path = RESULTS) -> str:
    """The page with every part made anew."""
    parts = {"switches": switch_table(all_switches())} | {name: section(name, results) for name in STUDIES}
    for name, text in parts.items():
        pattern = rf"(<!-- {name} -->\n).*?(\n?<!-- end -->)"
        page, count = re.subn(pattern, lambda found, text=text: f"{found[1]}{text}\n<!-- end -->", page, flags=re.S)
        if count != 1:
            raise ValueError(f"{PAGE.name} has {count} parts named {name!r}; it needs one.")
    return page


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
