"""ZoeDepth with one domain and with two, held against transformers' own class."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from models import family_contract
from models.family_contract import ENDINGS, check_depth, load, make_foreign
from rounding import assert_same_up_to_rounding, in_float64
from transformers import ZoeDepthConfig, ZoeDepthForDepthEstimation
from transformers.models.zoedepth.modeling_zoedepth import LogBinomialSoftmax as TheirLogBinomialSoftmax

from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation, DepthSegForSemanticSegmentation
from depthseg.models.heads_zoedepth_depthseg import LogBinomialSoftmax, ZoeDepthHeadConfig

BEIT = {
    "model_type": "beit",
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 64,
    "patch_size": 16,
    "use_relative_position_bias": True,
    "drop_path_rate": 0.0,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
    "reshape_hidden_states": False,
}
DINOV2 = {
    "model_type": "dinov2",
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "image_size": 64,
    "patch_size": 16,
    "out_indices": [1, 2, 3, 4],
    "reshape_hidden_states": False,
}
ZOEDEPTH = {
    "backbone_config": BEIT,
    "neck_hidden_sizes": [8, 8, 12, 16],
    "fusion_hidden_size": 8,
    "bottleneck_features": 8,
    "num_relative_features": 6,
    "bin_embedding_dim": 8,
    "num_attractors": [4, 3, 2, 1],
    "bin_configurations": [{"n_bins": 16, "min_depth": 1e-3, "max_depth": 10.0}],
}
DOMAINS = [
    {"name": "nyu", "n_bins": 16, "min_depth": 1e-3, "max_depth": 10.0},
    {"name": "kitti", "n_bins": 12, "min_depth": 1e-3, "max_depth": 80.0},
]
# Parameters that choose a domain, and the relative head's last layer, which two domains do not read.
ROUTING = ("0.conv3.", "0.metric_head.patch_transformer.", "0.metric_head.mlp_classifier.")
TWO_DOMAINS = ZOEDEPTH | {
    "bin_configurations": DOMAINS,
    "num_patch_transformer_layers": 4,
    "patch_transformer_hidden_size": 128,
    "patch_transformer_intermediate_size": 16,
    "patch_transformer_num_attention_heads": 4,
}
FORMS = {
    "softplus": ZOEDEPTH,
    "normed": ZOEDEPTH | {"bin_centers_type": "normed", "attractor_kind": "sum"},
    "two_domains": TWO_DOMAINS | {"bin_centers_type": "normed"},
    "dinov2": ZOEDEPTH
    | {
        "backbone_config": DINOV2,
        "use_batch_norm_in_fusion_residual": True,
        "use_bias_in_fusion_residual": True,
    },
}


def save(form: str, folder):
    model = make_foreign(ZoeDepthForDepthEstimation, ZoeDepthConfig(**FORMS[form]))
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module", params=FORMS)
def foreign(request, tmp_path_factory):
    return save(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def two_domains(tmp_path_factory):
    """A ZoeDepth of two domains, and two images that fall into one of them each."""
    model = make_foreign(ZoeDepthForDepthEstimation, ZoeDepthConfig(**TWO_DOMAINS))
    images = torch.randn(2, 3, 64, 96) * torch.tensor([0.5, 3.0])[:, None, None, None]
    with torch.no_grad():
        logits = torch.cat([model(image[None]).domain_logits for image in images])
        lead = logits[:, 0] - logits[:, 1]
        if lead[0] < lead[1]:
            images, lead = images.flip(0), lead.flip(0)
        model.metric_head.mlp_classifier.linear2.bias[0] -= lead.mean()
    folder = tmp_path_factory.mktemp("two_domains")
    model.save_pretrained(folder)
    return model, folder, images


@pytest.fixture(scope="module")
def ours(two_domains):
    return load(two_domains[1], "depth")


def test_depth_equals_that_of_transformers(foreign):
    check_depth(foreign[0], load(foreign[1], "depth"), sizes=[(64, 96), (96, 32)])


def test_depth_of_two_domains_equals_that_of_transformers(two_domains, ours):
    check_depth(two_domains[0], ours, sizes=[(64, 96), (96, 32)])


def test_any_size_gives_labels_and_depth(two_domains, ours):
    family_contract.check_any_size(ours, two_domains[1])


@torch.no_grad()
def test_each_image_gets_the_depth_of_its_own_domain(two_domains, ours):
    # In float64, because the sums of a batch of two are not those of one to the last bit.
    model, ours, images = in_float64(two_domains[0]), in_float64(ours), two_domains[2].double()
    logits = torch.cat([model(image[None]).domain_logits for image in images])
    assert logits.argmax(dim=1).tolist() == [0, 1]
    alone = torch.cat([model(image[None]).predicted_depth for image in images])
    assert_same_up_to_rounding(ours(images).predicted_depth, alone)
    assert_same_up_to_rounding(ours(images.flip(0)).predicted_depth, alone.flip(0))
    # transformers lets the batch vote, so that one of its two images gets the other domain.
    assert (model(images).predicted_depth - alone).abs().amax(dim=(1, 2)).max() > 1e-2


@pytest.mark.parametrize("chosen", [[0], [1], [0, 1]])
def test_every_domain_has_a_gradient_on_every_rank(two_domains, ours, chosen):
    """A process whose images are all of one domain must not make the others wait: zero, but not None."""
    images = two_domains[2]
    model = deepcopy(ours).train()
    model(images[chosen], labels=5 + torch.rand(len(chosen), 64, 96)).loss.backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in trained.values())
    for number, name in enumerate(("nyu", "kitti")):
        of_domain = [gradient for key, gradient in trained.items() if f".{name}." in key]
        # First bin centres, four attractors and the weighting: two convolutions of weight and bias each.
        assert len(of_domain) == (1 + 4 + 1) * 2 * 2
        assert any(gradient.any() for gradient in of_domain) == (number in chosen)
    fixed = {name for name, p in model.depth_predictor.named_parameters() if not p.requires_grad}
    assert fixed == {name for name, _ in model.depth_predictor.named_parameters() if name.startswith(ROUTING)}


@torch.no_grad()
def test_the_domain_is_chosen_without_dropout_in_training(two_domains, ours):
    """Each image lies so near the other domain that dropout would send it there in some of the trials."""
    model, images = deepcopy(ours), two_domains[2]
    predictor = model.depth_predictor[0]
    deepest = predictor.metric_head.conv2(model.head(model.encode(images))[-1])
    token = predictor.metric_head.patch_transformer(deepest)[:, 0]
    lead = predictor.metric_head.mlp_classifier(token)
    assert predictor.choose_domain(deepest).tolist() == lead.argmax(dim=1).tolist() == [0, 1]
    model.train()
    trials = {tuple(predictor.choose_domain(deepest).tolist()) for _ in range(20)}
    assert trials == {(0, 1)}
    predictor.metric_head.patch_transformer.train()
    assert len({tuple(predictor.choose_domain(deepest).tolist()) for _ in range(20)}) > 1


def test_the_classifier_stays_fixed_when_a_kept_predictor_is_trained(two_domains):
    model = load(two_domains[1], "segmentation", keep_depth=True)
    assert not any(p.requires_grad for p in model.depth_predictor.parameters())
    model.train_depth_predictor()
    fixed = {name for name, p in model.depth_predictor.named_parameters() if not p.requires_grad}
    assert fixed == {name for name, _ in model.depth_predictor.named_parameters() if name.startswith(ROUTING)}


@pytest.mark.parametrize(
    ("form", "task", "ending"),
    [
        ("normed", "depth", "last_layer"),
        ("softplus", "depth", "last_layer"),
        ("softplus", "segmentation", "last_layer"),
        ("softplus", "segmentation", "segmentation_block"),
    ],
)
def test_saving_and_training(form, task, ending, tmp_path):
    _, folder = save(form, tmp_path / "theirs")
    family_contract.check_saving_and_training(folder, task, ending, tmp_path / "ours")


@torch.no_grad()
def test_two_domains_are_saved_and_become_a_segmenter(ours, tmp_path):
    family_contract.check_transfer_between_tasks(ours, tmp_path)
    loaded = DepthSegForDepthEstimation.from_pretrained(tmp_path)
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in ours.parameters()]
    torch.testing.assert_close(loaded.state_dict(), ours.state_dict(), rtol=0, atol=0)
    image = torch.randn(1, 3, 57, 101, dtype=torch.float64)
    assert_same_up_to_rounding(in_float64(loaded)(image).predicted_depth, in_float64(ours)(image).predicted_depth)


def test_nothing_but_parameters_has_to_survive_loading(ours):
    """Buffers that are not saved come back from loading as arbitrary memory; there must be none."""
    assert list(ours.depth_predictor.buffers()) == []


@pytest.mark.parametrize("n_bins", [12, 64])
def test_the_weights_of_the_bins_are_those_of_transformers(n_bins):
    # In float64, as the logarithm of a small probability is taken 64 times.
    probability = torch.rand(2, 5, 7, dtype=torch.float64)
    probability[0, 0, :2] = torch.tensor([0.0, 1.0])
    temperature = 0.02 + 50 * torch.rand(2, 1, 5, 7, dtype=torch.float64)
    expected = TheirLogBinomialSoftmax(n_bins)(probability, temperature)
    assert_same_up_to_rounding(LogBinomialSoftmax(n_bins)(probability, temperature), expected)


def test_a_segmenter_without_depth_hands_on_the_one_map_it_reads(two_domains):
    image = torch.randn(1, 3, 64, 96)
    for ending, channels, size in (("last_layer", 6, (64, 96)), ("segmentation_block", 8, (32, 48))):
        model = load(two_domains[1], "segmentation", ending)
        maps = model.head(model.encode(image))
        assert [tuple(m.shape) for m in maps] == [(1, channels, *size)]
        assert model.head.channels == [channels]


def test_the_declared_maps_are_those_handed_on(two_domains):
    for options in ({"task": "depth"}, {"task": "segmentation", "ending": ENDINGS[1], "keep_depth": True}):
        model = load(two_domains[1], **options)
        maps = model.head(model.encode(torch.randn(1, 3, 64, 96)))
        assert [m.shape[1] for m in maps] == model.head.channels
        assert [96 / m.shape[-1] for m in maps] == list(model.head.strides)


def test_metres_are_shares_of_the_largest_depth_of_any_domain(ours):
    config = ours.config
    assert (config.depth_type, config.min_depth, config.max_depth) == ("metric", 1e-3, 80.0)


@torch.no_grad()
def test_the_head_works_on_convolutional_maps():
    options = {"fusion_hidden_size": 8, "head_hidden_size": 6, "bin_embedding_dim": 8}
    config = DepthSegConfig(
        encoder_config={"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125},
        head_type="native",
        head_config={"family": "zoedepth", "options": options},
        depth_type="metric",
        max_depth=10,
    )
    depth = DepthSegForDepthEstimation(config).eval()(torch.randn(1, 3, 57, 101)).predicted_depth
    assert depth.shape == (1, 57, 101)
    assert depth.isfinite().all()
    logits = DepthSegForSemanticSegmentation(config).eval()(torch.randn(1, 3, 57, 101)).logits
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bin_centers_type": "hybrid1"}, "bin_centers_type is 'hybrid1'; allowed are softplus, normed"),
        ({"attractor_kind": "max"}, "attractor_kind is 'max'; allowed are mean, sum"),
        ({"num_attractors": (4, 2)}, "requires exactly 4 entries"),
        ({"bin_configurations": ()}, "requires one entry with n_bins, min_depth, max_depth, or 2"),
        ({"bin_configurations": ({"n_bins": 4},)}, "requires one entry with n_bins, min_depth, max_depth, or 2"),
        ({"bin_configurations": tuple({k: v for k, v in d.items() if k != "name"} for d in DOMAINS)}, "have a name"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ZoeDepthHeadConfig(**options)


def test_a_readout_that_transformers_cannot_run_is_refused(tmp_path):
    config = ZoeDepthConfig(**ZOEDEPTH | {"readout_type": "ignore"})
    make_foreign(ZoeDepthForDepthEstimation, config).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="readout_type is 'ignore'; transformers supports only 'project' for ZoeDepth"
    ):
        load(tmp_path, "depth")
