"""transformers' Trainer fine-tunes the models, with the same result however a batch is split."""

from __future__ import annotations

import logging
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from datasets import Dataset
from models.tiny_models import TASKS, make_labels, tiny_model
from rounding import assert_same_gradients
from transformers import SegformerConfig, SegformerForSemanticSegmentation, Trainer, TrainingArguments

from depthseg import DepthSegForImageClassification

STEPS = 4


def train(model, examples: list[dict], folder, batch_size: int, accumulation: int) -> list[float]:
    """Return the logged loss of each optimiser step."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=STEPS,
        learning_rate=0.1,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=examples)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("task", TASKS)
def test_four_at_once_equal_four_in_turn(task, tmp_path):
    labels = make_labels(task, 8, 32, 32)
    # Every pixel counts, so that the mean of the parts' means is the mean of the whole.
    labels[:, :4, :4] = labels[:, 4:8, :4]
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    examples = [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)]
    # Without BatchNorm, whose statistics depend on how the batch is split. In float64 but for the loss: in float32 a
    # ReLU whose input is nearly zero may let a gradient through at once, and none in turn.
    at_once = tiny_model(task, "vit", "dpt", depth_type="metric", max_depth=20.0).double()
    in_turn = tiny_model(task, "vit", "dpt", depth_type="metric", max_depth=20.0).double()
    in_turn.load_state_dict(at_once.state_dict())
    start = {name: tensor.clone() for name, tensor in at_once.state_dict().items()}

    losses_at_once = train(at_once, examples, tmp_path / "at_once", 4, 1)
    losses_in_turn = train(in_turn, examples, tmp_path / "in_turn", 1, 4)
    assert len(losses_at_once) == STEPS
    assert losses_in_turn == pytest.approx(losses_at_once, rel=1e-4)
    changes, expected = (
        {name: tensor - start[name] for name, tensor in model.state_dict().items()} for model in (in_turn, at_once)
    )
    assert max(change.abs().max().item() for change in expected.values()) > 1e-3
    assert_same_gradients(changes, expected)


@pytest.mark.parametrize("keep_depth", [False, True])
@pytest.mark.parametrize("task", ["segmentation", "depth", "transformers"])
def test_evaluation_gives_a_loss_and_calls_compute_metrics(task, keep_depth, tmp_path):
    """As for the model of transformers beside ours, with `labels` alone in the batch."""
    if task == "transformers":
        model = SegformerForSemanticSegmentation(
            SegformerConfig(hidden_sizes=[8, 8, 8, 8], depths=[1] * 4, decoder_hidden_size=8, num_labels=5)
        )
        labels = make_labels("segmentation", 4, 32, 32)
    else:
        more = {"keep_depth": keep_depth} if task == "segmentation" else {}
        model, labels = tiny_model(task, "depthseg_resnet", "monodepth2", **more), make_labels(task, 4, 32, 32)
    examples = [
        {"pixel_values": image, "labels": label}
        for image, label in zip(torch.randn(4, 3, 32, 32), labels, strict=True)
    ]
    seen = []

    def compute_metrics(prediction):
        seen.append(np.shape(prediction.label_ids))
        return {"seen": len(prediction.label_ids)}

    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_eval_batch_size=2, report_to="none", use_cpu=True, disable_tqdm=True
    )
    trainer = Trainer(model=model, args=arguments, eval_dataset=examples, compute_metrics=compute_metrics)
    scores = trainer.evaluate()
    model.eval()
    with torch.no_grad():
        losses = [
            model(
                pixel_values=torch.stack([example["pixel_values"] for example in examples[first : first + 2]]),
                labels=labels[first : first + 2],
            ).loss.item()
            for first in (0, 2)
        ]
    assert scores["eval_loss"] == pytest.approx(sum(losses) / 2, rel=1e-4)
    assert scores["eval_seen"] == 4 and seen == [(4, 32, 32)]


def test_the_old_name_of_the_depth_target_works_with_a_warning(caplog):
    model = tiny_model("segmentation", "depthseg_resnet", "monodepth2", keep_depth=True).eval()
    depth = make_labels("depth", 1, 32, 32)
    images = torch.randn(1, 3, 32, 32)
    with attached(caplog.handler):
        old, new = model(images, depth_labels=depth), model(images, depth_target=depth)
    assert old.depth_loss.item() == pytest.approx(new.depth_loss.item()) and old.depth_loss > 0
    assert "depth_labels is called depth_target now" in caplog.text
    with pytest.raises(TypeError, match="no argument depth_label"):
        model(images, depth_label=depth)


def shapes(values):
    return tuple(map(shapes, values)) if isinstance(values, (tuple, list)) else np.shape(values)


PREDICTIONS = {
    "segmentation": (5, 5, 32, 32),
    "depth": (5, 32, 32),
    "classification": (5, 5),
    "reconstruction": (5, 3, 32, 32),
    "flow": (5, 2, 32, 32),
    "labels and depth": ((5, 5, 32, 32), (5, 32, 32)),
}


@pytest.mark.parametrize("task", PREDICTIONS)
def test_predictions_are_what_the_task_is_for(task, tmp_path):
    """Neither coarser scales nor losses, of a set whose last batch is smaller."""
    both = task == "labels and depth"
    model = tiny_model("segmentation" if both else task, keep_depth=both).eval()
    images = torch.randn(5, 3, 32, 32)
    columns = {"pixel_values": images}
    if task == "flow":
        columns["other_pixel_values"] = torch.randn(5, 3, 32, 32)
    if both:
        columns |= {"labels": make_labels("segmentation", 5, 32, 32), "depth_target": make_labels("depth", 5, 32, 32)}
    examples = [{name: values[index] for name, values in columns.items()} for index in range(5)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_eval_batch_size=2, report_to="none", use_cpu=True, disable_tqdm=True
    )
    predictions = Trainer(model=model, args=arguments).predict(examples).predictions
    assert shapes(predictions) == PREDICTIONS[task]
    with torch.no_grad():
        expected = model(**{name: values[4:] for name, values in columns.items()})
    first = predictions[0] if both else predictions
    name = {"depth": "predicted_depth", "flow": "flow", "reconstruction": "reconstruction"}.get(task, "logits")
    np.testing.assert_allclose(first[4:], expected[name], rtol=1e-3, atol=1e-4)


def test_a_classifier_trains_is_evaluated_and_comes_back(tmp_path, caplog):
    """From a data set with a column that no model takes, with `label` in the singular as in most of the Hub."""
    images, classes = torch.randn(6, 3, 32, 32), [0, 1, 2, 3, 4, 0]
    columns = {"pixel_values": images.numpy(), "label": classes, "file": list("abcdef")}
    examples = Dataset.from_dict(columns).with_format("torch")
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        **{"report_to": "none", "use_cpu": True, "disable_tqdm": True, "max_steps": 3, "eval_strategy": "steps"},
        **{"eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True},
        metric_for_best_model="accuracy",
    )

    def compute_metrics(prediction):
        return {"accuracy": (prediction.predictions.argmax(-1) == prediction.label_ids).mean()}

    model = tiny_model("classification", "vit", "linear")
    trainer = Trainer(
        model=model, args=arguments, train_dataset=examples, eval_dataset=examples, compute_metrics=compute_metrics
    )
    trainer.train()
    assert 0 < trainer.state.log_history[-1]["train_loss"]
    scores = trainer.evaluate()
    assert scores["eval_accuracy"] == trainer.state.best_metric
    trainer.save_model(str(tmp_path / "best"))
    with torch.no_grad():
        logits = model.eval()(images).logits.double()
        shares = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
        assert scores["eval_loss"] == pytest.approx(-shares[range(6), classes].log().mean().item(), rel=1e-4)
        with attached(caplog.handler):
            again = DepthSegForImageClassification.from_pretrained(tmp_path / "best")
        assert torch.equal(again.eval()(images).logits.double(), logits)
    assert "has no option" not in caplog.text


@contextmanager
def attached(handler):
    """Both loggers hand their lines to a handler."""
    loggers = [logging.getLogger(name) for name in ("transformers", "depthseg")]
    for logger in loggers:
        logger.addHandler(handler)
    yield
    for logger in loggers:
        logger.removeHandler(handler)
