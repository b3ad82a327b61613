"""What every encoder, head and task promises, in every combination."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from models.tiny_models import (
    ENCODERS_OF_CLASSES,
    NUM_LABELS,
    TASKS,
    TINY_ENCODERS,
    TINY_HEADS,
    make_labels,
    scramble,
    tiny_model,
)
from rounding import assert_same_up_to_rounding

from depthseg.models import ENCODERS, HEADS

# The head `native` belongs to the depth families of transformers; tests/models/test_families_*.py hold its pairs.
CROSSED_HEADS = [head for head in HEADS if head != "native"]
# By default every encoder meets one head, in one task, and every head these encoders in both. That every head meets an
# encoder of every class as a segmenter is heavy.
COMMON_ENCODERS = ("depthseg_resnet", "dinov2", "swin")
# Decoders that end at the size of the image; the others end at a map of the encoder.
FULL_SIZE = ("monodepth2", "dpt")
SIZES = [(57, 101), (360, 480), (112, 224)]


def supported(encoder: str, head: str) -> bool:
    return HEADS[head].encoders is None or encoder in HEADS[head].encoders


def is_default(encoder: str, head: str, task: str) -> bool:
    return encoder in COMMON_ENCODERS or (head == "dpt" and task == "segmentation")


COMBINATIONS = [
    pytest.param((encoder, head, task), marks=() if is_default(encoder, head, task) else pytest.mark.heavy)
    for encoder in ENCODERS
    for head in CROSSED_HEADS
    for task in HEADS[head].tasks
    if supported(encoder, head)
    and (is_default(encoder, head, task) or (task == "segmentation" and encoder in ENCODERS_OF_CLASSES))
]
# A file holds the tensors of the encoder beside those of the head: each is saved with one other.
PAIRS = [
    pytest.param(encoder, head, marks=() if encoder in ENCODERS_OF_CLASSES else pytest.mark.heavy)
    for encoder in ENCODERS
    for head in CROSSED_HEADS
    if supported(encoder, head) and (head == "dpt" or encoder == "depthseg_resnet")
]


@pytest.fixture(scope="module", params=COMBINATIONS, ids="-".join)
def combination(request):
    torch.manual_seed(0)
    encoder, head, task = request.param
    return encoder, head, task, tiny_model(task, encoder, head)


def logits_size(model, head: str, size: tuple[int, int]) -> tuple[int, int]:
    """The size of the classifier's decoder map, or the image's where the decoder goes on or the image was padded."""
    multiple, fixed_size = model.encoder.multiple, model.encoder.fixed_size
    if head in FULL_SIZE or (fixed_size is None and (size[0] % multiple or size[1] % multiple)):
        return size
    stride = model.head.strides[model.head.classifier_map]
    return tuple(math.ceil(side / stride) for side in fixed_size or size)


def run(model, task: str, size: tuple[int, int], batch: int = 1):
    labels = make_labels(task, batch, *size)
    return model(pixel_values=torch.randn(batch, 3, *size), labels=labels)


def main_output(task: str, output) -> torch.Tensor:
    return output.logits if task == "segmentation" else output.predicted_depth


def test_the_tables_are_not_empty_and_the_tiny_models_cover_them():
    assert len(ENCODERS) >= 20 and len(CROSSED_HEADS) >= 7
    where = "a small configuration in tests/models/tiny_models.py"
    assert TINY_ENCODERS.keys() == ENCODERS.keys(), f"give each encoder {where}: TINY_ENCODERS"
    assert TINY_HEADS.keys() >= set(CROSSED_HEADS), f"give each head {where}: TINY_HEADS"
    assert {task for entry in HEADS.values() for task in entry.tasks} <= TASKS.keys()
    chosen = [combination.values[0] for combination in COMBINATIONS if not combination.marks]
    assert {encoder for encoder, _, _ in chosen} == ENCODERS.keys()
    assert {(head, task) for _, head, task in chosen} == {(h, t) for h in CROSSED_HEADS for t in HEADS[h].tasks}


@torch.no_grad()
def test_shapes_and_finite_numbers_at_any_size(combination):
    _, head, task, model = combination
    for size in SIZES:
        output = run(model.eval(), task, size)
        expected = (1, NUM_LABELS, *logits_size(model, head, size)) if task == "segmentation" else (1, *size)
        assert main_output(task, output).shape == expected
        assert main_output(task, output).isfinite().all()
        assert output.loss.shape == () and output.loss.isfinite()


@torch.no_grad()
def test_bfloat16_autocast_stays_near_float32(combination):
    _, _, task, model = combination
    pixel_values, labels = torch.randn(1, 3, 57, 101), make_labels(task, 1, 57, 101)
    exact = model.eval()(pixel_values, labels=labels)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(pixel_values, labels=labels)
    assert rounded.loss.dtype == torch.float32
    assert main_output(task, rounded).isfinite().all()
    torch.testing.assert_close(rounded.loss, exact.loss, rtol=0.02, atol=0)


def test_exactly_the_trainable_parameters_get_a_gradient(combination):
    """One image in train mode. What a backbone itself holds fixed, such as sine embeddings, is no part of it."""
    _, _, task, model = combination
    built_fixed = {f"encoder.backbone.{name}" for name in fixed_parameters(model)}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert built_fixed <= frozen
    model.train()
    for name, parameter in model.named_parameters():
        if not parameter.any():
            # A weight that is initialised to zero hides the parameters before it for one step.
            torch.nn.init.normal_(parameter, std=0.02)
        parameter.requires_grad_(name not in built_fixed)
    run(model, task, (57, 101)).loss.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.zero_grad()
    model.freeze_unused_parameters()
    assert reached.isdisjoint(frozen)
    assert reached | frozen == {name for name, _ in model.named_parameters()}
    assert frozen == {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def fixed_parameters(model) -> set[str]:
    with torch.device("meta"):
        backbone = model.encoder.build_backbone(model.config.encoder_config)
    return {name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize(("encoder", "head"), PAIRS)
def test_saving_and_loading_gives_the_same_model_and_the_same_files(encoder, head, tmp_path):
    keep_depth = "depth" in HEADS[head].tasks
    model = scramble(tiny_model("segmentation", encoder, head, keep_depth=keep_depth)).eval()
    model.save_pretrained(tmp_path / "first")
    loaded = type(model).from_pretrained(tmp_path / "first")
    assert not loaded.training
    pixel_values = torch.randn(2, 3, 57, 101)
    with torch.no_grad():
        expected, output = model(pixel_values), loaded(pixel_values)
    # Equal weights at another place in memory may be summed in another order; that they are equal, the files show.
    assert_same_up_to_rounding(output.logits, expected.logits)
    if keep_depth:
        assert_same_up_to_rounding(output.predicted_depth, expected.predicted_depth)
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in loaded.parameters()]
    loaded.save_pretrained(tmp_path / "second")
    assert file_contents(tmp_path / "first") == file_contents(tmp_path / "second")


def file_contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("encoder", "multiple"), [("dinov2", 14), ("vit", 16), ("convnext", 32)])
@pytest.mark.parametrize("task", TASKS)
@torch.no_grad()
def test_padding_repeats_the_border_and_is_cropped_again(encoder, multiple, task):
    model = tiny_model(task, encoder, "dpt").eval()
    image = np.random.default_rng(0).normal(size=(1, 3, 57, 101)).astype(np.float32)
    bottom, right = -57 % multiple, -101 % multiple
    padded = np.pad(image, [(0, 0), (0, 0), (0, bottom), (0, right)], mode="edge")
    expected = main_output(task, model(torch.from_numpy(padded)))[..., :57, :101]
    assert bottom and right
    assert_same_up_to_rounding(main_output(task, model(torch.from_numpy(image))), expected)


@pytest.mark.parametrize("encoder", ["dinov2", "vit", "swin"])
def test_layers_above_the_deepest_one_read_are_not_trained(encoder):
    options = TINY_ENCODERS[encoder] | {"out_indices": [1, 2]}
    model = tiny_model("segmentation", encoder, "linear")
    model = type(model)(type(model.config)(encoder_config=options, head_type="linear", num_labels=NUM_LABELS))
    run(model, "segmentation", (28, 28)).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert any(not p.requires_grad for p in model.parameters())


@torch.no_grad()
def test_the_model_scales_images_itself_where_the_configuration_says_so():
    plain = tiny_model("depth").eval()
    scaling = tiny_model("depth", input_mean=[0.1, 0.2, 0.3], input_std=[0.5, 1.0, 2.0]).eval()
    scaling.load_state_dict(plain.state_dict())
    image = torch.rand(1, 3, 32, 64)
    by_hand = torch.stack([(image[:, 0] - 0.1) / 0.5, image[:, 1] - 0.2, (image[:, 2] - 0.3) / 2], dim=1)
    assert_same_up_to_rounding(scaling(image).predicted_depth, plain(by_hand).predicted_depth)


@torch.no_grad()
def test_depth_types_give_the_depth_they_declare():
    weights = tiny_model("depth", depth_type="metric").state_dict()
    outputs = {}
    for depth_type in ("metric", "disparity", "relative_inverse"):
        model = tiny_model("depth", depth_type=depth_type, min_depth=0.5, max_depth=80.0).eval()
        model.load_state_dict(weights)
        model.depth_predictor[0].conv.bias.fill_(0.1)
        outputs[depth_type] = model(torch.linspace(-2, 2, 3 * 32 * 64).reshape(1, 3, 32, 64))
    sigmoid = outputs["metric"].raw_maps[0][:, 0]
    assert_same_up_to_rounding(outputs["metric"].predicted_depth, 80 * sigmoid)
    disparity = 1 / 80 + (1 / 0.5 - 1 / 80) * sigmoid
    assert_same_up_to_rounding(outputs["disparity"].predicted_depth, 1 / disparity)
    before_activation = torch.logit(sigmoid.double()).float()
    torch.testing.assert_close(
        outputs["relative_inverse"].predicted_depth, before_activation.clamp(min=0), atol=1e-5, rtol=1e-4
    )


def test_one_forward_gives_labels_and_depth_where_depth_is_kept():
    output = tiny_model("segmentation", keep_depth=True)(torch.randn(2, 3, 57, 101))
    assert output.logits.shape == (2, NUM_LABELS, 57, 101)
    assert output.predicted_depth.shape == (2, 57, 101)
    assert tiny_model("segmentation")(torch.randn(2, 3, 57, 101)).predicted_depth is None


def test_hidden_states_and_tuples_are_returned_on_request():
    model = tiny_model("segmentation")
    image = torch.randn(1, 3, 64, 96)
    states = model(image, output_hidden_states=True).hidden_states
    assert [tuple(state.shape[-2:]) for state in states] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    assert model(image).hidden_states is None
    assert_same_up_to_rounding(model(image, return_dict=False)[0], model(image).logits)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 4, 32, 32)])
def test_an_image_of_the_wrong_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"pixel_values has shape .* expected \(batch, 3, height, width\)"):
        tiny_model("depth")(torch.randn(shape))


def test_a_head_that_needs_more_maps_than_the_encoder_gives_is_refused():
    with pytest.raises(ValueError, match="requires at least 4 encoder maps, but the encoder returns 1"):
        tiny_encoder = TINY_ENCODERS["dinov2"] | {"out_indices": [4]}
        model = tiny_model("depth")
        type(model)(type(model.config)(encoder_config=tiny_encoder, head_type="dpt"))
