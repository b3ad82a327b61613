"""The comparisons of speed: what they print and write, and that they time equal things in turns."""

from __future__ import annotations

import json
from functools import partial
from statistics import median

import pytest
import torch
from rounding import SHARE
from torch import nn

from depthseg.bench import CASES, DEFAULT_CASES, lean, startup, timing
from depthseg.bench.feature_cache import StepComparison
from depthseg.bench.forward import BUILDERS
from depthseg.bench.photometric import SIDES
from depthseg.bench.timing import Comparison, relative_difference, time_in_turns
from depthseg.bench.training_step import NETWORKS, EngineLoop, PlainLoop, Setting
from depthseg.cli import main

TINY = ("depth-anything-tiny", "dpt-tiny")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    return exit_info.value.code or 0


def test_both_sides_are_printed_and_written(tmp_path, capsys):
    threads = torch.get_num_threads()
    assert run("bench", *TINY, "--repeats", 3, "--threads", 1, "--output", tmp_path / "bench.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(TINY)
    assert all(word in line for line in lines for word in ("transformers", "depthseg", "ratio", "ms"))
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["threads"] == 1 and written["torch"] == torch.__version__
    for comparison, size in zip(written["comparisons"], ((28, 42), (32, 32)), strict=True):
        assert (comparison["height"], comparison["width"]) == size
        assert {side: len(times) for side, times in comparison["seconds"].items()} == {
            "transformers": 3,
            "depthseg": 3,
        }
        # The same weights: otherwise the comparison would be of two different networks.
        assert comparison["difference"] < SHARE
    assert torch.get_num_threads() == threads


def test_photometric_loss_is_compared_with_its_formulae(tmp_path, capsys):
    assert run("bench", "photometric-tiny", "--repeats", 2, "--output", tmp_path / "bench.json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert all(word in line for word in ("photometric-tiny", "16x24", "transcription", "depthseg", "ratio", "ms"))
    (comparison,) = json.loads((tmp_path / "bench.json").read_text())["comparisons"]
    assert list(comparison["seconds"]) == list(SIDES) == ["transcription", "depthseg"]
    assert comparison["difference"] < SHARE


def test_reading_is_compared_in_processor_time(tmp_path, capsys):
    assert run("bench", "reading-tiny", "--repeats", 2, "--output", tmp_path / "bench.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(word in line for line in lines for word in ("16x24", "files", "depthseg", "samples/s a core"))
    comparisons = json.loads((tmp_path / "bench.json").read_text())["comparisons"]
    names = ["reading-tiny", "reading-tiny colours", "reading-tiny on GPU"]
    assert [comparison["name"] for comparison in comparisons] == names
    assert [comparison["difference"] for comparison in comparisons] == [0, 0, 0]
    rates = comparisons[0]["samples_per_second"]
    assert rates["files"] == pytest.approx(8 / median(comparisons[0]["seconds"]["files"]))


def test_training_steps_are_those_of_a_plain_loop(tmp_path, capsys):
    assert run("bench", "training-step-tiny", "--repeats", 2, "--output", tmp_path / "bench.json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert all(word in line for word in ("training-step-tiny", "28x42", "plain loop", "depthseg", "ratio", "ms"))
    (comparison,) = json.loads((tmp_path / "bench.json").read_text())["comparisons"]
    assert comparison["difference"] < SHARE


def test_both_loops_train_alike():
    setting = Setting(**CASES["training-step-tiny"].options)
    plain, ours = PlainLoop(setting), EngineLoop(setting)
    before = plain.loss().item()
    for _ in range(5):
        plain(), ours()
    assert plain.loss().item() < before
    assert ours.loss().item() == pytest.approx(plain.loss().item(), rel=1e-4)


@pytest.mark.heavy
@pytest.mark.parametrize("what", ["loss", "prediction"])
def test_segmentation_is_compared_in_time_and_peak_memory(what, tmp_path, capsys):
    name = f"segmentation-{what}-tiny"
    assert run("bench", name, "--repeats", 2, "--output", tmp_path / "bench.json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert all(word in line for word in (name, "20x20", "depthseg", "ratio", "ms", "peak memory"))
    (comparison,) = json.loads((tmp_path / "bench.json").read_text())["comparisons"]
    assert comparison["difference"] < SHARE and list(comparison["memory"]) == list(comparison["seconds"])


@pytest.mark.heavy
def test_peak_memory_is_at_least_that_of_the_scores_at_the_size_of_the_labels():
    shape = (1, 16, 8, 512)
    theirs, ours = (lean.peak_of_process("loss", side, shape) for side in lean.SIDES["loss"])
    assert theirs >= 2 * 4 * 16 * 512**2  # the scores and their gradient
    assert ours < theirs / 2


def test_the_metric_is_compared_with_bare_histograms(capsys):
    assert run("bench", "metric-tiny", "--repeats", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["metric-tiny", "uint16", "bincount"],
        ["metric-tiny", "int64", "bincount"],
    ]
    assert all("depthseg" in line and "20x30" in line and "difference 0e+00" in line for line in lines)


def test_steps_from_files_are_compared_with_steps_that_encode_and_with_the_bound(tmp_path, capsys):
    assert run("bench", "feature-cache-tiny", "--repeats", 2, "--output", tmp_path / "bench.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines] == ["head", "labels"]
    assert all("uncached" in line and "times as fast" in line and "of the bound" in line for line in lines)
    for comparison in json.loads((tmp_path / "bench.json").read_text())["comparisons"]:
        assert comparison["difference"] < SHARE
        assert len(comparison["head_seconds"]) == 2


def test_the_bound_is_that_of_steps_of_the_head_alone():
    comparison = StepComparison("x", {"uncached": [8.0, 8.0], "depthseg": [1.0, 1.0]}, head_seconds=[0.8, 0.8])
    assert comparison.to_dict()["bound"] == pytest.approx(10) and comparison.to_dict()["faster"] == 8
    assert str(comparison).endswith("8.0 times as fast, 80% of the bound 10.0")


def test_both_alignments_find_the_same():
    (comparison,) = CASES["align-tiny"].compare("x", 2)
    assert list(comparison.seconds) == ["plain", "depthseg"] and comparison.difference < 1e-4


def test_a_wrong_loss_is_seen(monkeypatch):
    monkeypatch.setitem(SIDES, "depthseg", lambda inputs: 1.01 * SIDES["transcription"](inputs))
    (comparison,) = CASES["photometric-tiny"].compare("x", 2)
    assert comparison.difference == pytest.approx(0.01, rel=1e-3)


def test_ratio_is_the_median_of_pairs():
    seconds = {"transformers": [1.0, 2.0, 4.0], "depthseg": [1.1, 2.0, 2.0]}
    comparison = Comparison("x", seconds, 1, 2, 0.0)
    assert comparison.ratio == median([1.1, 1.0, 0.5])
    assert comparison.to_dict()["medians"] == {"transformers": 2.0, "depthseg": 2.0}
    written = comparison.to_dict()
    assert (written["ratio"], written["ratio_min"], written["ratio_max"]) == (1.0, 0.5, 1.1)
    assert "ratio 1.000 [0.50 - 1.10]" in str(comparison)
    assert "2000.0 ms [1500.0 - 3000.0]" in str(comparison) and "2000.0 ms [1550.0 - 2000.0]" in str(comparison)


def test_sides_take_turns():
    order = []
    time_in_turns({side: partial(order.append, side) for side in "ab"}, 4)
    timed = order[2 * timing.WARM_UPS :]
    assert len(timed) == 8 and {timed[0::2].count("a"), timed[1::2].count("a")} == {2}
    assert all(set(timed[i : i + 2]) == {"a", "b"} for i in range(0, 8, 2))


def test_a_difference_is_seen():
    depth = torch.tensor([1.0, 4.0])
    assert relative_difference(depth, depth) == 0
    assert relative_difference(depth, torch.tensor([1.0, 5.0])) == pytest.approx(0.25)


def test_default_cases_have_published_sizes():
    assert {"startup", "training-step", "feature-cache"} < set(DEFAULT_CASES) < set(CASES)
    assert not any(name.endswith("-tiny") for name in DEFAULT_CASES)
    with torch.device("meta"):
        model: nn.Module = BUILDERS[CASES["depth-anything-small"].options["model"]]()
    # 24.8 M is the size that its authors give for Depth-Anything-Small.
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(24.8, abs=0.05)


@pytest.mark.parametrize(("name", "millions"), [("small", 24.8), ("base", 97.5), ("large", 335.3)])
def test_networks_of_training_steps_have_published_sizes(name, millions):
    with torch.device("meta"):
        model = BUILDERS["depth_anything"](**NETWORKS[name])
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "no case nothing"),
        ([*TINY, "--repeats", "1"], "repeats is 1"),
        (["--threads", "0"], "at least 2"),
    ],
)
def test_impossible_comparisons_are_sentences(arguments, words):
    assert words in str(run("bench", *arguments))


def test_cpu_seconds_are_those_that_the_process_itself_counts():
    before = startup.cpu_seconds_of_processes()
    program = "import time\nwhile time.process_time() < 0.3: pass\ntime.sleep(0.3)"
    startup.run_python(program)
    # Neither the waiting nor what this process does is counted.
    assert 0.3 <= startup.cpu_seconds_of_processes() - before < 0.55


@pytest.mark.heavy
def test_a_command_that_fails_is_not_timed(tmp_path):
    with pytest.raises(RuntimeError, match="ended with 3, not 0"):
        startup.run_python("raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="without a step"):
        startup.first_step(str(tmp_path / "no images"))


def test_answers_and_imports_are_compared_with_what_they_cannot_do_without(monkeypatch):
    monkeypatch.setattr(timing, "WARM_UPS", 0)
    monkeypatch.setattr(startup, "first_step", lambda folder: startup.run_python("pass"))
    monkeypatch.setattr(startup, "IMPORTS", "pass")
    found = {comparison.name: comparison for comparison in CASES["startup"].compare("startup", 2)}
    assert set(found) == {f"startup {row}" for row in (*startup.ANSWERS, "import", "first step")}
    for comparison in found.values():
        assert list(comparison.seconds)[1] == "depthseg" and all(
            min(times) > 0 for times in comparison.seconds.values()
        )
        assert "difference" not in str(comparison) and "ratio" in str(comparison)
    assert list(found["startup import"].seconds) == ["transformers", "depthseg"]
    assert list(found["startup --help"].seconds) == ["bare Python", "depthseg"]


@pytest.mark.heavy
def test_a_first_step_is_reached_and_the_run_ended(tmp_path):
    startup.write_images(tmp_path)
    startup.first_step(str(tmp_path))
    assert (tmp_path / "run" / "config.yaml").is_file()
    assert not (tmp_path / "run" / "model").exists()
