"""`depthseg study own`: what depth pre-training on a film gains on one's own labels, within a number of hours.

The preset `own` says what is compared. Here its options become short, it is fitted to the data, its plan is cut to
the hours given, and its result is said in a sentence.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from ..engine.build import build_datasets
from ..engine.config import compose_config
from ..engine.download import check_available
from .options import FULL_SCALE, OWN, StudyOptions, load_study, read_stored_study
from .places import PLACE
from .plan import PlanRow, plan_study, plan_text
from .report.text import labels as labels_text
from .runner import trials_in_order
from .statistics import plural
from .stored import STUDY_FILE, record_path

logger = logging.getLogger(__name__)

BENCHMARK, FILM, REFERENCE = "own", "film", "none"
PIXELS = 96 * 160
"""Pixels of an image that the networks see, near which its size is chosen in multiples of `MULTIPLE`."""

MULTIPLE = 16
MOST_LABELLED = 16
"""The smallest number of labelled images is this, or a quarter of the images to draw from if they are few."""

VAL_FRACTION = 0.3


@dataclass(frozen=True)
class Cut:
    """How far a plan is cut; a study that has less already keeps what it has.

    Attributes:
        steps: Share of the steps of pre-training and fine-tuning.
        numbers: How many of the numbers of labelled images, from the smallest on.
        draws: Draws of the labelled images.
        pretrainings: Pre-trainings of the film.
    """

    steps: float
    numbers: int
    draws: int
    pretrainings: int


CUTS = (
    Cut(1.0, 3, 9, 9),
    Cut(0.5, 3, 9, 9),
    Cut(0.5, 3, 9, 6),
    Cut(0.5, 3, 9, 3),
    Cut(0.5, 2, 9, 3),
    Cut(0.5, 1, 9, 3),
    Cut(0.5, 1, 6, 3),
    Cut(0.25, 1, 6, 3),
    Cut(0.25, 1, 6, 2),
)
"""From the whole plan to the smallest; the first that fits is run. Steps are halved before anything else. Then there
are fewer pre-trainings: with one for each draw, the plan finds a difference of 2.6 points where three find one of 3.6
(at a spread of 2.4 points over draws). Then the larger numbers of labels go, which only tell how many labels the gain
is worth; then draws, of which an interval needs six; then steps again, and one pre-training of three."""


def spelled_out(overrides: Iterable[str]) -> list[str]:
    """The short options of `study own` as options of a study.

    `data.video` is the film of the pre-training, `data.size` is for both stages, and all other `data` are those of
    fine-tuning. `imagenet=FOLDER` adds an initialisation from given weights.
    """
    found = []
    for text in overrides:
        if text.startswith("data.video="):
            found.append(f"initialisations.{FILM}.pretrain.{text}")
        elif text.startswith("data.size="):
            found += [f"{stage}.{text}" for stage in ("pretrain", "finetune")]
        elif text.startswith("data."):
            found.append(f"finetune.{text}")
        elif text.startswith("imagenet="):
            weights = {"title": "ImageNet", "checkpoint": text.partition("=")[2]}
            found.append(f"initialisations.imagenet={json.dumps(weights)}")
        else:
            found.append(text)
    return found


def load_own(scale: str = FULL_SCALE, overrides: Sequence[str] = ()) -> StudyOptions:
    """Read the study with short options, and fit it to the data; options that are given have precedence.

    Raises:
        ValueError: No data or no film is given, they cannot be read, or too few images are labelled.
        FileNotFoundError: Missing data.
    """
    given = spelled_out(overrides)
    study = load_study(OWN, scale, given)
    film = study.initialisations[FILM].pretrain.get("data", {})
    if not film.get("video") or not study.finetune["data"].get("root"):
        raise ValueError(
            "study own compares initialisations on your data: give data.root=FOLDER, your images with labels, and "
            "data.video=FILM, a video file or a folder of frames of the same camera, which need no labels."
        )
    _check_weights(study)
    options = data_options(study)
    study = load_study(OWN, scale, [*given, *options])
    # What is given has precedence; the options of the data contain what is given.
    return load_study(OWN, scale, [*_fitted(study), *given, *options])


def _check_weights(study: StudyOptions) -> None:
    """Refuse given weights of another encoder than that of random weights: a comparison would be of two networks."""
    encoder = next(iter(study.architectures.values()))["model"]["encoder"]["model_type"]
    for init in study.initialisations.values():
        if init.checkpoint is None:
            continue
        check_available(init.checkpoint, init.revision)
        config, _ = PreTrainedConfig.get_config_dict(init.checkpoint, revision=init.revision)
        found = config.get("encoder_config", config).get("model_type")
        if found != encoder:
            raise ValueError(
                f"{init.checkpoint} has the encoder {found}, and the network of the other initialisations has "
                f"{encoder}: give all the same one, with architectures.mobilenet_v2.model.encoder={{model_type: "
                f"{found}}}."
            )


def data_options(study: StudyOptions) -> list[str]:
    """The options of a folder, divided so that no test image is a neighbour of a labelled one."""
    data = study.finetune["data"]
    if data["name"] != "folder":
        return []
    options = {"split_by": "sequences", "val_fraction": VAL_FRACTION} | data["options"]
    return [f"finetune.data.options={json.dumps(options)}"]


def _fitted(study: StudyOptions) -> list[str]:
    """Options that follow from the data: the size of the images, the numbers of labels, and the camera of the film."""
    network = ("architectures", next(iter(study.architectures.values())))
    stage = [("pretrain", study.pretrain), (f"initialisations.{FILM}", study.initialisations[FILM].pretrain)]
    pool, test_set = build_datasets(compose_config([("finetune", study.finetune), network]).data)
    film, _ = build_datasets(compose_config([*stage, network]).data)
    logger.info(
        "%d images to draw labelled ones from, %d test images, %d frames of film", len(pool), len(test_set), len(film)
    )
    return [
        *spelled_out([f"data.size={list(network_size(*pool[0].image.shape[:2]))}"]),
        f"benchmarks.{BENCHMARK}.num_labelled={numbers_of_labels(len(pool))}",
        *(["pretrain.pretext.intrinsics=given"] if film[0].intrinsics is not None else []),
    ]


def network_size(height: int, width: int) -> tuple[int, int]:
    """Height and width in multiples of `MULTIPLE` with about `PIXELS` pixels and the shape of an image."""
    factor = min(1.0, math.sqrt(PIXELS / (height * width)))
    return tuple(max(MULTIPLE, round(factor * length / MULTIPLE) * MULTIPLE) for length in (height, width))


def numbers_of_labels(pool: int) -> list[int]:
    """Numbers of labelled images: the smallest, its double and its fourfold, as far as the pool has them.

    Raises:
        ValueError: There are fewer than four images.
    """
    if pool < 4:
        raise ValueError(
            f"{plural(pool, 'labelled image')} beside the test images: at least 4 are needed, so that draws differ. "
            "Label more, or give another data.options.val_fraction."
        )
    smallest = min(MOST_LABELLED, pool // 4)
    return [smallest, 2 * smallest, 4 * smallest]


def within(study: StudyOptions, out: Path, hours: float) -> tuple[StudyOptions, list[PlanRow] | None]:
    """Cut the plan of a study to a number of hours, by times that are measured as `--dry-run` does.

    A study that was begun in its output directory and is not finished keeps its cut, so that it resumes.

    Returns:
        The study that fits, and its plan; None where a plan is kept, which is not measured again.

    Raises:
        ValueError: Not even the smallest plan fits.
    """
    studies = [shortened(study, cut) for cut in CUTS]
    path = out / STUDY_FILE
    stored = read_stored_study(path) if path.is_file() else None
    begun = next((shorter for shorter in studies if shorter.to_dict() == stored), None)
    if begun is not None and any(not record_path(out, trial.key).is_file() for trial in trials_in_order(begun, out)):
        logger.info("%s has a plan that is not finished, which is resumed", out)
        return begun, None
    with tempfile.TemporaryDirectory() as nothing:  # without records, so that every stage is measured
        costs = {row.what: row.cost for row in plan_study(studies[0], Path(nothing))}
    for shorter in studies:
        rows = plan_study(shorter, out, costs=costs)
        if sum(row.seconds for row in rows) <= 3600 * hours:
            return shorter, rows
    needed = math.ceil(sum(row.seconds for row in rows) / 360) / 10
    raise ValueError(
        f"{hours:g} hours do not suffice: the smallest plan, {describe(shorter)}, takes about {needed:g} hours on "
        f"this machine.\n{plan_text(rows)}\nGive --hours {needed:g}, or fewer steps or smaller images, such as "
        "finetune.schedule.steps=300 pretrain.schedule.steps=1000 data.size=[64,96]."
    )


def shortened(study: StudyOptions, cut: Cut) -> StudyOptions:
    """The study with this cut."""
    benchmarks = {
        name: replace(entry, num_labelled=entry.num_labelled[: cut.numbers])
        for name, entry in study.benchmarks.items()
    }
    pretrain, finetune = (_with_steps(sections, cut.steps) for sections in (study.pretrain, study.finetune))
    seeds = study.seeds
    seeds = replace(seeds, pretrain=min(seeds.pretrain, cut.pretrainings), draws=min(seeds.draws, cut.draws))
    return replace(study, benchmarks=benchmarks, pretrain=pretrain, finetune=finetune, seeds=seeds)


def _with_steps(sections: Mapping[str, Any], share: float) -> dict[str, Any]:
    schedule = sections["schedule"]
    shorter = {name: round(share * schedule[name]) for name in ("steps", "warmup_steps") if name in schedule}
    return {**sections, "schedule": {**schedule, **shorter, "steps": max(1, shorter["steps"])}}


def describe(study: StudyOptions) -> str:
    """The size of a plan in words."""
    numbers = " and ".join(map(str, study.benchmarks[BENCHMARK].num_labelled))
    return (
        f"{plural(study.seeds.draws, 'draw')} of {numbers} labelled images, "
        f"{plural(study.seeds.pretrain, 'pre-training')} of {study.pretrain['schedule']['steps']} steps, "
        f"fine-tuning of {study.finetune['schedule']['steps']} steps"
    )


def answer(numbers: Mapping[str, Any]) -> str:
    """What depth of the film gains, and how many labels that is worth, in a sentence from `results.json`."""
    rows = [row for row in numbers["comparisons"] if {row["a"], row["b"]} == {FILM, REFERENCE}]
    if not rows:
        return "What depth of your film gains cannot be said yet: too few runs are finished."
    row = min(rows, key=lambda row: row["num_labelled"])
    sign = 1 if row["a"] == FILM else -1
    gain, labels = sign * row["difference"], row["num_labelled"]
    said = (
        f"With {plural(labels, 'labelled image')}, depth pre-training on your film changes the mean IoU by "
        f"{gain:+.1f} points against random weights"
    )
    if row["interval"] is None:
        return f"{said}; how sure that is, and how many labels it is worth, cannot be said. {row['reason']}"
    interval = sorted(sign * bound for bound in row["interval"])
    said += f" (95 % interval {interval[0]:+.1f} to {interval[1]:+.1f}, {plural(row['runs'], 'run')} each)"
    if interval[0] <= 0:
        worth = "the interval includes 0" if interval[1] >= 0 else "it does not help"
        return f"{said}; {worth}, so it cannot be said that it is worth any label."
    wanted = {name: row[name] for name in PLACE} | {"initialisation": FILM, "reference": REFERENCE}
    worth = next((value for value in numbers["label_values"] if value | wanted == value), None)
    if worth is None or worth["value"] is None:
        reason = "" if worth is None else f" {worth['reason']}"
        return f"{said}; how many labels that is worth cannot be said.{reason}"
    need = f"{said}; random weights need {labels_text(worth['value'])} labelled images for that"
    if worth["interval"] is None:
        return f"{need}, of which the interval is not known."
    return f"{need} ({' to '.join(map(labels_text, worth['interval']))})."
