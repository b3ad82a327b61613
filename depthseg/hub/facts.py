"""The facts of a card that are not in a run record: intended use, limits, licence."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..reading import Written, built, merged, read_yaml, typed, written


@dataclass
class Facts:
    """The facts about a checkpoint that its author states; one YAML file for each in model_cards/.

    Attributes:
        repo_id: Its repository, for `publish --all`.
        run: Its run directory, for `publish --all`.
        title: Heading of the card; empty = the name of the repository.
        summary: Description of the model in one or two sentences.
        intended_use: Intended uses, and uses that are not intended.
        limits: Known limitations, one sentence each.
        commands: Commands that reproduce the weights.
        licence: Hub identifier, or `other:NAME:LINK`.
        licences: Licences of data and weights that are unknown to depthseg, by name.
        data: Description of your own data, a sentence for each name, such as `video`.
        test: Options of the run that select the test images of the card, such as `data.val_split=test`; empty = the
            images that the run was evaluated on.
        dtype: Of the published weights: `float32`, `bfloat16` or `float16`; empty = as trained.
        hub_datasets: Data set of depthseg -> its id on the Hub, if it is a benchmark there: its scores are also
            written to `.eval_results/`.
    """

    repo_id: str = ""
    run: str = ""
    title: str = ""
    summary: str = ""
    intended_use: str = ""
    limits: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    licence: str = ""
    licences: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    test: list[str] = field(default_factory=list)
    dtype: str = ""
    hub_datasets: dict[str, str] = field(default_factory=dict)


def read_facts(path: str | Path | None, **stated: Any) -> Facts:
    """Read a file of facts.

    Args:
        path: The file; None = only the stated facts.
        **stated: Facts that take precedence over those of the file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not YAML, an unknown fact or a wrong type.
    """
    if path and not Path(path).is_file():
        raise FileNotFoundError(f"There is no file of facts {path}.")
    facts = merged(read_yaml(path) if path else Written({}), written(stated, "what is stated"))
    return built(Facts, typed(facts, Facts))
