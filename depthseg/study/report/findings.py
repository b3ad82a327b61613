"""What a study says, in sentences: no more than its comparisons carry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..results import Setting
from .text import between, number, p_equals, plural, signed

LEVEL = 0.05
"""Holm-adjusted p-values below it are findings."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Findings:
    """Sentences on one setting.

    Attributes:
        setting: Where they hold.
        sentences: One statement each.
    """

    setting: str
    sentences: tuple[str, ...]


def overview(numbers: Row) -> list[str]:
    """Sentences on the whole study: whether it is finished, and how to read the others."""
    lines = []
    lacking = sum(len(entry["runs"]) for entry in numbers["missing"])
    if lacking:
        lines.append(
            f"The study is not finished: {plural(lacking, 'planned run')} {'is' if lacking == 1 else 'are'} missing. "
            "A comparison uses only the seeds that both arms have."
        )
    rows = [*numbers["comparisons"], *numbers["comparisons_fixed"]]
    if not rows:
        return [*lines, "Nothing can be compared yet: no two arms have a finished run with the same seeds."]
    if any(row["p_adjusted"] is not None for row in rows):
        tested = [row for row in numbers["comparisons"] if row["p_value"] is not None]
        lines.append(
            f"A difference counts as found where its p-value is below {LEVEL} after Holm's adjustment for all "
            f"{plural(len(tested), 'comparison')} at the chosen learning rates; those at the fixed rate are adjusted "
            f"among themselves. {_count_below('p_value', tested)} of the {len(tested)} p-values lie below {LEVEL} "
            f"before adjustment, {_count_below('p_adjusted', tested)} after. Intervals are not adjusted: one may "
            "leave 0 out although no difference counts as found."
        )
        halves = [(row["interval"][1] - row["interval"][0]) / 2 for row in tested]
        if halves:
            lines.append(
                "Where no difference is found, the arms have not been shown to be equal: the intervals reach "
                f"{number(min(halves))} to {number(max(halves))} points to either side. What they are over and "
                "conditional on stands below the tables that have them."
            )
    return lines


def findings(numbers: Row) -> list[Findings]:
    """What the comparisons at the chosen rates say, setting by setting."""
    found = []
    for entry in numbers["settings"]:
        rows = rows_of(numbers["comparisons"], entry)
        if rows:
            others = rows_of(numbers["comparisons_fixed"], entry)
            sentences = [*_sentences(rows, numbers), *_disagreements(rows, others, numbers)]
            found.append(Findings(str(Setting(**entry)), tuple(sentences)))
    return found


def rows_of(rows: Sequence[Row], setting: Row) -> list[Row]:
    """The rows of one setting."""
    return [row for row in rows if all(row[name] == value for name, value in setting.items())]


def verdict(row: Row) -> str:
    """One of `better`, `worse`, `open` and `untested`, for arm a against arm b."""
    if row["p_adjusted"] is None:
        return "untested"
    if row["p_adjusted"] >= LEVEL:
        return "open"
    return "better" if row["difference"] > 0 else "worse"


def turned(row: Row) -> Row:
    """The same comparison, arm b against arm a."""
    return row | {
        **{"a": row["b"], "b": row["a"], "difference": -row["difference"]},
        "interval": row["interval"] and [-bound for bound in reversed(row["interval"])],
    }


def claim_rows(claim: Row, numbers: Row) -> list[Row]:
    """The comparisons that put a claim to the test, in the direction of the claim, setting by setting."""
    wanted = (claim["better"], claim["than"])
    found = [row for row in numbers["comparisons"] if claim["mode"] in ("", row["mode"])]
    found = [turned(row) if (row["b"], row["a"]) == wanted else row for row in found]
    return [row for row in found if (row["a"], row["b"]) == wanted]


def _sentences(rows: Sequence[Row], numbers: Row) -> Iterator[str]:
    title = _titles(numbers)
    beginnings = {
        "better": "Better than {b}: ",
        "worse": "Worse than {b}: ",
        "open": "No difference from {b} is found for ",
        "untested": "No p-value against {b} for ",
    }
    for b in dict.fromkeys(row["b"] for row in rows):
        for kind, beginning in beginnings.items():
            chosen = [row for row in rows if row["b"] == b and verdict(row) == kind]
            # Said once for all that it holds for; only what was not tested has a reason.
            for reason in dict.fromkeys(row["reason"] for row in chosen):
                clauses = "; ".join(
                    f"{title[row['a']]} ({_evidence(row)})" for row in chosen if row["reason"] == reason
                )
                yield f"{beginning.format(b=title[b])}{clauses}." + (f" {reason}" if kind == "untested" else "")


def _evidence(row: Row) -> str:
    difference = f"{signed(row['difference'])} points"
    if row["p_adjusted"] is None:
        low, high = row["spread"]
        return f"{difference}, from {signed(low)} to {signed(high)} between runs"
    return f"{difference}, 95 % interval {between(row['interval'])}, adjusted {p_equals(row['p_adjusted'])}"


def _disagreements(rows: Sequence[Row], others: Sequence[Row], numbers: Row) -> Iterator[str]:
    title = _titles(numbers)
    fixed = {(row["a"], row["b"]): row for row in others}
    for row in rows:
        other = fixed.get((row["a"], row["b"]))
        # Where both arms chose the fixed rate the runs are the same, and only the seeds of other arms differ.
        if other and set(other["records"]) != set(row["records"]) and verdict(other) != verdict(row):
            yield (
                f"{title[row['a']]} against {title[row['b']]} at the chosen learning rates: {_evidence(row)}; both at "
                f"{number_of_rate(numbers)}: {_evidence(other)}."
            )


def _count_below(name: str, rows: Sequence[Row]) -> int:
    return sum(row[name] < LEVEL for row in rows)


def number_of_rate(numbers: Row) -> str:
    """The fixed learning rate as text."""
    rate = numbers["fixed_rate"]
    return number(None) if rate is None else f"{rate:g}"


def _titles(numbers: Row) -> dict[str, str]:
    return {arm: entry["title"] for arm, entry in numbers["arms"].items()}
