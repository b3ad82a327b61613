"""training/guides/serving.md: its snippets run, and its configuration is that of the exported file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from export.exported_models import noise
from PIL import Image

from depthseg.cli import main
from depthseg.export.command import LAYOUTS

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'depthseg[export]'")
PAGE = (Path(__file__).parents[2] / "training" / "guides" / "serving.md").read_text()
PLAIN, CLIENT = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(CONFIG,) = re.findall(r"```protobuf\n(.*?)```", PAGE, re.DOTALL)
ENTRY = re.compile(r"^(\w+) \[ \{ name: \"(\w+)\" data_type: TYPE_(\w+) dims: \[ ([^\]]*) \] \} \]$", re.MULTILINE)
ROW = re.compile(r"^\| `--\w+ \w+`.* \| `(\w+)` \| `TYPE_(\w+)` \| `\[ (.*) \]` \|$", re.MULTILINE)
ONNX_TYPES = {"UINT8": "tensor(uint8)", "FP32": "tensor(float)"}


def graph(session):
    """Tensor -> type and shape without the batch, as Triton writes them."""
    types = {onnx: triton for triton, onnx in ONNX_TYPES.items()}
    found = {}
    for tensor in (*session.get_inputs(), *session.get_outputs()):
        assert tensor.shape[0] == "batch"
        found[tensor.name] = types[tensor.type], [size if isinstance(size, int) else -1 for size in tensor.shape[1:]]
    return found


def dims(text, classes=5):
    return [int(word) for word in text.replace("K", str(classes)).split(",")]


@pytest.fixture(scope="module")
def session(vit):
    return onnxruntime.InferenceSession(str(vit[1].path))


@pytest.fixture
def predicted(vit, tmp_path, capsys):
    """An image, and the file of its labels as `depthseg predict` writes it."""
    Image.fromarray(noise(70, 91, 3, seed=3)).save(tmp_path / "street.png")
    with pytest.raises(SystemExit) as end:
        main(["predict", str(vit[0]), str(tmp_path / "street.png"), "--output-dir", str(tmp_path / "out")])
    assert end.value.code == 0, capsys.readouterr()
    return tmp_path, tmp_path / "out" / "labels" / "street.png"


def assert_equal(found, expected, session, image):
    """Labels are equal wherever one class is ahead by more than rounding."""
    (logits,) = session.run(["logits"], {"images": np.asarray(Image.open(image))[None]})
    second, first = np.sort(logits[0], axis=0)[-2:]
    clear = first - second > 1e-5 * np.abs(logits).max()
    found, expected = np.asarray(Image.open(found)), np.asarray(Image.open(expected))
    assert found.shape == expected.shape and clear.mean() > 0.99 and len(np.unique(expected)) > 1
    np.testing.assert_array_equal(found[clear], expected[clear])


def test_the_labels_of_onnxruntime_are_those_of_predict(vit, session, predicted):
    folder, expected = predicted
    # What is set to None cannot be imported.
    blocked = "import sys\nfor name in ('torch', 'transformers', 'depthseg'): sys.modules[name] = None\n"
    words = [str(vit[1].path), str(folder / "street.png"), str(folder / "labels.png")]
    done = subprocess.run([sys.executable, "-c", blocked + PLAIN, *words], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert_equal(folder / "labels.png", expected, session, folder / "street.png")


def test_the_configuration_is_that_of_the_graph(session):
    entries = ENTRY.findall(CONFIG)
    assert [(kind, name) for kind, name, *_ in entries] == [("input", "images"), ("output", "labels")]
    given = graph(session)
    for _, name, type, sizes in entries:
        assert given[name] == (type, dims(sizes))
    (largest,) = re.findall(r"^max_batch_size: (\d+)$", CONFIG, re.MULTILINE)
    assert int(largest) >= 1 and CONFIG.count("\n") == 3 + len(entries)
    assert re.search(r"```\nmodels/\n  segmenter/\n    config.pbtxt\n    1/\n      model.onnx\n```", PAGE)
    assert 'name: "segmenter"' in CONFIG and "--output models/segmenter/1/model.onnx" in PAGE


def test_the_table_is_that_of_the_graph(session):
    rows = {name: (type, dims(sizes)) for name, type, sizes in ROW.findall(PAGE)}
    assert set(rows) == {"pixel_values", "logits", "depth"}
    assert {name: rows[name] for name in ("logits", "depth")} == {
        name: graph(session)[name] for name in ("logits", "depth")
    }
    _, *sizes = LAYOUTS["pixel_values"]
    assert rows["pixel_values"] == ("FP32", [size if isinstance(size, int) else -1 for size in sizes])


def test_the_client_asks_for_what_the_configuration_has(session, predicted, monkeypatch):
    folder, expected = predicted
    entries = {name: (type, dims(sizes)) for _, name, type, sizes in ENTRY.findall(CONFIG)}

    class InferInput:
        def __init__(self, name, shape, datatype):
            self.name, self.shape, self.datatype = name, shape, datatype

        def set_data_from_numpy(self, values):
            assert list(values.shape) == self.shape and values.dtype == np.uint8 and self.datatype == "UINT8"
            self.values = values

    class Answer:
        def __init__(self, outputs):
            self.as_numpy = outputs.__getitem__

    class InferenceServerClient:
        def __init__(self, url):
            assert url == "localhost:8000"

        def infer(self, model_name, inputs):
            (given,) = inputs
            type, sizes = entries[given.name]
            assert model_name == "segmenter" and given.datatype == type and given.shape[0] == 1
            assert all(wanted in (-1, size) for wanted, size in zip(sizes, given.shape[1:], strict=True))
            (labels,) = session.run(["labels"], {given.name: given.values})
            return Answer({"labels": labels})

    package, module = ModuleType("tritonclient"), ModuleType("tritonclient.http")
    module.InferInput, module.InferenceServerClient, package.http = InferInput, InferenceServerClient, module
    monkeypatch.setitem(sys.modules, "tritonclient", package)
    monkeypatch.setitem(sys.modules, "tritonclient.http", module)
    monkeypatch.chdir(folder)
    exec(CLIENT, {})
    assert_equal("labels.png", expected, session, "street.png")


def test_the_code_is_short():
    assert sum(text.count("\n") for text in (PLAIN, CONFIG, CLIENT)) <= 32
