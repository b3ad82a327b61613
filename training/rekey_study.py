"""Name the records of a study by the keys that this version gives them, so that none of its runs is repeated.

    python training/rekey_study.py training/studies/results/world

The key of a run is a hash of its options. Every record holds them, so its key can always be computed again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from depthseg.engine.records import write_json
from depthseg.study.cells import CELLS, RUNS, record_path
from depthseg.study.matrix import POSITION, make_cell
from depthseg.study.runner import PLAN_FILE
from depthseg.study.stored import CellRecord, config_of, read_records

PARENTS = ("parent_key", "pretrain_key")


def new_keys(records: dict[str, CellRecord]) -> dict[str, str]:
    """Return the key of each record in this version, by its present one."""
    keys: dict[str, str] = {}

    def key_of(old: str | None) -> str | None:
        if old is not None and old not in keys:
            record = records[old].content
            labels = {name: record[name] for name in POSITION[record["kind"]]}
            parent = key_of(next((record[name] for name in PARENTS if name in record), None))
            keys[old] = make_cell(record["kind"], labels, config_of(records[old]), parent).key
        return keys.get(old)

    for key in records:
        key_of(key)
    return keys


def rename(out: Path, record: CellRecord, keys: dict[str, str]) -> None:
    """Write a record under its new key, with the weights and confusion matrices that belong to it."""
    old, new = record["key"], keys[record["key"]]
    if old == new:
        return
    content = {name: keys[record[name]] for name in ("key", *PARENTS) if record.content.get(name)}
    write_json(record_path(out, new), {**record.content, **content})
    for before, after in (
        (record.path.with_suffix(".npz"), record_path(out, new).with_suffix(".npz")),
        (out / RUNS / old, out / RUNS / new),
    ):
        if before.exists():
            before.rename(after)
    record.path.unlink()


def main() -> None:
    """Rename what the records of a study are named by, and follow in its plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="output directory of the study")
    out = parser.parse_args().folder
    records = {record["key"]: record for record in read_records(out / CELLS)}
    keys = new_keys(records)
    if (out / PLAN_FILE).is_file():
        plan = json.loads((out / PLAN_FILE).read_text())
        write_json(out / PLAN_FILE, {**plan, "keys": [keys.get(key, key) for key in plan["keys"]]})
    for record in records.values():
        rename(out, record, keys)
    print(f"{sum(old != new for old, new in keys.items())} of {len(keys)} records have a new key.")


if __name__ == "__main__":
    main()
