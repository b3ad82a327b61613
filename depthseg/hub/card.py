"""The model card of a checkpoint: every number comes from its run record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from ..data import DATASETS, OWN_TERMS
from ..engine.build import source_of
from .record import JOINT

if TYPE_CHECKING:
    from .facts import Facts
    from .licences import Licence, Source
    from .proof import Evaluation
    from .record import Lineage, RunRecord, Stage

PIPELINES = {
    "segmentation": "image-segmentation",
    "depth": "depth-estimation",
    "classification": "image-classification",
    "reconstruction": "image-to-image",
}
"""Task -> task of the Hub, which has none for optical flow."""

TAGS = {"segmentation": ["semantic-segmentation"], "depth": ["monocular-depth-estimation"], "flow": ["optical-flow"]}

SCORES: dict[str, tuple[tuple[str, str, float, str], ...]] = {
    "segmentation": (
        ("mean_iou", "mIoU", 100, " %"),
        ("pixel_accuracy", "pixel accuracy", 100, " %"),
        ("mean_accuracy", "mean class accuracy", 100, " %"),
        ("abs_rel", "depth AbsRel", 1, ""),
        ("delta1", "depth delta < 1.25", 100, " %"),
    ),
    "depth": (
        ("abs_rel", "AbsRel", 1, ""),
        ("rmse", "RMSE", 1, " m"),
        ("delta1", "delta < 1.25", 100, " %"),
        ("photometric_loss", "photometric loss", 1, ""),
    ),
    "flow": (("end_point_error", "end-point error", 1, " px"), ("photometric_loss", "photometric loss", 1, "")),
    "reconstruction": (("hole_l1", "L1 error on masked pixels", 1, ""),),
    "classification": (("accuracy", "accuracy", 100, " %"),),
}
"""Task -> score, its name in the card, factor and unit. A segmenter that also predicts depth is evaluated on both."""

DEPTH_SCORES = tuple(name for name, *_ in SCORES["depth"])

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
        environment = Environment(
            loader=PackageLoader(__package__, "."), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
        )
        text = environment.get_template("card.md.jinja").render(**self._values())
        return f"---\n{self.metadata().to_yaml()}\n---\n\n{text}"

    def metadata(self) -> ModelCardData:
        """Metadata for the Hub: licence, task, base models, scores."""
        task, own_ids = self.record.config.task, self.facts.hub_datasets
        results = [
            EvalResult(
                task_type=PIPELINES.get("depth" if task == "segmentation" and name in DEPTH_SCORES else task, "other"),
                dataset_type=own_ids.get(self.data, self.data),
                dataset_name=self.data,
                dataset_split=self.split,
                metric_type=name,
                metric_name=label,
                metric_value=round(float(self.scores[name]), 6),
            )
            for name, label, _, _ in self._scored
        ]
        return ModelCardData(
            license=self.licence.id,
            license_name=self.licence.name or None,
            license_link=self.licence.link or None,
            library_name="transformers",
            pipeline_tag=PIPELINES.get(task),
            tags=["depthseg", *TAGS.get(task, [])],
            base_model=self.record.lineage.base_model,
            datasets=[own_ids[name] for name in self._data_names if name in own_ids] or None,
            metrics=[result.metric_type for result in results],
            model_name=self._name,
            eval_results=results,
        )

    def eval_entries(self) -> list[EvalResultEntry]:
        """The main score in the format of `.eval_results/`, if its data set is a benchmark on the Hub."""
        dataset = self.facts.hub_datasets.get(self.data)
        if dataset is None:
            return []
        name, *_ = self._scored[0]
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
    def _name(self) -> str:
        return self.repo_id.rpartition("/")[2]

    @property
    def _scored(self) -> list[tuple[str, str, float, str]]:
        """The rows of `SCORES` that are available."""
        return [row for row in SCORES[self.record.config.task] if self.scores.get(row[0]) is not None]

    @property
    def _data_names(self) -> list[str]:
        """Data sets of all stages, each once."""
        lineage = self.record.lineage
        return list(dict.fromkeys(lineage.data_name(stage) for stage in lineage.stages))

    def _values(self) -> dict[str, Any]:
        """Values of the template."""
        record, evaluation, facts, task = self.record, self.evaluation, self.facts, self.record.config.task
        stored = json.loads((record.model_dir / "config.json").read_text())
        architecture = stored["architectures"][0]
        auto_class = next(name for name, code in stored["auto_map"].items() if code.endswith(f".{architecture}"))
        known_data = {name: entry.summary for name, entry in DATASETS.items() if entry.terms != OWN_TERMS} | facts.data
        came_from = [(source.name, source.licence.label) for source in self.sources if source.licence]
        return {
            "title": facts.title or self._name,
            "summary": facts.summary or _summary(record, stored),
            "repo_id": self.repo_id,
            "task": task,
            "auto_class": auto_class,
            "code": stored["auto_map"][auto_class],
            "gives_depth": task == "segmentation" and "abs_rel" in self.scores,
            "classes": list(stored.get("id2label", {}).values()),
            "depth_meaning": DEPTH_MEANING[stored["depth_type"]] if record.lineage.knows_scale else UP_TO_SCALE,
            "intended_use": facts.intended_use or "The author has not stated an intended use.",
            "results_sentence": self._results_sentence(),
            "cast": bool(facts.dtype),
            "results": self._rows(),
            "images_kept": evaluation is not None and bool(evaluation.per_image),
            "interval_sentence": _interval_sentence(evaluation),
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
            "subset_sentence": _subset_sentence(record),
            "hardware_sentence": _hardware_sentence(record),
            "commands": facts.commands
            or [f"depthseg {'finetune' if task == 'segmentation' else 'pretrain'} --config training/config.yaml"],
            "licence_sentence": f"The weights are under {self.licence.label}. They are derived from: "
            f"{', '.join(f'{name} ({label})' for name, label in came_from)}.",
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
        return " ".join(sentences)

    def _images_sentence(self) -> str:
        where = f"Split {self.split} of {self.data}"
        if self.evaluation is None:
            return f"{where}, as logged by the run; the evaluation was not repeated."
        height, width = self.evaluation.size
        size = f"evaluated at their original size (the first has {height} x {width} pixels)"
        if self.record.config.task not in ("segmentation", "depth"):
            height, width = self.record.config.data.size
            size = f"resized to {height} x {width} pixels"
        return f"{where}: {len(self.evaluation.names)} images, {size}."

    def _rows(self) -> list[dict[str, str]]:
        intervals, rows = self.evaluation.intervals if self.evaluation else {}, []
        for name, label, factor, unit in self._scored:
            digits, ends = 1 if factor == 100 else 3, intervals.get(name)
            value, *bounds = (f"{factor * number:.{digits}f}" for number in (self.scores[name], *(ends or ())))
            rows.append(
                {"name": label, "value": value + unit, "interval": " to ".join(bounds) + unit if bounds else ""}
            )
        return rows


def _summary(record: RunRecord, stored: dict[str, Any]) -> str:
    what = {
        "segmentation": f"semantic segmentation with {len(stored.get('id2label', {}))} classes",
        "depth": "monocular depth estimation",
        "flow": "optical flow between two images",
        "reconstruction": "inpainting of masked regions",
        "classification": f"image classification with {len(stored.get('id2label', {}))} classes",
    }
    before = [stage.task for stage in record.lineage.stages[:-1]]
    history = f", after pre-training for {' and then '.join(before)}" if before else ""
    return f"A model for {what[record.config.task]}, trained with depthseg{history}."


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
