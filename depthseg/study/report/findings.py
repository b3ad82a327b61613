"""The findings of a study in sentences, limited to what its comparisons support."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..places import is_about
from ..results import Setting
from ..statistics import plural
from .text import between, p_equals, signed

LEVEL = 0.05
"""A comparison with a Holm-adjusted p-value below this level is significant; an exploratory one is a candidate if its
q-value is below."""

BEGINNINGS = {
    "better": "Significantly better than {b}: ",
    "worse": "Significantly worse than {b}: ",
    "open": "No significant difference from {b}: ",
    "untested": "No p-value for the difference from {b}: ",
}
EXPLORATORY_BEGINNINGS = {
    "better": "Exploratory, better than {b}: ",
    "worse": "Exploratory, worse than {b}: ",
    "open": "Exploratory, no difference found from {b}: ",
    "untested": "Exploratory, no p-value for the difference from {b}: ",
}
VERDICTS = {"better": "supported", "worse": "contradicted", "open": "undecided", "untested": "not tested"}
"""What a comparison says on a claim that its first initialisation is better."""

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
    if numbers.get("primary"):
        lines.append(
            f"{plural(numbers['primary'], 'comparison')} {'was' if numbers['primary'] == 1 else 'were'} registered as "
            f"primary before the study ran. Such a difference is significant if its p-value is below {LEVEL} after "
            "Holm's adjustment for these. All other comparisons are exploratory: those with a q-value (Benjamini and "
            f"Hochberg) below {LEVEL} are candidates for a further study, of which about 1 in {round(1 / LEVEL)} is "
            "expected to be false. Intervals are not adjusted."
        )
    elif any(row["p_adjusted"] is not None for row in rows):
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
    found = {"Primary claims": list(_primary_sentences(numbers))} if numbers.get("primary") else {}
    for entry in numbers["settings"]:
        if rows := [row for row in rows_of(numbers["comparisons"], entry) if not row.get("primary")]:
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
    error = error_rate(row)
    if error is None:
        return "untested"
    if error >= LEVEL:
        return "open"
    return "better" if row["difference"] > 0 else "worse"


def error_rate(row: Row) -> float | None:
    """The adjusted p-value of a comparison, or the q-value of an exploratory one; None without."""
    return row["p_adjusted"] if row.get("primary", True) else row["q_value"]


def swapped(row: Row) -> Row:
    """The same comparison, b against a."""
    return row | {
        **{"a": row["b"], "b": row["a"], "difference": -row["difference"]},
        "interval": row["interval"] and [-bound for bound in reversed(row["interval"])],
    }


def claim_rows(claim: Row, numbers: Row) -> list[Row]:
    """The comparisons that test a claim, in the direction of the claim, setting by setting."""
    wanted = (claim["better"], claim["than"])
    found = [row for row in numbers["comparisons"] if is_about(claim, row)]
    found = [swapped(row) if (row["b"], row["a"]) == wanted else row for row in found]
    return [row for row in found if (row["a"], row["b"]) == wanted]


def _primary_sentences(numbers: Row) -> Iterator[str]:
    title = titles_of(numbers)
    for claim in numbers["claims"]:
        if claim.get("primary"):
            rows = claim_rows(claim, numbers)
            for row in rows:
                setting = Setting(**{name: row[name] for name in numbers["settings"][0]})
                pair = f"{title[row['a']]} against {title[row['b']]}"
                result = f"{pair}, {setting}: {_evidence(row)}: {VERDICTS[verdict(row)]}."
                yield " ".join(filter(None, (claim["text"] and f"“{claim['text']}”:", result, row["reason"])))
            if not rows:
                yield f"{title[claim['better']]} against {title[claim['than']]}: not tested, no run is finished."


def _sentences(rows: Sequence[Row], numbers: Row) -> Iterator[str]:
    title = titles_of(numbers)
    beginnings = EXPLORATORY_BEGINNINGS if numbers.get("primary") else BEGINNINGS
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
    error = error_rate(row)
    if error is None:
        low, high = row["spread"]
        return f"{difference}, {signed(low)} to {signed(high)} between runs"
    how = f"adjusted {p_equals(error)}" if row.get("primary", True) else p_equals(error, "q")
    return f"{difference}, 95 % interval {between(row['interval'])}, {how}"


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
