"""Publishing what `depthseg convert` wrote, which has no run directory."""

import json

import pytest
import torch
from convert.published_convnets import Monodepth2Decoder, Monodepth2Encoder, ResNet, randomise
from hub_server import run_client
from huggingface_hub import ModelCard

from depthseg.convert.saving import convert
from depthseg.engine.config import load_config
from depthseg.hub.bundle import MANIFEST
from depthseg.hub.converted import prepare_converted
from depthseg.hub.facts import Facts
from depthseg.hub.record import LINEAGE_FILE, trace

PUSH = """
from depthseg.hub import push as module
done = module.push(arg["folder"], arg["repo"])
result["revision"] = done.revision
"""
DOWNLOAD = """
import torch
from transformers import AutoModelForDepthEstimation
where = {"revision": arg["revision"], "code_revision": arg["revision"], "trust_remote_code": True}
model = AutoModelForDepthEstimation.from_pretrained(arg["repo"], **where).eval()
image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
with torch.no_grad():
    result["depth"] = model(image).predicted_depth.tolist()
"""
MONODEPTH2 = "other:monodepth2-license:https://github.com/nianticlabs/monodepth2/blob/master/LICENSE"


@pytest.fixture(scope="module")
def networks():
    encoder = randomise(Monodepth2Encoder(18, base=8), 0)
    return encoder, randomise(Monodepth2Decoder(encoder.num_ch_enc), 1)


@pytest.fixture(scope="module")
def folder(networks, tmp_path_factory):
    """A converted depth network."""
    place = tmp_path_factory.mktemp("converted")
    for name, network in zip(("encoder", "depth"), networks, strict=True):
        torch.save(network.state_dict(), place / f"{name}.pth")
    convert([place / "encoder.pth", place / "depth.pth"], place / "monodepth2")
    return place / "monodepth2"


def test_licence_of_the_weights_is_known_from_their_layout(folder, tmp_path):
    with pytest.raises(ValueError, match="monodepth2 is under monodepth2-license.*mit is another licence.*Niantic"):
        prepare_converted(folder, "tester/depth", Facts(licence="mit"), tmp_path / "out")
    with pytest.raises(ValueError, match="Licences are missing: that of these weights"):
        prepare_converted(folder, "tester/depth", Facts(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_from_converted_weights_descends_from_their_layout(folder, tmp_path):
    config = load_config(None, [f"model.pretrained={folder}", "data.name=camvid", "data.root=/data/camvid"])
    lineage = trace(config, tmp_path / "run")
    (weights,) = [source for source in lineage.sources({}) if source.kind == "weights"]
    assert (weights.name, weights.licence.name) == ("monodepth2", "monodepth2-license")


def test_a_bare_encoder_is_not_published(tmp_path):
    torch.save(ResNet(50, num_classes=0, base=8).state_dict(), tmp_path / "dino.pth")
    convert([tmp_path / "dino.pth"], tmp_path / "dino")
    with pytest.raises(ValueError, match=r"bare encoder.*model\.pretrained"):
        prepare_converted(tmp_path / "dino", "tester/dino", Facts(licence="mit"), tmp_path / "out")


@pytest.mark.heavy
def test_converted_published_and_loaded_elsewhere(hub, networks, folder, tmp_path):
    prepared = tmp_path / "prepared"
    prepare_converted(folder, "tester/depth", Facts(licence=MONODEPTH2), prepared)
    card = ModelCard.load(prepared / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", "monodepth2-license")
    assert card.data.pipeline_tag == "depth-estimation"
    assert "non-commercial use only" in card.text and "encoder.pth" in card.text
    lineage = json.loads((prepared / LINEAGE_FILE).read_text())
    assert lineage["ancestors"] == [["monodepth2", MONODEPTH2]]
    assert "conversion.json" in json.loads((prepared / MANIFEST).read_text())
    done = run_client(hub, tmp_path, PUSH, depthseg=True, folder=str(prepared), repo="tester/depth")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    there = run_client(hub, tmp_path, DOWNLOAD, repo="tester/depth", revision=done["revision"])
    encoder, decoder = networks
    with torch.no_grad():
        expected = 1 / (0.01 + 9.99 * decoder(encoder(image))[0][:, 0].sigmoid())
    torch.testing.assert_close(torch.tensor(there["depth"]), expected, rtol=1e-4, atol=0)
