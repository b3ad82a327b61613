"""The sentences of a report on comparisons, written by hand."""

from dataclasses import asdict

from depthseg.study.report.findings import claim_rows, findings, swapped
from depthseg.study.results import Setting

PLACE = asdict(Setting("resnet18", "full", "streets", 8))


def row(a, difference, p_adjusted=None, reason=""):
    spread = {"interval": [difference - 0.01, difference + 0.01], "spread": [difference - 0.02, difference + 0.02]}
    found = PLACE | {"a": a, "b": "none", "difference": difference, "p_adjusted": p_adjusted, "reason": reason}
    return found | spread | {"records": [f"{a}-chosen", "none-chosen"]}


def sentences(*rows, fixed=()):
    titles = {name: {"title": f"the {name} initialisation"} for name in ("none", "depth", "flow", "video")}
    numbers = {"settings": [PLACE], "comparisons": rows, "comparisons_fixed": fixed, "initialisations": titles}
    numbers |= {"fixed_rate": 0.001}
    found = findings(numbers)
    assert list(found) == ["resnet18, full, streets, 8 labels"]
    return found["resnet18, full, streets, 8 labels"]


def test_why_nothing_was_tested_is_said_once_for_all_that_it_holds_for():
    few, alone = "Two seeds are too few for a p-value.", "It has a single run."
    first, second = sentences(
        row("depth", 0.1, None, few), row("flow", -0.1, None, alone), row("video", 0.2, None, few)
    )
    beginning = "No p-value for the difference from the none initialisation: "
    assert first.startswith(f"{beginning}the depth initialisation (") and "; the video initialisation (" in first
    assert first.endswith(f"). {few}") and first.count("too few") == 1 and "flow" not in first
    assert second.startswith(f"{beginning}the flow initialisation (") and second.endswith(f"). {alone}")


def test_what_was_tested_is_better_worse_or_open():
    found = sentences(row("depth", 0.1, 0.01), row("flow", -0.1, 0.02), row("video", 0.001, 0.6))
    beginnings = (
        "Significantly better than the none initialisation: the depth",
        "Significantly worse than the none initialisation: the flow",
        "No significant difference from the none initialisation: the video",
    )
    assert [sentence.startswith(start) for sentence, start in zip(found, beginnings, strict=True)] == [True] * 3
    assert "95 % interval" in found[0] and "the video initialisation" in found[2]


def test_another_verdict_at_the_fixed_rate_is_told_with_both_numbers_but_not_of_the_same_runs():
    chosen = row("depth", 6.4, 0.01)
    same = chosen | {"p_adjusted": 0.2}
    assert len(sentences(chosen, fixed=[same])) == 1
    others = same | {"difference": 4.1, "records": ["depth-fixed", "none-chosen"]}
    last = sentences(chosen, fixed=[others])[-1]
    assert last.startswith(
        "the depth initialisation against the none initialisation at the chosen learning rates: +6.4 points"
    )
    assert "adjusted p = 0.010; both at 0.001: +4.1 points" in last and last.endswith("adjusted p = 0.200.")
    assert len(sentences(chosen, fixed=[others | {"p_adjusted": 0.04}])) == 1


def test_a_claim_is_told_in_its_own_direction_and_mode():
    better = row("depth", 3.0, 0.01) | {"interval": [1.0, 5.0]}
    elsewhere = better | {"mode": "frozen"}
    numbers = {"comparisons": [better, elsewhere]}
    claim = {"text": "", "better": "none", "than": "depth", "mode": ""}
    first, second = claim_rows(claim, numbers)
    assert (first["a"], first["b"], first["difference"], first["interval"]) == ("none", "depth", -3.0, [-5.0, -1.0])
    assert (first["mode"], second["mode"]) == ("full", "frozen") and swapped(first) == better
    assert claim_rows(claim | {"mode": "frozen"}, numbers) == [second]
    assert claim_rows(claim | {"better": "depth", "than": "none"}, numbers) == [better, elsewhere]
    assert claim_rows(claim | {"than": "flow"}, numbers) == []
    untested = row("depth", 3.0) | {"interval": None}
    assert swapped(untested)["interval"] is None
