"""The findings of a study in sentences, limited to what its comparisons support."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..results import Setting
from ..statistics import plural
from .text import between, p_equals, signed

LEVEL = 0.05
"""A comparison with a Holm-adjusted p-value below this level is significant."""

Row = Mapping[str, Any]


def overview(numbers: Row) -> list[str]:
    """Sentences on the whole study: its progress, and how to read the other sentences."""
    lines = []
    lacking = sum(len(entry["runs"]) for entry in numbers["missing"])
    if lacking:
        lines.append(
            f"The study is not finished: {plural(lacking, 'planned run')} {'is' if lacking == 1 else 'are'} missing. "
            "Each comparison uses only the seeds that both initialisations have finished."
        )
    rows = [*numbers["comparisons"], *numbers["comparisons_fixed"]]
    if not rows:
        return [*lines, "No two initialisations have a finished run with the same seeds yet: nothing is compared."]
    if any(row["p_adjusted"] is not None for row in rows):
        tested = [row for row in numbers["comparisons"] if row["p_value"] is not None]
        lines.append(
            f"A difference is significant if its p-value is below {LEVEL} after Holm's adjustment for all "
            f"{plural(len(tested), 'comparison')} at the chosen learning rates; comparisons at the fixed rate are "
            f"adjusted separately. {_count_below('p_value', tested)} of the {len(tested)} p-values are below {LEVEL} "
            f"before adjustment, {_count_below('p_adjusted', tested)} after. Intervals are not adjusted: an interval "
            "may exclude 0 although the difference is not significant."
        )
        if halves := [(row["interval"][1] - row["interval"][0]) / 2 for row in tested]:
            lines.append(
                "A difference that is not significant does not show that the initialisations are equal: the "
                f"half-widths of the intervals are {between((min(halves), max(halves)))} points. The notes below each "
                "table describe its intervals and their conditions."
            )
    return lines


def findings(numbers: Row) -> dict[str, list[str]]:
    """Sentences on the comparisons at the chosen rates, by setting."""
    found = {}
    for entry in numbers["settings"]:
        if rows := rows_of(numbers["comparisons"], entry):
            others = rows_of(numbers["comparisons_fixed"], entry)
            found[str(Setting(**entry))] = [*_sentences(rows, numbers), *_disagreements(rows, others, numbers)]
    return found


def rows_of(rows: Sequence[Row], setting: Row) -> list[Row]:
    """The rows of one setting."""
    return [row for row in rows if all(row[name] == value for name, value in setting.items())]


def titles_of(numbers: Row) -> dict[str, str]:
    """The title of each initialisation."""
    return {init: entry["title"] for init, entry in numbers["initialisations"].items()}


def verdict(row: Row) -> str:
    """One of `better`, `worse`, `open` and `untested`, for a against b."""
    if row["p_adjusted"] is None:
        return "untested"
    if row["p_adjusted"] >= LEVEL:
        return "open"
    return "better" if row["difference"] > 0 else "worse"


def swapped(row: Row) -> Row:
    """The same comparison, b against a."""
    return row | {
        **{"a": row["b"], "b": row["a"], "difference": -row["difference"]},
        "interval": row["interval"] and [-bound for bound in reversed(row["interval"])],
    }


def claim_rows(claim: Row, numbers: Row) -> list[Row]:
    """The comparisons that test a claim, in the direction of the claim, setting by setting."""
    wanted = (claim["better"], claim["than"])
    found = [row for row in numbers["comparisons"] if claim["mode"] in ("", row["mode"])]
    found = [swapped(row) if (row["b"], row["a"]) == wanted else row for row in found]
    return [row for row in found if (row["a"], row["b"]) == wanted]


def _sentences(rows: Sequence[Row], numbers: Row) -> Iterator[str]:
    title = titles_of(numbers)
    beginnings = {
        "better": "Significantly better than {b}: ",
        "worse": "Significantly worse than {b}: ",
        "open": "No significant difference from {b}: ",
        "untested": "No p-value for the difference from {b}: ",
    }
    for b in dict.fromkeys(row["b"] for row in rows):
        for kind, beginning in beginnings.items():
            chosen = [row for row in rows if row["b"] == b and verdict(row) == kind]
            # One sentence for all initialisations with the same reason; only untested comparisons have a reason.
            for reason in dict.fromkeys(row["reason"] for row in chosen):
                clauses = "; ".join(
                    f"{title[row['a']]} ({_evidence(row)})" for row in chosen if row["reason"] == reason
                )
                yield f"{beginning.format(b=title[b])}{clauses}." + (f" {reason}" if kind == "untested" else "")


def _evidence(row: Row) -> str:
    difference = f"{signed(row['difference'])} points"
    if row["p_adjusted"] is None:
        low, high = row["spread"]
        return f"{difference}, {signed(low)} to {signed(high)} between runs"
    return f"{difference}, 95 % interval {between(row['interval'])}, adjusted {p_equals(row['p_adjusted'])}"


def _disagreements(rows: Sequence[Row], others: Sequence[Row], numbers: Row) -> Iterator[str]:
    title = titles_of(numbers)
    fixed = {(row["a"], row["b"]): row for row in others}
    for row in rows:
        other = fixed.get((row["a"], row["b"]))
        # If both chose the fixed rate, the runs are the same and only the seeds of other initialisations differ.
        if other and set(other["records"]) != set(row["records"]) and verdict(other) != verdict(row):
            yield (
                f"{title[row['a']]} against {title[row['b']]} at the chosen learning rates: {_evidence(row)}; both at "
                f"{numbers['fixed_rate']:g}: {_evidence(other)}."
            )


def _count_below(name: str, rows: Sequence[Row]) -> int:
    return sum(row[name] < LEVEL for row in rows)
