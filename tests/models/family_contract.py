"""What every depth family of transformers promises once it is read, for the tests of the single families."""

from __future__ import annotations

import torch
from models.tiny_models import NUM_LABELS, TASKS, make_labels
from rounding import assert_same_up_to_rounding, in_float64

from depthseg.models import DepthSegForSemanticSegmentation

ENDINGS = ("last_layer", "segmentation_block")
SIZES = ((57, 101), (360, 480))


@torch.no_grad()
def make_foreign(model_class, config):
    """A random depth model of transformers whose every layer matters: none is zero, no depth is nearly constant."""
    torch.manual_seed(0)
    model = model_class(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.add_(0.2 * torch.rand_like(parameter))
        else:
            parameter.copy_(1.5 * torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    for name, statistic in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            statistic.add_(0.1 * torch.rand_like(statistic))
    return model


def load(folder, task: str, ending: str = "last_layer", **options):
    if task == "segmentation":
        options = {"num_labels": NUM_LABELS, "head_config": {"ending": ending}} | options
    return TASKS[task].from_depth_pretrained(folder, **options)


@torch.no_grad()
def check_depth(model, ours, sizes) -> None:
    """Our depth is that of transformers, at sizes where both work without resizing."""
    assert not ours.training
    assert [part.status for part in ours.transfer_report.parts[:3]] == ["taken"] * 3
    for size in sizes:
        image = torch.randn(1, 3, *size, dtype=torch.float64)
        expected = in_float64(model)(image).predicted_depth
        assert expected.std() > 1e-2 * expected.mean()
        assert_same_up_to_rounding(in_float64(ours)(image).predicted_depth, expected)


@torch.no_grad()
def check_any_size(depth, folder) -> None:
    """Labels and depth in one forward at any size; depth is the same beside labels, whatever the ending."""
    for ending in ENDINGS:
        segmenter = load(folder, "segmentation", ending, keep_depth=True)
        for size in SIZES if ending == "last_layer" else SIZES[:1]:
            image = torch.randn(1, 3, *size, dtype=torch.float64)
            output, expected = in_float64(segmenter)(image), in_float64(depth)(image).predicted_depth
            assert output.predicted_depth.shape == expected.shape == (1, *size)
            assert output.logits.shape[:2] == (1, NUM_LABELS)
            assert output.logits.isfinite().all()
            assert_same_up_to_rounding(output.predicted_depth, expected)


def check_saving_and_training(folder, task: str, ending: str, saved) -> None:
    """Saved and loaded again the model is the same; in bfloat16 it stays near; and all that is to train does."""
    model = load(folder, task, ending)
    model.save_pretrained(saved)
    loaded = TASKS[task].from_pretrained(saved)
    assert loaded.transfer_report.is_reload
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in model.parameters()]
    image, labels = torch.randn(1, 3, 57, 101), make_labels(task, 1, 57, 101)
    with torch.no_grad():
        # Equal weights at another place in memory may be summed in another order.
        output, expected = (main_output(in_float64(each)(image.double())) for each in (loaded, model))
        assert_same_up_to_rounding(output, expected)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = loaded(image, labels=labels)
        exact = loaded(image, labels=labels)
    assert main_output(rounded).isfinite().all()
    torch.testing.assert_close(rounded.loss, exact.loss, rtol=0.05, atol=0)
    check_gradients(model.train(), image, labels)


def check_gradients(model, image, labels) -> None:
    """A gradient for exactly what is said to be trained."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    model.requires_grad_(True)
    loss = model(image, labels=labels).loss
    assert loss.isfinite()
    loss.backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached.isdisjoint(frozen)
    assert reached | frozen == {name for name, _ in model.named_parameters()}
    zero = [name for name, p in model.named_parameters() if name in reached and not p.grad.any()]
    assert not zero, zero
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def main_output(output) -> torch.Tensor:
    return output.logits if "logits" in output else output.predicted_depth


def check_transfer_between_tasks(depth, saved) -> None:
    """A depth network saved by us becomes a segmenter with either ending: encoder and head are taken."""
    depth.save_pretrained(saved)
    for ending in ENDINGS:
        config = DepthSegForSemanticSegmentation.config_class.from_pretrained(saved, num_labels=NUM_LABELS)
        config.head_config = config.head_config | {"ending": ending}
        segmenter = DepthSegForSemanticSegmentation.from_pretrained(saved, config=config)
        statuses = [(part.part, part.status) for part in segmenter.transfer_report.parts]
        assert statuses[:3] == [("encoder", "taken"), ("head", "taken"), ("classifier", "new")]
        taken = depth.head.state_dict()
        assert all(torch.equal(tensor, taken[name]) for name, tensor in segmenter.head.state_dict().items())
        assert segmenter.head.state_dict().keys() == taken.keys()
