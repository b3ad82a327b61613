"""Files that cannot be converted: each says why, and nothing is written."""

import argparse
import json
import os
import pathlib
import pickle

import numpy as np
import pytest
import torch
from convert.vit_networks import Vit

from depthseg.cli import main
from depthseg.convert.reading import read_file, read_source
from depthseg.convert.saving import convert


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
    assert "1 tensor (layer1.conv.weight) of a layout" in text and "Known are" in text and "dinov2" in text


def test_another_architecture_than_the_one_asked_for(tmp_path):
    torch.save({"layer1.conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(
        ValueError, match="1 tensor of the file is unknown in this kind of network, for example layer1"
    ):
        convert([tmp_path / "other.pth"], tmp_path / "out", "dinov2")
    with pytest.raises(ValueError, match="--from is 'dinov9'; allowed are"):
        convert([tmp_path / "other.pth"], tmp_path / "out", "dinov9")


def test_other_shapes_are_named_in_the_words_of_the_file(tmp_path, weights):
    weights["blocks.1.mlp.fc2.weight"] = torch.zeros(7, 9)
    torch.save({"model": {f"module.{name}": tensor for name, tensor in weights.items()}}, tmp_path / "odd.pth")
    text = refused(tmp_path / "odd.pth", tmp_path)
    assert "do not fit the network in 1 tensor: " in text
    assert "module.blocks.1.mlp.fc2.weight has the shape (7, 9), not (128, 512)" in text


def test_missing_and_unknown_tensors_are_named(tmp_path, weights):
    torch.save({name: t for name, t in weights.items() if name != "blocks.2.norm1.bias"}, tmp_path / "less.pth")
    assert "encoder.layer.2.norm1.bias is missing" in refused(tmp_path / "less.pth", tmp_path)
    torch.save(weights | {"adapter.weight": torch.zeros(2)}, tmp_path / "more.pth")
    assert "unknown in this kind of network, for example adapter.weight" in refused(tmp_path / "more.pth", tmp_path)


def test_nan_is_refused(tmp_path, weights):
    weights["norm.weight"][3] = float("nan")
    torch.save(weights, tmp_path / "nan.pth")
    assert "NaN or infinity is in 1 tensor, for example norm.weight" in refused(tmp_path / "nan.pth", tmp_path)


def test_options_and_numbers_of_a_training_are_read_beside_the_weights(tmp_path, weights):
    path = tmp_path / "dinov2_run.pth"
    options = argparse.Namespace(lr=0.1, output_dir=pathlib.Path("runs"), name="a")
    scores = {"abs_rel": np.float64(0.25), "epoch": np.int64(3), "curve": np.arange(3.0), "flags": np.bool_(True)}
    torch.save({"model": weights, "args": options, "scores": scores, "best": np.float32(0.5)}, path)
    source = read_source([path])
    assert source.tensors.keys() == weights.keys()
    groups = {"args": {"lr": 0.1, "name": "a"}, "scores": {"abs_rel": 0.25, "epoch": 3, "flags": True}}
    assert source.extras == {"dinov2_run": groups | {"best": 0.5}}


class MadeUpType:
    """A type of NumPy with a made-up state, which says that its text is pointers to objects; NumPy crashes on it."""

    def __reduce__(self):
        return np.dtype, ("U4", False, True), (3, "<", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)


class MadeUpArray:
    def __reduce__(self):
        return np.zeros(1).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, (1,), MadeUpType(), False, b"\0" * 8)


def test_made_up_arrays_of_numpy_are_not_made(tmp_path, weights):
    path = tmp_path / "dinov2.pth"
    torch.save({"model": weights, "kind": MadeUpType(), "array": MadeUpArray(), "word": np.str_("a")}, path)
    content = read_file(path)
    assert not [value for value in content.values() if isinstance(value, np.dtype | np.ndarray | np.generic)]
    assert read_source([path]).extras == {"dinov2": {}}


@pytest.mark.parametrize("core", ["core", "_core"])
def test_numbers_of_both_versions_of_numpy_are_read(tmp_path, core):
    """NumPy renamed the module of its scalars from `core` to `_core`; files name the one that wrote them."""
    path, found = tmp_path / "best.bin", np.float64(0.25).__reduce__()[0].__module__
    torch.save({"a": np.float64(0.25)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(found.encode(), f"numpy.{core}.multiarray".encode()))
    assert read_file(path) == {"a": 0.25}


@pytest.mark.parametrize("new_format", [True, False])
def test_a_malicious_pickle_inside_of_options_is_refused_and_not_run(tmp_path, weights, new_format):
    path, trace = tmp_path / "bad.pth", tmp_path / "trace"
    content = {"model": weights, "args": argparse.Namespace(a=Malicious(trace))}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    assert "bad.pth needs" in refused(path, tmp_path)
    content = {"model": weights, "a": np.array([Malicious(trace)], dtype=object)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    assert "bad.pth" in refused(path, tmp_path)
    assert not trace.exists()


@pytest.mark.parametrize("new_format", [True, False])
def test_a_newer_protocol_of_pickle_is_named(tmp_path, weights, new_format):
    path = tmp_path / "new.pth"
    torch.save(weights, path, pickle_protocol=4, _use_new_zipfile_serialization=new_format)
    text = refused(path, tmp_path)
    assert "new.pth is a pickle of protocol 4" in text and "damaged" not in text
    assert "torch.save(torch.load(FILE, weights_only=False), 'weights.pth')" in text


def test_a_torchscript_archive_is_named(tmp_path, recwarn):
    path = tmp_path / "traced.pt"
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(path)
    recwarn.clear()
    text = refused(path, tmp_path)
    assert "traced.pt is a TorchScript archive" in text and "damaged" not in text
    assert not [warning for warning in recwarn if "TorchScript" in str(warning.message)]


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
