"""Files that cannot be converted: each says why, and nothing is written."""

import json
import os
import pickle

import pytest
import torch

from depthseg.cli import main
from depthseg.convert.reading import read_source
from depthseg.convert.saving import convert

from .vit_networks import Vit


class Malicious:
    """What runs a command when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return Vit().state_dict()


def refused(path, tmp_path):
    """The sentence about a file; no folder is left, not even a hidden one."""
    with pytest.raises(ValueError) as error:
        convert([path], tmp_path / "out")
    assert not [entry for entry in tmp_path.iterdir() if "out" in entry.name]
    return str(error.value)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, weights, new_format):
    path, trace = tmp_path / "bad.pth", tmp_path / "trace"
    torch.save({"model": weights, "extra": Malicious(trace)}, path, _use_new_zipfile_serialization=new_format)
    text = refused(path, tmp_path)
    assert "bad.pth needs" in text and "system" in text and "it was not loaded" in text
    assert not trace.exists()


def test_a_plain_malicious_pickle_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / "bad.bin", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Malicious(trace), protocol=2))
    refused(path, tmp_path)
    assert not trace.exists()


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("suffix", ["pth", "safetensors", "legacy.pth"])
def test_a_truncated_file(tmp_path, weights, kept, suffix):
    from safetensors.torch import save_file

    path = tmp_path / f"cut.{suffix}"
    if suffix == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=suffix == "pth")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    text = refused(path, tmp_path)
    assert path.name in text and "damaged" in text and "ownload it again" in text


@pytest.mark.parametrize("content", [{"epoch": 3, "lr": 0.1}, [1, 2], {"state_dict": {}}, {"model": {"name": "x"}}])
def test_a_file_without_tensors(tmp_path, content):
    torch.save(content, tmp_path / "none.pth")
    assert "contains no tensors" in refused(tmp_path / "none.pth", tmp_path)


def test_another_architecture_lists_the_known_ones(tmp_path):
    torch.save({"layer1.conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    text = refused(tmp_path / "other.pth", tmp_path)
    assert "1 tensors (layer1.conv.weight" in text and "Known are" in text and "dinov2" in text


def test_another_architecture_than_the_one_asked_for(tmp_path):
    torch.save({"layer1.conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="unknown in this kind of network, for example layer1.conv.weight"):
        convert([tmp_path / "other.pth"], tmp_path / "out", "dinov2")
    with pytest.raises(ValueError, match="--from is 'dinov9'; allowed are"):
        convert([tmp_path / "other.pth"], tmp_path / "out", "dinov9")


def test_other_shapes_are_named_in_the_words_of_the_file(tmp_path, weights):
    weights["blocks.1.mlp.fc2.weight"] = torch.zeros(7, 9)
    torch.save({"model": {f"module.{name}": tensor for name, tensor in weights.items()}}, tmp_path / "odd.pth")
    text = refused(tmp_path / "odd.pth", tmp_path)
    assert "module.blocks.1.mlp.fc2.weight has the shape (7, 9), not (128, 512)" in text


def test_missing_and_unknown_tensors_are_named(tmp_path, weights):
    torch.save({name: t for name, t in weights.items() if name != "blocks.2.norm1.bias"}, tmp_path / "less.pth")
    assert "encoder.layer.2.norm1.bias is missing" in refused(tmp_path / "less.pth", tmp_path)
    torch.save(weights | {"adapter.weight": torch.zeros(2)}, tmp_path / "more.pth")
    assert "unknown in this kind of network, for example adapter.weight" in refused(tmp_path / "more.pth", tmp_path)


def test_nan_is_refused(tmp_path, weights):
    weights["norm.weight"][3] = float("nan")
    torch.save(weights, tmp_path / "nan.pth")
    assert "contain NaN or infinity, for example norm.weight" in refused(tmp_path / "nan.pth", tmp_path)


def test_paths_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_source([tmp_path / "none.pth"])
    with pytest.raises(FileNotFoundError, match="contains no file of weights"):
        read_source([tmp_path])
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match="suffix '.txt'"):
        read_source([tmp_path / "notes.txt"])


def test_a_folder_gives_a_file_each_and_keeps_numbers_and_names(tmp_path):
    torch.save({"module.a": torch.ones(2), "module.b": torch.ones(1)}, tmp_path / "decoder.pth")
    torch.save({"model": {"module.model.c": torch.ones(3)}, "height": 192}, tmp_path / "encoder.pth")
    source = read_source([tmp_path])
    assert {stem: list(tensors) for stem, tensors in source.files.items()} == {"decoder": ["a", "b"], "encoder": ["c"]}
    assert source.extras == {"decoder": {}, "encoder": {"height": 192}}
    assert source.label("encoder", "c") == "encoder: module.model.c"


def test_the_command_prints_a_table_and_does_not_overwrite(tmp_path, weights, capsys):
    torch.save(weights, tmp_path / "dinov2.pth")
    words = ["convert", str(tmp_path / "dinov2.pth"), "--output-dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code in (0, None)
    assert "converted  " in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    import hashlib

    assert report["files"] == {"dinov2.pth": hashlib.sha256((tmp_path / "dinov2.pth").read_bytes()).hexdigest()}
    with pytest.raises(SystemExit, match="exists; give another --output-dir"):
        main(words)
