"""Published convolutional networks after conversion give the outputs of networks written from the published code."""

import json
from pathlib import Path

import pytest
import torch
from convert.published_convnets import (
    Monodepth2Decoder,
    Monodepth2Encoder,
    ResNet,
    SegmentationNetwork,
    deeplab_head,
    fcn_head,
    moco,
    randomise,
)

from depthseg import (
    DepthSegForDepthEstimation,
    DepthSegForImageClassification,
    DepthSegForSemanticSegmentation,
    DepthSegImageProcessor,
)
from depthseg.convert.converted import ConvertOptions
from depthseg.convert.saving import convert

IMAGE = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def report_of(folder: Path) -> dict:
    return json.loads((folder / "conversion.json").read_text())


def saved(path: Path, content) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(content, path)
    return path


def maps_of(folder: Path, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    model = DepthSegForSemanticSegmentation.from_encoder_pretrained(folder, num_labels=3, head_type="linear")
    with torch.no_grad():
        return model(image, output_hidden_states=True).hidden_states


@torch.no_grad()
def assert_maps_equal(found, expected) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())


@pytest.fixture(scope="module")
def monodepth2(tmp_path_factory):
    """The files of a training with video: depth and pose, the sizes beside the encoder, and the optimiser's state."""
    folder = tmp_path_factory.mktemp("monodepth2") / "mono_64x96"
    encoder = randomise(Monodepth2Encoder(18), 0)
    decoder = randomise(Monodepth2Decoder(encoder.num_ch_enc), 1)
    content = dict(encoder.state_dict()) | {"height": 64, "width": 96, "use_stereo": False}
    saved(folder / "encoder.pth", content)
    pose = dict(Monodepth2Encoder(18).state_dict())
    pose["encoder.conv1.weight"] = torch.randn(64, 6, 7, 7)
    saved(folder / "pose_encoder.pth", pose)
    optimiser = torch.optim.Adam(decoder.parameters())
    decoder(encoder(IMAGE))[0].mean().backward()
    optimiser.step()
    saved(folder / "adam.pth", optimiser.state_dict())
    saved(folder / "depth.pth", decoder.state_dict())
    saved(folder / "pose.pth", {"net.0.weight": torch.randn(256, 512, 1, 1)})
    return folder, encoder, decoder


def published_depth(encoder, decoder, image):
    with torch.no_grad():
        outputs = [scale.sigmoid() for scale in decoder(encoder(image))]
    return 1 / (1 / 100 + (1 / 0.1 - 1 / 100) * outputs[0][:, 0]), outputs


def test_monodepth2_predicts_the_published_depth(monodepth2, tmp_path):
    folder, encoder, decoder = monodepth2
    assert "metres from 0.1 to 100, up to scale" in convert([folder], tmp_path / "out")
    depth, outputs = published_depth(encoder, decoder, IMAGE)
    model = DepthSegForDepthEstimation.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        output = model(IMAGE)
    torch.testing.assert_close(output.predicted_depth, depth, rtol=1e-5, atol=0)
    assert_maps_equal(output.raw_maps, outputs)


def test_monodepth2_scales_its_input_once(monodepth2, tmp_path):
    folder, encoder, decoder = monodepth2
    convert([folder], tmp_path / "out")
    processor = DepthSegImageProcessor.from_pretrained(tmp_path / "out")
    image = (IMAGE[0].permute(1, 2, 0) * 255).byte().numpy()
    pixel_values = processor(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixel_values, torch.tensor(image).permute(2, 0, 1)[None] / 255)
    assert processor.size == {"height": 64, "width": 96}


def test_monodepth2_leaves_pose_and_class_scores_out(monodepth2, tmp_path):
    folder, encoder, _ = monodepth2
    # Before "depth" in the order of names; a mask decoder has two channels.
    mask = saved(tmp_path / "more" / "mask.pth", Monodepth2Decoder(encoder.num_ch_enc, 2).state_dict())
    teacher = saved(tmp_path / "more" / "teacher.pth", encoder.encoder.state_dict())
    convert([mask, teacher, folder], tmp_path / "out")
    report = report_of(tmp_path / "out")
    assert report["kind"] == "monodepth2"
    assert "adam.pth" not in report["files"]
    assert "pose network" in report["left_out"]["pose: net.0.weight"]
    assert "pose network" in report["left_out"]["pose_encoder: encoder.conv1.weight"]
    assert "another network" in report["left_out"]["mask: decoder.0.conv.conv.weight"]
    assert "another network" in report["left_out"]["teacher: conv1.weight"]
    assert "class scores" in report["left_out"]["encoder: encoder.fc.weight"]
    assert {"from": "depth: decoder.13.conv.bias", "to": "depth_predictor.3.conv.bias", "shape": [1]} in report[
        "tensors"
    ]
    model = DepthSegForSemanticSegmentation.from_pretrained(tmp_path / "out", num_labels=11)
    (lineage,) = [entry for entry in model.config.weight_lineage if entry["source_class"] == "monodepth2"]
    assert "non-commercial" in lineage["licence"]
    assert {part.part: part.status for part in model.transfer_report.parts}["head"] == "taken"


def test_order_of_tensors_in_the_file_does_not_matter(monodepth2, tmp_path):
    folder, encoder, decoder = monodepth2
    state = decoder.state_dict()
    files = [saved(tmp_path / "sorted" / "depth.pth", {name: state[name] for name in sorted(state)})]
    files.append(saved(tmp_path / "sorted" / "encoder.pth", encoder.state_dict()))
    convert(files, tmp_path / "out")
    depth, _ = published_depth(encoder, decoder, IMAGE)
    with torch.no_grad():
        found = DepthSegForDepthEstimation.from_pretrained(tmp_path / "out")(IMAGE).predicted_depth
    torch.testing.assert_close(found, depth, rtol=1e-5, atol=0)


def test_encoder_of_monodepth2_alone_is_a_bare_encoder(monodepth2, tmp_path):
    folder, encoder, _ = monodepth2
    convert([folder / "encoder.pth"], tmp_path / "out")
    processor = DepthSegImageProcessor.from_pretrained(tmp_path / "out")
    scaled = processor(IMAGE[0], do_rescale=False, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = encoder(IMAGE)
    assert_maps_equal(maps_of(tmp_path / "out", scaled), expected)


def test_depth_alone_asks_for_the_encoder(monodepth2, tmp_path):
    folder, *_ = monodepth2
    with pytest.raises(ValueError, match="give it with the decoder"):
        convert([folder / "depth.pth"], tmp_path / "out", "monodepth2")
    assert not (tmp_path / "out").exists()


def test_two_decoders_of_depth_are_asked_about(monodepth2, tmp_path):
    folder, *_ = monodepth2
    other = saved(tmp_path / "more" / "depth_2.pth", torch.load(folder / "depth.pth"))
    with pytest.raises(ValueError, match="depth, depth_2 are decoders, and 2 of them predict depth; give the encoder"):
        convert([folder, other], tmp_path / "out")


def test_decoder_of_another_encoder_is_refused(monodepth2, tmp_path):
    folder, *_ = monodepth2
    other = saved(tmp_path / "other" / "depth.pth", Monodepth2Decoder([64, 256, 512, 1024, 2048]).state_dict())
    with pytest.raises(ValueError, match=r"decoder\.0\.conv\.conv\.weight.*has the shape \(256, 2048, 3, 3\)"):
        convert([folder / "encoder.pth", other], tmp_path / "out")


def parallel(network, **beside):
    """What depth-to-semantic saves of a network in DataParallel."""
    return {"train_step": 7, "model_state_dict": torch.nn.DataParallel(network).state_dict()} | beside


def test_depth_to_semantic_depth_is_in_metres_of_its_stereo_rig(tmp_path):
    encoder = randomise(Monodepth2Encoder(50, base=16), 0)
    decoder = randomise(Monodepth2Decoder(encoder.num_ch_enc), 1)
    optimiser = torch.optim.Adam(encoder.parameters()).state_dict()
    saved(tmp_path / "in" / "encoder-7.pth", parallel(encoder, optimizer_state_dict=optimiser))
    saved(tmp_path / "in" / "decoder_depth-7.pth", parallel(decoder))
    convert([tmp_path / "in"], tmp_path / "out")
    assert report_of(tmp_path / "out")["kind"] == "depth-to-semantic"
    depth, _ = published_depth(encoder, decoder, IMAGE)
    with torch.no_grad():
        found = DepthSegForDepthEstimation.from_pretrained(tmp_path / "out")(IMAGE).predicted_depth
    torch.testing.assert_close(found, 5.4 * depth, rtol=1e-5, atol=0)
    # A training up to 80 units of the published code, which are 432 metres.
    convert([tmp_path / "in"], tmp_path / "far", options=ConvertOptions(max_depth=432.0))
    with torch.no_grad():
        shares = decoder(encoder(IMAGE))[0][:, 0].sigmoid()
        found = DepthSegForDepthEstimation.from_pretrained(tmp_path / "far")(IMAGE).predicted_depth
    torch.testing.assert_close(found, 5.4 / (1 / 80 + (1 / 0.1 - 1 / 80) * shares), rtol=1e-5, atol=0)
    assert "metres from 0.54 to 432" in report_of(tmp_path / "far")["depth"]
    with pytest.raises(ValueError, match="--max-depth is 0.5, and the smallest depth of this network is 0.54"):
        convert([tmp_path / "in"], tmp_path / "near", options=ConvertOptions(max_depth=0.5))


def test_depth_to_semantic_labels_have_the_names_of_kitti(tmp_path):
    encoder = randomise(Monodepth2Encoder(18), 0)
    decoder = randomise(Monodepth2Decoder(encoder.num_ch_enc, 34), 1)
    file = saved(tmp_path / "in" / "depth.pt", {"encoder": encoder.state_dict(), "decoder": decoder.state_dict()})
    convert([file], tmp_path / "out")
    model = DepthSegForSemanticSegmentation.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        found, expected = model(IMAGE).logits, decoder(encoder(IMAGE))[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert (model.config.id2label[7], model.config.id2label[26]) == ("road", "car")
    report = report_of(tmp_path / "out")
    assert "coarser scale" in report["left_out"]["decoder: decoder.decoder.11.conv.weight"]


@pytest.mark.parametrize("classes", [2, 3])
def test_few_labels_of_depth_to_semantic_keep_their_classifier(classes, tmp_path):
    """In a file of both networks the decoder is that of labels, however many; of other pre-trainings are two files."""
    encoder = randomise(Monodepth2Encoder(18, base=16), 0)
    decoder = randomise(Monodepth2Decoder(encoder.num_ch_enc, classes), 1)
    file = saved(tmp_path / "seg.pt", {"encoder": encoder.state_dict(), "decoder": decoder.state_dict()})
    convert([file], tmp_path / "out")
    with torch.no_grad():
        found = DepthSegForSemanticSegmentation.from_pretrained(tmp_path / "out")(IMAGE).logits
        expected = decoder(encoder(IMAGE))[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    with pytest.raises(ValueError, match="--max-depth is the range of a metric depth network"):
        convert([file], tmp_path / "other", options=ConvertOptions(max_depth=80.0))


@pytest.mark.parametrize(("channels", "doubled", "word"), [(2, True, "optical flow"), (3, False, "erased pixels")])
def test_other_pretrainings_of_depth_to_semantic_give_their_encoder(channels, doubled, word, tmp_path):
    encoder = randomise(Monodepth2Encoder(18, base=16), 0)
    skips = [width * (2 if doubled else 1) for width in encoder.num_ch_enc]
    saved(tmp_path / "in" / "encoder.pth", parallel(encoder))
    saved(tmp_path / "in" / "decoder.pth", parallel(Monodepth2Decoder(skips, channels)))
    convert([tmp_path / "in"], tmp_path / "out")
    assert word in report_of(tmp_path / "out")["left_out"]["decoder: module.decoder.0.conv.conv.weight"]
    with torch.no_grad():
        expected = encoder(IMAGE)
    assert_maps_equal(maps_of(tmp_path / "out", (IMAGE - 0.45) / 0.225), expected)


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_torchvision_resnet_gives_its_class_scores(depth, tmp_path):
    network = randomise(ResNet(depth, num_classes=10, base=64 if depth == 18 else 16), 2)
    file = saved(tmp_path / f"resnet{depth}-0123abcd.pth", network.state_dict())
    convert([file], tmp_path / "out")
    model = DepthSegForImageClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGE).logits, network(IMAGE), rtol=1e-4, atol=1e-5)
    assert model.config.encoder_config.depth == depth
    processor = DepthSegImageProcessor.from_pretrained(tmp_path / "out")
    assert processor.do_normalize and processor.image_mean == [0.485, 0.456, 0.406]


def test_old_files_without_counters_of_batches_are_complete(tmp_path):
    state = {k: v for k, v in ResNet(18, 10, base=16).state_dict().items() if not k.endswith("num_batches_tracked")}
    convert([saved(tmp_path / "resnet18.pth", state)], tmp_path / "out")
    model = DepthSegForImageClassification.from_pretrained(tmp_path / "out")
    assert model.encoder.backbone.bn1.num_batches_tracked.item() == 0
    assert "encoder.backbone.bn1.num_batches_tracked" in report_of(tmp_path / "out")["filled_with_zero"]


def changed(change):
    state = dict(ResNet(18, 10, base=16).state_dict())
    change(state)
    return state


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (changed(lambda state: state.pop("layer4.1.bn2.running_var")), "layer4.1.bn2.running_var is missing"),
        (
            changed(lambda state: state.update({"layer3.0.conv1.weight": torch.zeros(64, 31, 3, 3)})),
            r"layer3.0.conv1.weight has the shape \(64, 31, 3, 3\), not \(64, 32, 3, 3\)",
        ),
        (
            changed(lambda state: state.update({"layer1.2.conv1.weight": torch.zeros(16, 16, 3, 3)})),
            r"3 \+ 2 \+ 2 \+ 2 basic blocks",
        ),
        (
            changed(lambda state: state.update({"conv1.weight": torch.zeros(16, 1, 7, 7)})),
            r"conv1.weight has the shape \(16, 1, 7, 7\)",
        ),
        (changed(lambda state: state.update({"attention.weight": torch.zeros(3)})), "attention.weight"),
    ],
    ids=["missing tensor", "other shape", "other blocks", "grey images", "unknown tensor"],
)
def test_other_networks_are_refused_in_a_sentence(state, sentence, tmp_path):
    file = saved(tmp_path / "resnet18.pth", state)
    with pytest.raises(ValueError, match=sentence):
        convert([file], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_moco_gives_its_query_encoder(tmp_path):
    query, names = moco(base=16)
    randomise(query, 3)
    file = saved(tmp_path / "moco_v2_800ep_pretrain.pth.tar", {"epoch": 800, "arch": "resnet50", "state_dict": names})
    convert([file], tmp_path / "out")
    report = report_of(tmp_path / "out")
    assert report["kind"] == "moco-v2"
    left_out = report["left_out"]
    assert "projection" in left_out["module.encoder_q.fc.2.weight"]
    assert "moving average" in left_out["module.encoder_k.conv1.weight"]
    assert {"module.queue", "module.queue_ptr"} <= left_out.keys()
    with torch.no_grad():
        expected = query.maps(IMAGE)
    assert_maps_equal(maps_of(tmp_path / "out", IMAGE), expected)


@pytest.mark.parametrize("whole", [False, True])
def test_dino_resnet_is_a_bare_encoder(whole, tmp_path):
    network = randomise(ResNet(50, num_classes=0, base=16), 3)
    content = network.state_dict()
    if whole:
        teacher = {f"backbone.{name}": tensor for name, tensor in content.items()}
        teacher["head.mlp.0.weight"] = torch.randn(4, 2048)
        student = {f"module.{name}": torch.zeros_like(tensor) for name, tensor in teacher.items()}
        content = {"student": student, "teacher": teacher, "epoch": 100}
    convert([saved(tmp_path / "dino_resnet50_pretrain.pth", content)], tmp_path / "out")
    assert report_of(tmp_path / "out")["kind"] == "dino-resnet"
    with torch.no_grad():
        expected = network.maps(IMAGE)
    assert_maps_equal(maps_of(tmp_path / "out", IMAGE), expected)


def test_bare_resnet50_of_unknown_origin_is_asked_about(tmp_path):
    file = saved(tmp_path / "backbone.pth", ResNet(50, num_classes=0, base=16).state_dict())
    with pytest.raises(ValueError, match="fits torchvision-resnet and dino-resnet and does not say which"):
        convert([file], tmp_path / "out")
    for kind in ("torchvision-resnet", "dino-resnet", "moco-v2"):
        convert([file], tmp_path / kind, kind)
        assert report_of(tmp_path / kind)["model_class"] == "encoder"


@pytest.mark.parametrize("depth", [50, 101])
def test_torchvision_fcn_is_a_segmenter(depth, tmp_path):
    network = randomise(SegmentationNetwork(depth, fcn_head, base=64 if depth == 50 else 16), 4)
    convert([saved(tmp_path / "fcn_coco.pth", network.state_dict())], tmp_path / "out")
    model = DepthSegForSemanticSegmentation.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        found, expected = model(IMAGE).logits, network(IMAGE)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert model.config.id2label[15] == "person"
    assert "auxiliary" in report_of(tmp_path / "out")["left_out"]["aux_classifier.0.weight"]


def test_torchvision_deeplabv3_gives_its_encoder_at_stride_8(tmp_path):
    network = randomise(SegmentationNetwork(50, deeplab_head, base=16), 4)
    convert([saved(tmp_path / "deeplabv3_coco.pth", network.state_dict())], tmp_path / "out")
    assert "3x3 convolution" in report_of(tmp_path / "out")["left_out"]["classifier.1.weight"]
    with torch.no_grad():
        expected = network.backbone.maps(IMAGE)
    assert_maps_equal(maps_of(tmp_path / "out", IMAGE), expected)
