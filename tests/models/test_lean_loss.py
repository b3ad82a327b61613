"""The lean loss and class ids against PyTorch's resize of the whole scores and its plain loss."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F

from depthseg.models import lean_loss_depthseg as lean
from depthseg.models.image_processing_depthseg import DepthSegImageProcessor
from depthseg.models.losses_depthseg import segmentation_loss

SIZES = {
    "4x": ((8, 6), (32, 24)),
    "no resize": ((9, 7), (9, 7)),
    "uneven": ((5, 7), (33, 19)),
    "downsizing": ((16, 12), (5, 7)),
    "by much": ((40, 3), (2, 50)),
    "one score": ((1, 1), (6, 4)),
    "one row": ((1, 8), (1, 21)),
}


@pytest.fixture(params=[1, 1 << 19], ids=["single rows", "one tile"])
def tile(request, monkeypatch):
    monkeypatch.setattr(lean, "CPU_TILE", request.param)


def scores_and_labels(size, label_size, classes=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(2, classes, *size, generator=generator)).to(dtype).requires_grad_()
    labels = torch.randint(0, classes, (2, *label_size), generator=generator)
    labels[0, :, 0] = 255
    return logits, labels


def plain_loss(logits, labels, **options):
    up = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(up, labels, ignore_index=255, reduction="sum", **options)


def assert_same(logits, found, expected, tolerance=1e-5):
    """Value and gradient, the latter relative to its largest entry."""
    torch.testing.assert_close(found.to(expected.dtype), expected, rtol=tolerance, atol=1e-6)
    found, expected = (torch.autograd.grad(loss, logits)[0].float() for loss in (found, expected))
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("size", "label_size"), SIZES.values(), ids=SIZES)
def test_cross_entropy_equals_that_of_the_resized_scores(tile, size, label_size, smoothing, weighted):
    logits, labels = scores_and_labels(size, label_size)
    weights = torch.tensor([0.2, 3.0, 1.0, 0.0, 1.5]) if weighted else None
    expected = plain_loss(logits, labels, weight=weights, label_smoothing=smoothing)
    assert_same(logits, lean.pixel_loss_sum(logits, labels, weights, smoothing), expected)


def test_an_infinite_score_of_an_ignored_pixel_does_not_count(tile):
    """As for PyTorch: where a class is ruled out, its score is minus infinity."""
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 0] = -torch.inf
    logits.requires_grad_()
    labels = torch.ones(1, 4, 4, dtype=torch.long)
    labels[0, 0] = 255  # which the loss looks up as class 0
    expected = F.cross_entropy(logits, labels, ignore_index=255, reduction="sum")
    assert expected > 0
    assert_same(logits, lean.pixel_loss_sum(logits, labels), expected)


@pytest.mark.parametrize("focusing", [1.0, 2.0, 2.5])
def test_the_focal_loss_equals_its_formula(tile, focusing):
    logits, labels = scores_and_labels((5, 7), (13, 11))
    with torch.no_grad():
        logits[0, :, 2] *= 20
    weights = torch.tensor([0.2, 3.0, 1.0, 0.0, 1.5])
    up = F.interpolate(logits.double(), size=(13, 11), mode="bilinear", align_corners=False)
    known = labels != 255
    log_share = up.log_softmax(1).gather(1, torch.where(known, labels, 0)[:, None])[:, 0][known]
    expected = -(weights[labels[known]] * (1 - log_share.exp()) ** focusing * log_share).sum()
    assert_same(logits, lean.pixel_loss_sum(logits, labels, weights, focusing=focusing), expected)


def test_the_gradient_equals_finite_differences_in_double_precision():
    logits, labels = scores_and_labels((3, 4), (7, 5), dtype=torch.float64)
    weights = torch.tensor([0.2, 3.0, 1.0, 0.0, 1.5])
    for options in ({"label_smoothing": 0.2}, {"focusing": 2.0}):
        assert torch.autograd.gradcheck(lambda x, o=options: lean.pixel_loss_sum(x, labels, weights, **o), logits)


@pytest.mark.parametrize("gap", [1e-3, 300.0, 1e4])
def test_scores_far_apart_and_close_together(gap):
    logits = torch.tensor([[[[gap, -gap], [0, gap]], [[-gap, gap], [gap, 0]]]], requires_grad=True)
    labels = torch.randint(0, 2, (1, 9, 9), generator=torch.Generator().manual_seed(0))
    assert_same(logits, segmentation_loss(logits, labels), plain_loss(logits, labels) / 81)


def test_half_precision_is_upsampled_in_single_precision():
    logits, labels = scores_and_labels((8, 6), (32, 24), dtype=torch.bfloat16)
    loss = segmentation_loss(logits, labels)
    gradient = torch.autograd.grad(loss, logits)[0]
    leaf = logits.detach().float().requires_grad_()
    expected = plain_loss(leaf, labels) / (labels != 255).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    assert loss.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    # bfloat16 has 8 significant bits, to which the gradient is rounded once.
    torch.testing.assert_close(gradient.float(), torch.autograd.grad(expected, leaf)[0], rtol=2**-8, atol=1e-8)


def test_the_gradient_of_a_sum_beyond_float16_is_finite():
    leaf = torch.zeros(1, 2, 1, 1, dtype=torch.float16, requires_grad=True)
    segmentation_loss(leaf, torch.zeros(1, 500, 500, dtype=torch.int64)).backward()
    assert leaf.grad.flatten().tolist() == [-0.5, 0.5]


def test_autocast_and_matmul_precision_change_nothing():
    logits, labels = scores_and_labels((8, 6), (32, 24))
    loss = segmentation_loss(logits, labels)
    gradient = torch.autograd.grad(loss, logits)[0]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            again = segmentation_loss(logits, labels)
            gradient_again = torch.autograd.grad(again, logits)[0]
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(loss, again) and torch.equal(gradient, gradient_again)


def test_one_logit_is_the_binary_cross_entropy_of_its_resized_sigmoid():
    logits, labels = scores_and_labels((5, 7), (13, 11), classes=1)
    labels[1, :4] = 1
    known = labels != 255
    up = F.interpolate(logits, size=(13, 11), mode="bilinear", align_corners=False)[:, 0]
    expected = F.binary_cross_entropy_with_logits(up[known], labels[known].float())
    assert_same(logits, segmentation_loss(logits, labels), expected)


def test_without_gradient_none_is_computed(monkeypatch):
    logits, labels = scores_and_labels((5, 7), (13, 11))
    expected = segmentation_loss(logits, labels)
    monkeypatch.setattr(lean.Resize, "add_back", lambda *arguments: pytest.fail("A gradient was computed."))
    with torch.no_grad():
        assert torch.equal(segmentation_loss(logits, labels), expected)
    assert not segmentation_loss(logits.detach(), labels).requires_grad


def test_a_second_derivative_is_refused():
    logits, labels = scores_and_labels((5, 7), (13, 11))
    (gradient,) = torch.autograd.grad(segmentation_loss(logits, labels), logits, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        gradient.sum().backward()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_the_sum_is_one_node_of_a_compiled_graph(backend):
    logits, labels = scores_and_labels((5, 7), (13, 11))
    compiled = torch.compile(lambda x, y: lean.pixel_loss_sum(2 * x, y), backend=backend, fullgraph=True)
    assert_same(logits, compiled(logits, labels), lean.pixel_loss_sum(2 * logits, labels), tolerance=1e-6)


@pytest.mark.parametrize(("size", "label_size"), SIZES.values(), ids=SIZES)
def test_predicted_ids_are_those_of_transformers(tile, size, label_size):
    from transformers import DPTImageProcessorPil
    from transformers.modeling_outputs import SemanticSegmenterOutput

    logits, _ = scores_and_labels(size, label_size)
    sizes = [label_size, (label_size[0] + 1, label_size[1] + 3)]
    output = SemanticSegmenterOutput(logits=logits)
    expected = DPTImageProcessorPil().post_process_semantic_segmentation(output, sizes)
    found = DepthSegImageProcessor().post_process_semantic_segmentation(output, sizes)
    for ids, reference in zip(found, expected, strict=True):
        assert ids.dtype == torch.int64 and not ids.requires_grad
        assert torch.equal(ids, reference)


@pytest.mark.parametrize("names", [("copy.of_model", "copy_of.model"), ("copy.model", "copy.model")])
def test_copies_of_the_travelling_file_do_not_take_each_others_operator(names):
    """Names of packages of remote code; the second pair is one that is loaded again."""
    logits, labels = scores_and_labels((4, 3), (8, 6))
    code = Path(lean.__file__).read_text()
    copies = []
    for name in names:
        module = ModuleType(name)
        sys.modules[name] = module  # where dataclasses look for it
        exec(compile(code, lean.__file__, "exec"), module.__dict__)
        copies.append(module)
    assert len({module.OPERATOR for module in (*copies, lean)}) == 3
    for module in (*copies, lean):
        assert_same(logits, module.pixel_loss_sum(logits, labels), plain_loss(logits, labels))
    for name in set(names):
        del sys.modules[name]


def test_places_between_others_are_found_without_looking_at_their_shares():
    for old in range(1, 40):
        for new in range(1, 40):
            centre = [max(0.0, (place + 0.5) * old / new - 0.5) for place in range(new)]
            is_between = any(abs(each - round(each)) > 1e-6 for each in centre)
            assert (lean.bilinear_taps(old, new, torch.float64).index.shape[1] == 2) == is_between
