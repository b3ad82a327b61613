"""The model card of a checkpoint: every number comes from its run record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import transformers
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from ..data import DATASETS, OWN_TERMS
from ..engine.build import source_of
from ..engine.tasks import TASKS, task_of
from .record import JOINT

if TYPE_CHECKING:
    from ..engine.tasks import Task
    from .facts import Facts
    from .licences import Licence, Source
    from .proof import Evaluation
    from .record import Lineage, RunRecord, Stage

DEPTH_SCORES = tuple(score.name for score in TASKS["depth"].scores)

SUPERVISIONS = {
    "labels": "labels",
    JOINT: "labels and ground-truth depth",
    "mono": "monocular video",
    "stereo": "stereo pairs",
    "mono_stereo": "stereo video",
    "pictures": "none (self-supervised)",
}

DEPTH_MEANING = {
    "disparity": "`predicted_depth` is in metres if the training data have metric scale.",
    "metric": "`predicted_depth` is in metres.",
    "relative": "`predicted_depth` is depth up to an unknown scale and shift.",
    "relative_inverse": "`predicted_depth` is inverse depth up to an unknown scale and shift: near is large.",
}
UP_TO_SCALE = "`predicted_depth` is depth up to an unknown scale, because training used only monocular video."


def render_card(
    repo_id: str,
    record: RunRecord,
    evaluation: Evaluation | None,
    facts: Facts,
    licence: Licence,
    sources: Sequence[Source],
) -> str:
    """The card, metadata and text.

    Args:
        repo_id: Its repository on the Hub.
        record: The run.
        evaluation: Evaluation of the published weights image by image; None if that is not possible.
        facts: Facts stated by its author.
        licence: Its licence.
        sources: Data and weights that it was trained with.
    """
    environment = Environment(
        loader=PackageLoader(__package__, "."), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    text = environment.get_template("card.md.jinja").render(
        **card_values(repo_id, record, evaluation, facts, licence, sources)
    )
    return f"---\n{metadata(repo_id, record, evaluation, facts, licence, sources).to_yaml()}\n---\n\n{text}"


def metadata(
    repo_id: str,
    record: RunRecord,
    evaluation: Evaluation | None,
    facts: Facts,
    licence: Licence,
    sources: Sequence[Source],
) -> ModelCardData:
    """Metadata for the Hub: licence, task, base models, scores. See `render_card`."""
    task, data = task_of(record.config), data_of(record, evaluation)
    datasets = [facts.hub_datasets[name] for name in data_names(record) if name in facts.hub_datasets]
    results = [
        EvalResult(
            # The depth scores of a segmenter are those of a depth model.
            task_type=(TASKS["depth"] if name in DEPTH_SCORES and task.needs_labels else task).pipeline or "other",
            dataset_type=facts.hub_datasets.get(data, data),
            dataset_name=data,
            dataset_split=split_of(record, evaluation),
            metric_type=name,
            metric_name=label,
            metric_value=round(float(value), 6),
        )
        for name, label, value in scored(task, scores_of(record, evaluation))
    ]
    return ModelCardData(
        license=licence.id,
        license_name=licence.name or None,
        license_link=licence.link or None,
        library_name="transformers",
        pipeline_tag=task.pipeline,
        tags=["depthseg", *task.tags],
        base_model=record.lineage.base_model,
        datasets=datasets or None,
        metrics=[result.metric_type for result in results],
        model_name=repo_id.rpartition("/")[2],
        eval_results=results,
    )


def eval_entries(
    repo_id: str, record: RunRecord, evaluation: Evaluation | None, facts: Facts
) -> list[EvalResultEntry]:
    """The main score in the format of `.eval_results/`, if its data set is a benchmark on the Hub."""
    dataset = facts.hub_datasets.get(data_of(record, evaluation))
    if dataset is None:
        return []
    name, _, value = scored(task_of(record.config), scores_of(record, evaluation))[0]
    return [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=name,
            value=round(float(value), 6),
            date=record.launches[-1]["started"],
            source_url=f"https://huggingface.co/{repo_id}",
            source_name="Model card",
            notes=f"split {split_of(record, evaluation)}, evaluated by the author with depthseg",
        )
    ]


def scores_of(record: RunRecord, evaluation: Evaluation | None) -> dict[str, Any]:
    """The scores of the published weights."""
    return record.scores if evaluation is None else evaluation.scores


def data_of(record: RunRecord, evaluation: Evaluation | None) -> str:
    """Data set of the scores of the card."""
    return record.lineage.stages[-1].data if evaluation is None else evaluation.data


def split_of(record: RunRecord, evaluation: Evaluation | None) -> str:
    """Split of the scores of the card."""
    return record.config.data.val_split if evaluation is None else evaluation.split


def scored(task: Task, scores: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Score, its name in the card and its value, for all available scores."""
    return [
        (score.name, score.label, scores[score.name]) for score in task.scores if scores.get(score.name) is not None
    ]


def data_names(record: RunRecord) -> list[str]:
    """Data sets of all stages, each once."""
    return list(dict.fromkeys(record.lineage.data_name(stage) for stage in record.lineage.stages))


def card_values(
    repo_id: str,
    record: RunRecord,
    evaluation: Evaluation | None,
    facts: Facts,
    licence: Licence,
    sources: Sequence[Source],
) -> dict[str, Any]:
    """Values of the template; see `render_card`."""
    task = task_of(record.config)
    stored = json.loads((record.model_dir / "config.json").read_text())
    scores = scores_of(record, evaluation)
    architecture = stored["architectures"][0]
    auto_class = next(name for name, code in stored["auto_map"].items() if code.endswith(f".{architecture}"))
    return {
        "title": facts.title or repo_id.rpartition("/")[2],
        "summary": facts.summary or _summary(record, stored),
        "repo_id": repo_id,
        "shows_classes": task is TASKS["segmentation"],
        "predicts_depth": "abs_rel" in scores or task is TASKS["depth"],
        "auto_class": auto_class if hasattr(transformers, auto_class) else None,
        "example": task.example,
        "code": stored["auto_map"][auto_class],
        "depth_example": TASKS["depth"].example if task is TASKS["segmentation"] and "abs_rel" in scores else None,
        "classes": list(stored.get("id2label", {}).values()),
        "depth_meaning": DEPTH_MEANING[stored["depth_type"]] if record.lineage.knows_scale else UP_TO_SCALE,
        "intended_use": facts.intended_use or "The author has not stated an intended use.",
        "results_sentence": _results_sentence(record, evaluation, facts),
        "cast": bool(facts.dtype),
        "results": _rows(task, scores, evaluation.intervals if evaluation else {}),
        "images_kept": evaluation is not None and bool(evaluation.per_image),
        "interval_sentence": _interval_sentence(evaluation),
        "motion_sentence": _motion_sentence(record),
        "per_class": [
            (name, "absent" if iou is None else f"{100 * iou:.1f}")
            for name, iou in (scores.get("per_class_iou") or {}).items()
        ],
        "parameters": f"{record.parameters / 1e6:.1f} million",
        "encoder": stored["encoder_config"]["model_type"],
        "head": stored["head_type"],
        "input": _input(record),
        "licences": {source.name: source.licence.label for source in sources if source.licence},
        "stages": [_stage_row(record.lineage, stage) for stage in record.lineage.stages],
        "data": _data_sentences(record, facts),
        "subset_sentence": _subset_sentence(record),
        "hardware_sentence": _hardware_sentence(record),
        "commands": facts.commands or [_command(record)],
        "licence_sentence": _licence_sentence(licence, sources),
        "limits": facts.limits or ["The author has stated none. It was evaluated only on the data above."],
    }


def _summary(record: RunRecord, stored: dict[str, Any]) -> str:
    purpose = task_of(record.config).purpose.format(classes=len(stored.get("id2label", {})))
    before = [stage.task for stage in record.lineage.stages[:-1]]
    history = f", after pre-training for {' and then '.join(before)}" if before else ""
    return f"A model for {purpose}, trained with depthseg{history}."


def _results_sentence(record: RunRecord, evaluation: Evaluation | None, facts: Facts) -> str:
    sentences = [_images_sentence(record, evaluation), "One training run."]
    if _trained_on_them(record, evaluation):
        sentences.append("The model was trained on the same frames, so these are training errors.")
    elif record.config.run.select == "best" and len(record.curve) > 1 and _of_the_run(record, evaluation):
        sentences.append(f"The weights are the best of {len(record.curve)} evaluations on the same images.")
    if facts.dtype:
        sentences.append(f"The weights are stored in {facts.dtype} and were evaluated in float32.")
    if evaluation is not None and evaluation.scores.get("alignment"):
        sentences.append(_protocol_sentence(evaluation.scores))
    return " ".join(sentences)


def _images_sentence(record: RunRecord, evaluation: Evaluation | None) -> str:
    where = f"Split {split_of(record, evaluation)} of {data_of(record, evaluation)}"
    if evaluation is None:
        return f"{where}, as logged by the run; the evaluation was not repeated."
    height, width = evaluation.size
    size = f"evaluated at their original size (the first has {height} x {width} pixels)"
    if not task_of(record.config).predicts_maps:
        height, width = record.config.data.size
        size = f"resized to {height} x {width} pixels"
    return f"{where}: {len(evaluation.names)} images, {size}."


def _protocol_sentence(scores: dict[str, Any]) -> str:
    aligned = {
        "none": "not aligned",
        "median": "aligned by the median of each image",
        "scale_shift": "aligned by scale and shift for each image",
        "scale_shift_inverse": "aligned by scale and shift of inverse depth for each image",
    }[scores["alignment"]]
    return (
        f"Depth is {aligned} and evaluated from {scores['min_depth']:g} to {scores['max_depth']:g} m, crop "
        f"{scores['crop']}."
    )


def _of_the_run(record: RunRecord, evaluation: Evaluation | None) -> bool:
    """Whether the scores are of the images that the run itself was evaluated on."""
    data = record.config.data
    own = (source_of(data)[0], data.val_split)
    return evaluation is None or (evaluation.data, evaluation.split) == own


def _trained_on_them(record: RunRecord, evaluation: Evaluation | None) -> bool:
    """Whether the scores are of training frames: without a validation fraction, a video is both splits."""
    data = record.config.data
    options = data.options | data.val_options
    divided = source_of(data)[0] != "video" or options.get("val_fraction", 0)
    return not divided and _of_the_run(record, evaluation)


def _rows(task: Task, scores: dict[str, Any], intervals: dict[str, tuple[float, float]]) -> list[dict[str, str]]:
    rows = []
    for score in task.scores:
        if scores.get(score.name) is None:
            continue
        ends = intervals.get(score.name)
        rows.append(
            {
                "name": score.label,
                "value": f"{score.text(scores[score.name])}{score.unit}",
                "interval": f"{score.text(ends[0])} to {score.text(ends[1])}{score.unit}" if ends else "",
            }
        )
    return rows


def _interval_sentence(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "No interval: the run logged no scores of single images."
    if not evaluation.intervals:
        return "No interval: the evaluation gives no scores of single images."
    length = evaluation.block_length
    together = f", in blocks of {length} consecutive images of a sequence" if length > 1 else ""
    return (
        f"The intervals are bootstrap intervals over the test images{together}, for these weights.\n"
        "They do not include the variance over training seeds."
    )


def _input(record: RunRecord) -> str:
    size = json.loads((record.model_dir / "preprocessor_config.json").read_text())["size"]
    whole, data = f"{size['height']} x {size['width']} pixels", record.config.data
    return f"{whole}, trained on patches of {data.size[0]} x {data.size[1]}" if data.crop_pixels else whole


def _motion_sentence(record: RunRecord) -> str:
    """Warp error of the video and error of the trajectory."""
    if not record.motion:
        return ""
    warp, found = record.motion["warp_error"], record.motion.get("trajectory")
    sentence = (
        "Warp error between neighbouring frames at the end of training, with the pose network trained together with "
        f"this model: {warp['model']:.1f} grey levels; without warping {warp['identity']:.1f}; with forward motion in "
        f"a straight line {warp['straight_line']:.1f}."
    )
    if not found:
        return sentence
    return (
        f"{sentence} Absolute trajectory error (one scale for the whole trajectory): {found['model']['ate']:.2f} m "
        f"over {found['model']['path_length']:.0f} m; straight line {found['straight_line']['ate']:.2f} m."
    )


def _stage_row(lineage: Lineage, stage: Stage) -> dict[str, Any]:
    learned_from = SUPERVISIONS[stage.supervision]
    if (stage.task, stage.supervision) == ("depth", "labels"):
        learned_from = "ground-truth depth"
    start = f"`{stage.start}`" if stage.start else "random weights"
    return asdict(stage) | {"data": lineage.data_name(stage), "learned_from": learned_from, "start": start}


def _command(record: RunRecord) -> str:
    name = "finetune" if record.config.task == "segmentation" else "pretrain"
    return f"depthseg {name} --config training/config.yaml"


def _data_sentences(record: RunRecord, facts: Facts) -> dict[str, str]:
    """Data set -> its description; that of a user's own data comes from the facts."""
    known = {name: entry.summary for name, entry in DATASETS.items() if entry.terms != OWN_TERMS}
    told = known | facts.data
    return {name: told[name] for name in data_names(record) if name in told}


def _subset_sentence(record: RunRecord) -> str:
    if not record.subset:
        return ""
    names = record.subset["names"]
    return f"The last stage used {len(names)} labelled images, sampled with seed {record.subset['seed']}."


def _hardware_sentence(record: RunRecord) -> str:
    last = record.launches[-1]
    took = "ran" if record.seconds is None else f"took {_duration(record.seconds)}"
    device = "a CPU" if last["device"] == "cpu" else last["device"]
    processes = "" if last["num_processes"] == 1 else f"{last['num_processes']} processes on "
    # The first runs did not log the version of depthseg.
    own = f"depthseg {last['depthseg']}, " if "depthseg" in last else ""
    return (
        f"The last stage {took} on {processes}{device}, with {own}PyTorch "
        f"{last['torch'].partition('+')[0]}, transformers {last['transformers']} and Python {last['python']}."
    )


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _licence_sentence(licence: Licence, sources: Sequence[Source]) -> str:
    came = ", ".join(f"{source.name} ({source.licence.label})" for source in sources if source.licence)
    return f"The weights are under {licence.label}. They are derived from: {came}."
