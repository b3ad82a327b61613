"""The model card of a checkpoint: every number comes from its run record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import transformers
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from ..data import DATASETS, OWN_LICENCE
from ..engine.build import source_of
from ..engine.tasks import TASKS, Score, task_of
from ..metrics.stamp import Stamp
from .record import JOINT
from .verify import class_of

if TYPE_CHECKING:
    from .facts import Facts
    from .licences import Licence, Source
    from .record import Lineage, RunRecord, Stage
    from .verify import Evaluation

DEPTH_SCORES = tuple(score.name for score in TASKS["depth"].scores)

SUPERVISIONS = {
    "labels": "labels",
    JOINT: "labels and ground-truth depth",
    "mono": "monocular video",
    "stereo": "stereo pairs",
    "mono_stereo": "stereo video",
    "images": "none (self-supervised)",
}

DEPTH_MEANING = {
    "disparity": "`predicted_depth` is in metres if the training data have metric scale.",
    "metric": "`predicted_depth` is in metres.",
    "relative": "`predicted_depth` is depth up to an unknown scale and shift.",
    "relative_inverse": "`predicted_depth` is inverse depth up to an unknown scale and shift: near is large.",
}
UP_TO_SCALE = "`predicted_depth` is depth up to an unknown scale, because training used only monocular video."


@dataclass(frozen=True)
class Card:
    """The card of a checkpoint.

    Attributes:
        repo_id: Its repository on the Hub.
        record: The run.
        evaluation: Evaluation of the published weights image by image; None if that is not possible.
        facts: Facts stated by its author.
        licence: Its licence.
        sources: Data and weights that it was trained with.
    """

    repo_id: str
    record: RunRecord
    evaluation: Evaluation | None
    facts: Facts
    licence: Licence
    sources: Sequence[Source]

    def render(self) -> str:
        """The file `README.md`: metadata and text."""
        return rendered("card.md.jinja", self.metadata(), self._values())

    def metadata(self) -> ModelCardData:
        """Metadata for the Hub: licence, task, base models, scores."""
        task, own_ids = task_of(self.record.config), self.facts.hub_datasets
        results = [
            EvalResult(
                # The depth scores of a segmenter are those of a depth model.
                task_type=(TASKS["depth"] if score.name in DEPTH_SCORES and task.needs_labels else task).pipeline
                or "other",
                dataset_type=own_ids.get(self.data, self.data),
                dataset_name=self.data,
                dataset_split=self.split,
                metric_type=score.name,
                metric_name=score.label,
                metric_value=round(float(self.scores[score.name]), 6),
            )
            for score in self._scored
        ]
        return ModelCardData(
            license=self.licence.id,
            license_name=self.licence.name or None,
            license_link=self.licence.link or None,
            library_name="transformers",
            pipeline_tag=task.pipeline,
            tags=["depthseg", *task.tags],
            base_model=self.record.lineage.base_model,
            datasets=[own_ids[name] for name in self._data_names if name in own_ids] or None,
            metrics=[result.metric_type for result in results],
            model_name=self.repo_id.rpartition("/")[2],
            eval_results=results,
        )

    def eval_entries(self) -> list[EvalResultEntry]:
        """The main score in the format of `.eval_results/`, if its data set is a benchmark on the Hub."""
        dataset = self.facts.hub_datasets.get(self.data)
        if dataset is None:
            return []
        name = self._scored[0].name
        return [
            EvalResultEntry(
                dataset_id=dataset,
                task_id=name,
                value=round(float(self.scores[name]), 6),
                date=self.record.launches[-1]["started"],
                source_url=f"https://huggingface.co/{self.repo_id}",
                source_name="Model card",
                notes=f"split {self.split}, evaluated by the author with depthseg",
            )
        ]

    @property
    def scores(self) -> dict[str, Any]:
        """The scores of the published weights."""
        return self.record.scores if self.evaluation is None else self.evaluation.scores

    @property
    def data(self) -> str:
        """Data set of the scores."""
        return self.record.lineage.stages[-1].data if self.evaluation is None else self.evaluation.data

    @property
    def split(self) -> str:
        """Split of the scores."""
        return self.record.config.data.val_split if self.evaluation is None else self.evaluation.split

    @property
    def _scored(self) -> list[Score]:
        """The scores of the task that are available."""
        return [score for score in task_of(self.record.config).scores if self.scores.get(score.name) is not None]

    @property
    def _data_names(self) -> list[str]:
        """Data sets of all stages, each once."""
        lineage = self.record.lineage
        return list(dict.fromkeys(lineage.data_name(stage) for stage in lineage.stages))

    def _values(self) -> dict[str, Any]:
        """Values of the template."""
        record, evaluation, facts, task = self.record, self.evaluation, self.facts, task_of(self.record.config)
        stored = json.loads((record.model_dir / "config.json").read_text())
        auto_class = class_of(record.model_dir).auto_class
        published = {name: entry.summary for name, entry in DATASETS.items() if entry.licence != OWN_LICENCE}
        known_data = published | facts.data
        came_from = [(source.name, source.licence.label) for source in self.sources if source.licence]
        depth_meaning = DEPTH_MEANING[stored["depth_type"]] if record.lineage.knows_scale else UP_TO_SCALE
        is_segmenter, has_depth = task is TASKS["segmentation"], "abs_rel" in self.scores
        return {
            "title": facts.title or self.repo_id.rpartition("/")[2],
            "summary": facts.summary or _summary(record, stored),
            "repo_id": self.repo_id,
            "auto_class": auto_class if hasattr(transformers, auto_class) else None,
            "code": stored["auto_map"][auto_class],
            "example": task.example,
            "depth_example": TASKS["depth"].example if is_segmenter and has_depth else None,
            "classes": list(stored.get("id2label", {}).values()) if is_segmenter else [],
            "depth_meaning": depth_meaning if task is TASKS["depth"] or has_depth else "",
            "intended_use": facts.intended_use or "The author has not stated an intended use.",
            "results_sentence": self._results_sentence(),
            "cast": bool(facts.dtype),
            "results": self._rows(),
            "evaluation": evaluation,
            "motion_sentence": _motion_sentence(record),
            "per_class": [
                (name, "absent" if iou is None else f"{100 * iou:.1f}")
                for name, iou in (self.scores.get("per_class_iou") or {}).items()
            ],
            "parameters": f"{record.parameters / 1e6:.1f} million",
            "encoder": stored["encoder_config"]["model_type"],
            "head": stored["head_type"],
            "input": _input(record),
            "licences": dict(came_from),
            "stages": [_stage_row(record.lineage, stage) for stage in record.lineage.stages],
            "data": {name: known_data[name] for name in self._data_names if name in known_data},
            "subset": record.subset,
            "hardware_sentence": _hardware_sentence(record),
            "commands": facts.commands
            or [f"depthseg {'finetune' if is_segmenter else 'pretrain'} --config training/config.yaml"],
            "licence": self.licence.label,
            "sources": [f"{name} ({label})" for name, label in came_from],
            "limits": facts.limits or ["The author has stated none. It was evaluated only on the data above."],
        }

    def _results_sentence(self) -> str:
        record, data = self.record, self.record.config.data
        dataset = source_of(data)[0]
        of_the_run = self.evaluation is None or (self.data, self.split) == (dataset, data.val_split)
        # Without a validation fraction, both splits of a video have all its frames.
        divided = dataset != "video" or (data.options | data.val_options).get("val_fraction", 0)
        sentences = [self._images_sentence(), "One training run."]
        if of_the_run and not divided:
            sentences.append("The model was trained on the same frames, so these are training errors.")
        elif of_the_run and record.config.run.select == "best" and len(record.curve) > 1:
            sentences.append(f"The weights are the best of {len(record.curve)} evaluations on the same images.")
        if self.facts.dtype:
            sentences.append(f"The weights are stored in {self.facts.dtype} and were evaluated in float32.")
        if self.evaluation is not None and self.scores.get("alignment"):
            sentences.append(_protocol_sentence(self.scores))
        if "stamp" in self.scores:
            sentences.append(f"The segmentation scores carry this {Stamp.from_dict(self.scores['stamp'])}.")
        return " ".join(sentences)

    def _images_sentence(self) -> str:
        where = f"Split {self.split} of {self.data}"
        if self.evaluation is None:
            return f"{where}, as logged by the run; the evaluation was not repeated."
        height, width = self.evaluation.size
        size = f"evaluated at their original size (the first has {height} x {width} pixels)"
        if not task_of(self.record.config).predicts_maps:
            height, width = self.record.config.data.size
            size = f"resized to {height} x {width} pixels"
        return f"{where}: {len(self.evaluation.names)} images, {size}."

    def _rows(self) -> list[dict[str, str]]:
        intervals, rows = self.evaluation.intervals if self.evaluation else {}, []
        for score in self._scored:
            value, *bounds = map(score.text, (self.scores[score.name], *intervals.get(score.name, ())))
            interval = " to ".join(bounds) + score.unit if bounds else ""
            rows.append({"name": score.label, "value": value + score.unit, "interval": interval})
        return rows


def _summary(record: RunRecord, stored: dict[str, Any]) -> str:
    purpose = task_of(record.config).purpose.format(classes=len(stored.get("id2label", {})))
    before = [stage.task for stage in record.lineage.stages[:-1]]
    history = f", after pre-training for {' and then '.join(before)}" if before else ""
    return f"A model for {purpose}, trained with depthseg{history}."


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


def _input(record: RunRecord) -> str:
    size = json.loads((record.model_dir / "preprocessor_config.json").read_text())["size"]
    whole, data = f"{size['height']} x {size['width']} pixels", record.config.data
    return f"{whole}, trained on patches of {data.size[0]} x {data.size[1]}" if data.random_crop else whole


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
    supervised_by = SUPERVISIONS[stage.supervision]
    if (stage.task, stage.supervision) == ("depth", "labels"):
        supervised_by = "ground-truth depth"
    start = f"`{stage.start}`" if stage.start else "random weights"
    return asdict(stage) | {"data": lineage.data_name(stage), "supervised_by": supervised_by, "start": start}


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


def rendered(template: str, metadata: ModelCardData, values: dict[str, Any]) -> str:
    """A card: metadata, and a template of this package filled in; a value that the template lacks is an error."""
    environment = Environment(
        loader=PackageLoader(__package__, "."), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    return f"---\n{metadata.to_yaml()}\n---\n\n{environment.get_template(template).render(values)}"
