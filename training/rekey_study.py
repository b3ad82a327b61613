"""Bring the records of a study to the names and keys of this version, so that none of its trials is repeated.

    python training/rekey_study.py training/studies/results/world

The key of a trial is a hash of its options. Every record contains them, so its key can always be computed again. If
the script is interrupted, the same command resumes.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from depthseg.engine.atomic import atomic_folder, atomic_path
from depthseg.engine.records import write_json
from depthseg.reading import write_yaml
from depthseg.study import stored
from depthseg.study.matrix import make_trial
from depthseg.study.results import PLAN_FILE, STUDY_FILE, read_study


def new_keys(records: dict[str, stored.TrialRecord]) -> dict[str, str]:
    """Return the key of each record in this version, by its present one."""
    keys: dict[str, str] = {}

    def key_of(old: str | None) -> str | None:
        if old in records and old not in keys:
            record = records[old].content
            labels = {name: record[name] for name in stored.LABELS[record["kind"]]}
            parent = key_of(record["parent_key"])
            keys[old] = make_trial(record["kind"], labels, stored.config_of(records[old]), parent).key
        return keys.get(old, old)

    for key in records:
        key_of(key)
    return keys


def main() -> None:
    """Write the records, their confusion matrices, the plan and the study anew; weights are renamed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="output directory of the study")
    out = parser.parse_args().folder
    study = read_study(out)
    records = {record["key"]: record for record in stored.read_records(stored.trials_folder(out))}
    keys = new_keys(records)
    with atomic_folder(out / stored.TRIALS) as partial:
        partial.mkdir()
        for old, new in keys.items():
            content = records[old].content
            parent = keys.get(content["parent_key"], content["parent_key"])
            write_json(partial / f"{new}.json", {**content, "key": new, "parent_key": parent})
            if (arrays := records[old].path.with_suffix(".npz")).is_file():
                shutil.copy2(arrays, partial / f"{new}.npz")
            if old != new and (out / stored.RUNS / old).is_dir():
                (out / stored.RUNS / old).rename(out / stored.RUNS / new)
        if (out / PLAN_FILE).is_file():
            plan = json.loads((out / PLAN_FILE).read_text())
            write_json(out / PLAN_FILE, {**plan, "keys": [keys.get(key, key) for key in plan["keys"]]})
        with atomic_path(out / STUDY_FILE) as temporary:
            write_yaml(temporary, study)
    shutil.rmtree(out / stored.OLD_TRIALS, ignore_errors=True)
    print(f"{sum(old != new for old, new in keys.items())} of {len(keys)} records have a new key.")


if __name__ == "__main__":
    main()
