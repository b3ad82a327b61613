"""The price list in Markdown: one table for each setting, and what it says in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...engine.atomic import atomic_path
from ...engine.records import write_json
from ..defects.prices import prices
from ..defects.switches import ALL, SWITCHES
from ..options import load_study
from ..results import planned_keys
from ..statistics import plural
from ..stored import STUDY_FILE, read_records, trials_folder
from .text import between, number, signed

PAGE, NUMBERS = "price_of_defects.md", "price_of_defects.json"

NOT_RUN = "not run yet"
DOES_NOT_APPLY = "does not apply"

HOW_TO_READ = (
    "Each number is the change of the mean IoU in points, with a switch minus without, as the released code would "
    "score it: the mean over draws of the labelled images, each draw compared with itself, and a 95 % t interval over "
    "draws (with fewer than six draws the smallest and the largest change instead). Test images are the same in every "
    "draw, so the interval is conditional on them, except for `test_set`, which changes them. Intervals are not "
    "adjusted for their number. Weights: the change if the same weights are scored as without switches; it is given "
    "where the switch also changes the score. Order: of the means of the initialisations over the draws that all have "
    "finished; a change is decided if both intervals of the difference, without and with the switch, exclude 0."
)

Row = Mapping[str, Any]


def read_prices(out: Path) -> dict[str, Any]:
    """The prices of the study in an output directory, finished or not; see `prices`.

    Raises:
        FileNotFoundError: There is no `study.yaml`.
        ValueError: A file cannot be read.
    """
    study = load_study(str(out / STUDY_FILE))
    records, planned = read_records(trials_folder(out)), planned_keys(out)
    return prices(study, [record for record in records if planned is None or record["key"] in planned])


def write_prices(out: Path, folder: Path) -> Path:
    """Write the price list of a study as Markdown, and its numbers as JSON.

    Args:
        out: Output directory of the study.
        folder: Of the report.
    """
    numbers = read_prices(out)
    write_json(folder / NUMBERS, numbers)
    path = folder / PAGE
    with atomic_path(path) as temporary:
        temporary.write_text(price_page(numbers), encoding="utf-8")
    return path


def price_page(numbers: Row) -> str:
    """The whole page."""
    blocks = [f"# {numbers['name']}: the price of each defect", *summary(numbers), HOW_TO_READ]
    for setting in numbers["settings"]:
        blocks += [f"## {setting_title(setting)}", price_table(numbers, setting)]
    return "\n\n".join([*blocks, "## The switches", switch_table(numbers["switches"])]) + "\n"


def setting_title(setting: Row) -> str:
    """A setting in words."""
    labels = plural(setting["num_labelled"], "label") if setting["num_labelled"] else "all labels"
    return f"{setting['architecture']}, {setting['mode']}, {setting['benchmark']}, {labels}"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = [list(header)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def price_table(numbers: Row, setting: Row) -> str:
    """The prices of one setting."""
    titles = [numbers["initialisations"][init] for init in setting["base"]]
    rows = [["none (mean IoU)", *(_base(cell) for cell in setting["base"].values()), ""]]
    for row in setting["rows"]:
        name = "all together" if row["switch"] == ALL else f"`{row['switch']}`"
        rows.append([name, *(_cell(cell) for cell in row["cells"].values()), order(numbers, row["order"])])
    return table(["switch", *titles, "order"], rows)


def switch_table(switches: Iterable[Row]) -> str:
    """What each switch does."""
    return table(
        ("switch", "the released code", "without the switch"),
        ((f"`{row['switch']}`", row["defect"], row["correct"]) for row in switches),
    )


def all_switches() -> list[dict[str, str]]:
    """All switches that there are, as `switch_table` takes them."""
    return [{"switch": row.name, "defect": row.defect, "correct": row.correct} for row in SWITCHES.values()]


def _base(cell: Row) -> str:
    return number(cell["mean"]) + _progress(cell) if cell["runs"] else NOT_RUN


def _cell(cell: Row) -> str:
    if not cell["applies"]:
        return DOES_NOT_APPLY
    if not cell["runs"]:
        return NOT_RUN
    weights = cell["of_weights"]
    other = weights["runs"] and weights["mean"] != cell["mean"]
    return _change(cell) + (f"; weights {_change(weights)}" if other else "") + _progress(cell)


def _change(cell: Row) -> str:
    if cell["interval"] is not None:
        return f"{signed(cell['mean'])} ({between(cell['interval'])})"
    return f"{signed(cell['mean'])} ({between(cell['spread'])}, no interval)"


def _progress(cell: Row) -> str:
    return "" if cell["runs"] == cell["planned"] else f", {cell['runs']} of {cell['planned']} draws"


def order(numbers: Row, found: Row | None) -> str:
    """Whether the order of the initialisations changes, in words."""
    if found is None:
        return NOT_RUN
    if not found["swaps"]:
        return "stays"
    titles = numbers["initialisations"]
    swaps = [
        f"{titles[swap['better_after']]} above {titles[swap['better_before']]}"
        f" ({'decided' if swap['decided'] else 'undecided'})"
        for swap in found["swaps"]
    ]
    return f"changes: {', '.join(swaps)}"


def summary(numbers: Row) -> Iterator[str]:
    """Paragraphs on what the numbers say, in plain words."""
    cells = [
        cell
        for setting in numbers["settings"]
        for row in setting["rows"]
        for cell in row["cells"].values()
        if cell["applies"]
    ]
    done = sum(cell["runs"] == cell["planned"] for cell in cells)
    yield f"{done} of {plural(len(cells), 'cell')} {'is' if done == 1 else 'are'} complete."
    for setting in numbers["settings"]:
        if sentences := list(_sentences(numbers, setting)):
            yield f"**{setting_title(setting)}.** {' '.join(sentences)}"


def _sentences(numbers: Row, setting: Row) -> Iterator[str]:
    titles = numbers["initialisations"]
    alone = [row for row in setting["rows"] if row["switch"] != ALL]
    decided = [
        (cell["mean"], row["switch"], titles[init], cell)
        for row in alone
        for init, cell in row["cells"].items()
        if cell["applies"] and cell["interval"] is not None and cell["interval"][0] * cell["interval"][1] > 0
    ]
    if decided:
        _, switch, title, cell = max(decided, key=lambda entry: abs(entry[0]))
        yield (
            f"The largest change of one switch whose interval excludes 0 is that of `{switch}` for {title}: "
            f"{_change(cell)} points. Intervals that exclude 0: {len(decided)}."
        )
    elif any(cell.get("interval") is not None for row in alone for cell in row["cells"].values()):
        yield "No change of one switch has an interval that excludes 0."
    ordered = [row for row in alone if row["order"] is not None]
    changed = [row["switch"] for row in ordered if row["order"]["swaps"]]
    certain = [row["switch"] for row in ordered if any(swap["decided"] for swap in row["order"]["swaps"])]
    if ordered:
        yield (
            f"Of {len(ordered)} switches, {len(changed)} alone "
            f"{'changes' if len(changed) == 1 else 'change'} the order of the initialisations"
            f"{_named(changed)}; of these, {len(certain)} decided{_named(certain)}."
        )
    together = [row for row in setting["rows"] if row["switch"] == ALL and row["order"] is not None]
    for row in together:
        yield f"All switches together: the order {order(numbers, row['order'])}."


def _named(names: Iterable[str]) -> str:
    found = ", ".join(f"`{name}`" for name in names)
    return f" ({found})" if found else ""
