"""Render the cards in model_cards/, each from its facts and the record of its run.

    python training/render_cards.py                             # all cards, from the records in model_cards/
    python training/render_cards.py depthseg-world-flow runs/pretrain_synthetic_flow data.root=/data/world

With a run, the checkpoint is prepared and checked as in `depthseg publish`, and its record is copied next to the card.
Weights and their code are not copied, except for depthseg-tiny-world, which can be loaded from this repository.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from depthseg.engine.command import one_sentence_errors, show_progress
from depthseg.engine.fingerprint import files_of
from depthseg.hub.bundle import checked_licence, prepare
from depthseg.hub.card import Card
from depthseg.hub.facts import read_facts
from depthseg.hub.record import read_published
from depthseg.hub.verify import read_evaluation

CARDS = Path(__file__).parents[1] / "model_cards"
WITH_WEIGHTS = ("depthseg-tiny-world",)
LEFT_OUT = (".safetensors", ".py", ".png", "manifest.json")


def main() -> None:
    """Copy a record if a run is given, then render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="name of a file of facts in model_cards/, without .yaml")
    parser.add_argument("run_dir", nargs="?", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="OPTION=VALUE", help="such as data.root=/data/world")
    options = parser.parse_args()
    show_progress()
    with one_sentence_errors():
        if options.name:
            if options.run_dir is None:
                raise ValueError(f"Give the run directory of {options.name} as the second argument.")
            take_record(options.name, options.run_dir, options.overrides)
        for path in [CARDS / f"{options.name}.yaml"] if options.name else sorted(CARDS.glob("*.yaml")):
            (path.with_suffix("") / "README.md").write_text(render(path), encoding="utf-8")


def take_record(name: str, run_dir: Path, overrides: list[str]) -> None:
    """Prepare a run as for the Hub, and copy the files that are committed."""
    facts = read_facts(CARDS / f"{name}.yaml")
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / name
        prepare(run_dir, facts.repo_id, facts, prepared, overrides)
        for file in files_of(prepared):
            if name in WITH_WEIGHTS or not file.endswith(LEFT_OUT):
                (CARDS / name / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(prepared / file, CARDS / name / file)


def render(path: Path) -> str:
    """The card of a checkpoint whose record is committed."""
    facts, folder = read_facts(path), path.with_suffix("")
    record = read_published(folder)
    evaluation = read_evaluation(folder / "evaluation") if (folder / "evaluation").is_dir() else None
    return Card(facts.repo_id, record, evaluation, facts, *checked_licence(record, facts)).render()


if __name__ == "__main__":
    main()
