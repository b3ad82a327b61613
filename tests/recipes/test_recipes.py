"""Recipes by name: from any folder, listed, printed, copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from depthseg.cli import main
from depthseg.engine.config import load_config
from depthseg.recipes import config_path, find_recipe, recipes

FILES = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.yaml"))
NAMES = [path.stem for path in FILES]


def run(*words: object) -> object:
    with pytest.raises(SystemExit) as exit_info:
        main([str(word) for word in words])
    return exit_info.value.code


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_file_is_a_recipe():
    assert FILES and {recipe.path.resolve() for recipe in recipes().values()} == set(FILES)
    assert list(recipes()) == sorted(NAMES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_the_same_by_name_by_path_and_as_a_copy(path, tmp_path):
    expected = load_config(path)
    assert load_config(path.stem) == expected
    assert find_recipe(path.stem).task == expected.task
    assert run("recipes", path.stem, "--copy-to", tmp_path / "mine.yaml") is None
    assert load_config(tmp_path / "mine.yaml") == expected
    # Comments are what a copy is for: a recipe explains itself.
    assert (tmp_path / "mine.yaml").read_text().count("#") == path.read_text().count("#")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_first_line_says_what_a_recipe_is_for(path):
    summary = find_recipe(path.stem).summary
    assert path.read_text().startswith(f"# {summary}\n")
    assert 30 < len(summary) < 100 and summary[0].isupper() and summary.endswith(".")


HUB_IDS = {"LiheYoung/depth-anything-large-hf"}
"""Checkpoints that recipes initialise from, which are no paths."""


def test_paths_of_recipes_begin_in_the_current_folder():
    for name in NAMES:
        config = load_config(name)
        pretrained = config.model.pretrained or ""
        is_hub_id = pretrained.count("/") == 1 and not pretrained.startswith(("data/", "runs/"))
        places = [config.data.root, config.data.video, config.run.output_dir, "" if is_hub_id else pretrained]
        for place in filter(None, places):
            if place in HUB_IDS:
                continue
            assert Path(place).parts[0] in ("data", "runs"), f"{name}: {place}"


def test_the_list_has_one_line_a_recipe(capsys):
    assert run("recipes") is None
    lines, _, rest = capsys.readouterr().out.partition("\n\n")
    lines = lines.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, load_config(name).task] for name in NAMES]
    assert all(line.endswith(find_recipe(line.split()[0]).summary) for line in lines)
    assert "depthseg finetune --config NAME" in rest


def test_one_is_printed_as_it_would_be_copied(capsys):
    assert run("recipes", "pretrain_video_mono", "--copy-to", "sub/mine.yaml") is None
    assert "sub/mine.yaml" in capsys.readouterr().out
    assert run("recipes", "pretrain_video_mono") is None
    printed = capsys.readouterr().out
    assert printed == Path("sub/mine.yaml").read_text() and "base: pretrain_synthetic_mono\n" in printed


def test_nothing_is_overwritten():
    Path("mine.yaml").write_text("task: depth\n")
    assert "mine.yaml exists already" in run("recipes", "pretrain_folder", "--copy-to", "mine.yaml")
    assert Path("mine.yaml").read_text() == "task: depth\n"
    assert "needs the NAME" in run("recipes", "--copy-to", "other.yaml")
    assert not Path("other.yaml").exists()


def test_a_file_comes_before_a_recipe_and_bases_may_be_files_or_recipes():
    Path("sub").mkdir()
    Path("sub/below.yaml").write_text("base: pretrain_synthetic_supervised\nschedule: {steps: 777}\n")
    Path("mine.yaml").write_text("base: sub/below.yaml\noptim: {lr: 0.5}\n")
    config = load_config("mine.yaml")
    assert (config.task, config.schedule.steps, config.optim.lr) == ("depth", 777, 0.5)
    Path("pretrain_folder").write_text("base: sub/below.yaml\n")
    assert load_config("pretrain_folder").schedule.steps == 777
    # Of a base, relative paths begin at the file that names it.
    Path("sub/beside.yaml").write_text("base: below.yaml\n")
    assert load_config("sub/beside.yaml").schedule.steps == 777
    assert config_path("below.yaml", "sub") == Path("sub/below.yaml")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            "camvid_fewshot",
            ["no recipe 'camvid_fewshot'", "Did you mean 'camvid_fewshot_resnet18'?"],
        ),
        ("zzz", ["no recipe 'zzz'", "`depthseg recipes`"]),
        ("camvid_fewshot_resnet18.yaml", ["no configuration file", "by their name alone: camvid_fewshot_resnet18."]),
        (
            "training/configs/camvid_fewshot_resnet18.yaml",
            ["no configuration file training/configs", "by their name alone: camvid_fewshot_resnet18."],
        ),
        ("mine.yml", ["no configuration file mine.yml."]),
    ],
)
def test_an_unknown_name_is_a_sentence(config, said):
    error = run("finetune", "--config", config)
    assert all(words in error for words in said) and "\n" not in error


def test_an_unknown_base_is_a_sentence():
    Path("mine.yaml").write_text("base: pretrain_synthetic_superwised\n")
    assert "Did you mean 'pretrain_synthetic_supervised'?" in run("pretrain", "--config", "mine.yaml")
    assert "Did you mean 'pretrain_folder'?" in run("recipes", "pretrain_foldr")
