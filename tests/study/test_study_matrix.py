"""From a file to trials."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import pytest
from study.tiny_study import TEXT, tiny_study

from depthseg.engine.options import OptimOptions, RunConfig
from depthseg.study.matrix import main_trials, make_trial, pretraining_trials, rate_trials, shard_of
from depthseg.study.options import load_study
from depthseg.study.places import is_about, places_of
from depthseg.study.runner import keys_of, save_study, trials_in_order
from depthseg.study.stored import LABELS, config_of, read_records
from depthseg.study.trials import command_of

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
RESULTS = Path(__file__).parents[2] / "training" / "studies" / "results"


def trials_of(study):
    return list(trials_in_order(study, Path("nowhere")))


def test_every_place_of_the_matrix_is_there_once(tmp_path):
    trials = trials_of(tiny_study(tmp_path))
    # 2 pre-trained initialisations; 3 x 2 rates; 3 x 2 numbers of labels x 2 seeds.
    assert [sum(c.kind == "pretrain" for c in trials), sum(c.labels.get("role") == "rate" for c in trials)] == [2, 6]
    assert sum(c.labels.get("role") == "main" for c in trials) == 12
    assert len({trial.key for trial in trials}) == len(trials) == 20


def test_trials_are_the_runs_that_the_file_describes(tmp_path):
    trials = trials_of(tiny_study(tmp_path))
    parents = {trial.key: trial for trial in trials}
    for trial in trials:
        config, labels = trial.config, trial.labels
        assert config.model.encoder["width_factor"] == 0.125
        assert config.data.options == {"size": [32, 64]}
        if trial.kind == "pretrain":
            assert (config.task, trial.parent is None) == ("depth", labels["initialisation"] == "depth")
            continue
        assert config.task == "segmentation" and config.model.freeze_encoder
        assert (config.data.subset_size, config.optim.lr) == (labels["num_labelled"], labels["lr"])
        assert config.data.val_split == ("val" if labels["role"] == "rate" else "test")
        assert (trial.parent is None) == (labels["initialisation"] == "none")
        if trial.parent:
            assert parents[trial.parent].labels["initialisation"] == labels["initialisation"]
    assert (
        parents[[c for c in trials if c.labels["initialisation"] == "deeper"][0].parent].labels["initialisation"]
        == "depth"
    )


def test_seeds_are_the_same_in_all_initialisations_and_others_than_those_that_chose_the_rate(tmp_path):
    study = tiny_study(tmp_path, "seeds.pretrain=2")
    seeds = {}
    for trial in trials_of(study):
        if trial.kind == "finetune":
            assert trial.config.run.seed == trial.config.data.subset_seed
            seeds.setdefault((trial.labels["role"], trial.labels["initialisation"]), set()).add(trial.config.run.seed)
    assert {frozenset(found) for (role, _), found in seeds.items() if role == "main"} == {
        frozenset({0, 1, 1000, 1001})
    }
    assert all(found.isdisjoint({0, 1, 1000, 1001}) for (role, _), found in seeds.items() if role == "rate")


def test_draws_are_the_same_in_every_initialisation_and_of_pretraining_d_modulo_their_number(tmp_path):
    study = tiny_study(tmp_path, "seeds.pretrain=2", "seeds.draws=5")
    keys = keys_of(pretraining_trials(study))
    seen = {}
    for trial in trials_of(study):
        labels, run = trial.labels, trial.config
        if labels.get("role") == "main":
            draw = labels["finetune_seed"]
            assert labels["pretrain_seed"] == draw % 2 and run.run.seed == run.data.subset_seed == draw
            assert trial.parent == keys.get(("eighth", labels["initialisation"], draw % 2))
            seen.setdefault((labels["initialisation"], labels["num_labelled"]), []).append(draw)
        elif labels.get("role") == "rate":
            assert run.run.seed >= 5
    assert len(seen) == 6 and all(sorted(draws) == [0, 1, 2, 3, 4] for draws in seen.values())


def test_keys_tell_runs_apart_by_what_their_numbers_depend_on(tmp_path):
    study = tiny_study(tmp_path)
    keys = [trial.key for trial in trials_of(study)]
    (tmp_path / "elsewhere").mkdir()
    assert [trial.key for trial in trials_of(tiny_study(tmp_path / "elsewhere"))] == keys
    longer = [trial.key for trial in trials_of(tiny_study(tmp_path, "finetune.schedule.steps=3"))]
    assert longer[:2] == keys[:2] and not set(longer[2:]) & set(keys)
    # What a pre-training does changes the fine-tunings of it, too, and no others.
    other = tiny_study(tmp_path, "initialisations.deeper.pretrain.schedule.steps=3")
    changed = {trial.labels["initialisation"] for trial in trials_of(other) if trial.key not in keys}
    assert changed == {"deeper"}


def test_a_new_option_with_a_default_keeps_all_keys(tmp_path):
    @dataclass
    class MoreOptim(OptimOptions):
        foreach: bool = False

    @dataclass
    class MoreOptions(RunConfig):
        optim: MoreOptim = field(default_factory=MoreOptim)

    for trial in trials_of(tiny_study(tmp_path)):
        values = {part.name: getattr(trial.config, part.name) for part in fields(RunConfig)}
        grown = MoreOptions(**{**values, "optim": MoreOptim(**asdict(trial.config.optim))})
        assert make_trial(trial.kind, trial.labels, grown, trial.parent).key == trial.key
        other = replace(grown, optim=replace(grown.optim, foreach=True))
        assert make_trial(trial.kind, trial.labels, other, trial.parent).key != trial.key


@pytest.mark.parametrize("name", ["world", "camvid"])
def test_finished_runs_have_the_keys_that_their_options_give(name):
    records = list(read_records(RESULTS / name / "trials"))
    assert len({record["key"] for record in records}) == len(records) > 200
    for record in records[::20]:
        labels = {label: record[label] for label in LABELS[record["kind"]]}
        made = make_trial(record["kind"], labels, config_of(record), record["parent_key"])
        assert made.key == record["key"] == record.path.stem


def test_a_rate_other_than_the_fixed_one_adds_the_runs_at_the_fixed_one(tmp_path):
    study = tiny_study(tmp_path)
    pretrained = keys_of(pretraining_trials(study))
    trials = main_trials(study, pretrained, {("eighth", "depth", "frozen"): 0.003})
    found = {(c.labels["initialisation"], c.labels["role"], c.labels["lr"]) for c in trials}
    assert found == {
        ("none", "main", 0.001),
        ("deeper", "main", 0.001),
        ("depth", "main", 0.003),
        ("depth", "fixed", 0.001),
    }


def test_shards_share_the_initialisations_out_and_keep_together_what_belongs_together(tmp_path):
    study = tiny_study(tmp_path)
    shards = [shard_of(study, index, 2) for index in (1, 2)]
    assert sorted(shards[0] | shards[1]) == [("eighth", init) for init in ("deeper", "depth", "none")]
    assert not shards[0] & shards[1]
    assert any({("eighth", "depth"), ("eighth", "deeper")} <= shard for shard in shards)
    with pytest.raises(ValueError, match="--shard 3/2 does not exist; write 1/2 to 2/2"):
        shard_of(study, 3, 2)


def test_a_scale_changes_what_it_names(tmp_path):
    study = tiny_study(tmp_path, scale="smaller")
    assert (study.scale, study.benchmarks["world"].num_labelled, study.seeds.finetune) == ("smaller", [2], 2)
    assert list(study.benchmarks["world"].folds) == ["test"]
    assert rate_trials(study, {}) == []


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        (TEXT, ["seeds.finetune=0"], "seeds.finetune must be a whole number of at least 1, got 0"),
        (
            TEXT,
            ["initialisations.deeper.after=none"],
            "initialisations.deeper.after is 'none'; it must be an initialisation with pretrain, checkpoint or after",
        ),
        (
            TEXT,
            ["initialisations.depth.checkpoint=org/model"],
            "initialisations.depth has both checkpoint and pretrain: give one",
        ),
        (
            TEXT,
            ["reference=nobody"],
            "reference refers to 'nobody', which is not an initialisation; initialisations are none, depth, deeper",
        ),
        (
            TEXT,
            ["comparisons=[[none,depth,deeper]]"],
            r"comparisons\[0\] must be a pair of initialisations such as \[depth, none\], got \['none', 'depth'",
        ),
        (
            TEXT.replace("data: {{data: {{val_split: val}}}}", "data: {{}}"),
            [],
            "rates must not be chosen on the test images of the study",
        ),
        (
            TEXT,
            ["claims=[{better: depth, than: nobody}]"],
            "claims refers to 'nobody', which is not an initialisation",
        ),
        (
            TEXT,
            ["claims=[{better: depth, than: none, mode: full}]"],
            "claims refers to the mode 'full'; modes are frozen",
        ),
        (
            TEXT,
            ["claims=[{better: depth, than: none, benchmark: moon}]"],
            "claims refers to the benchmark 'moon'; benchmarks are world",
        ),
        (
            TEXT,
            ["claims=[{better: depth, than: none, num_labelled: 5}]"],
            "claims refers to 5 labelled images; benchmarks have 2, 3",
        ),
        (
            TEXT,
            [
                "claims=[{better: depth, than: none, primary: true}, {better: deeper, than: none, primary: true}, "
                "{better: deeper, than: depth, primary: true}]"
            ],
            r"The primary claims are 6 comparisons \(depth against none: 2; deeper against none: 2; deeper against "
            r"depth: 2\), at most 5 are allowed",
        ),
        (TEXT, ["seeds.pretrain=3", "seeds.draws=2"], "seeds.draws is 2: give at least seeds.pretrain"),
        (TEXT, ["seeds.draws=501"], "seeds.draws is 501: .* at most 500"),
        (TEXT, ["pilot.sd_draws=-1"], "pilot.sd_draws must be a finite number of at least 0"),
        (TEXT, ["measures=[beauty]"], "There is no measure beauty. There are iou_by_depth, recall_by_scale"),
        (TEXT, ["num_labelled=3"], "'num_labelled'"),
        ("initialisations: [", [], "tiny.yaml is not a YAML file that can be read: line 1: "),
        (TEXT, ["initialisation.depth=null"], "'initialisation'. Did you mean 'initialisations'"),
        (
            TEXT,
            ["initialisations.depth.titel=x"],
            "'initialisations.depth.titel'. Did you mean 'initialisations.depth.title'",
        ),
        (
            TEXT,
            ["initialisations.depth.pretrain.optim.lear=1"],
            "'initialisations.depth.pretrain.optim.lear'. Did you mean",
        ),
        (TEXT, ["seeds.finetune=many"], "seeds.finetune must be a whole number of at least 1, got 'many'"),
        (TEXT, ["seeds.finetune=${seeds.pretrain}"], "seeds.finetune must be a whole number of at least 1, got '"),
        (TEXT, ["benchmarks.world=8"], "'benchmarks.world' is a section with options of its own, got 8"),
        (TEXT, ["finetune.data.subset_size=null"], r"data.subset_size must be .*\(0 = all images\), got null"),
        (TEXT.replace("steps: 2", "steps: two"), [], r"tiny.yaml, line \d+: pretrain.schedule.steps must be .*'two'"),
        (TEXT.replace("block_length: 2", "name: twice"), [], r"tiny.yaml, line \d+: 'name' is there twice; line 2"),
        (TEXT, ["rates.fixed"], "has no `=`: write `section.option=value`, such as `seeds.finetune=6`"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, overrides, words):
    with pytest.raises(ValueError, match=words):
        tiny_study(tmp_path, *overrides, text=text)


def test_claims_are_narrowed_down_to_their_settings_and_dropped_with_what_they_are_about(tmp_path):
    claims = "claims=[{better: depth, than: none, num_labelled: 3, primary: true}, {better: deeper, than: depth}]"
    study = tiny_study(tmp_path, claims)
    place = {"architecture": "eighth", "mode": "frozen", "benchmark": "world"}
    assert places_of(vars(study.claims[0]), study) == [place | {"num_labelled": 3}]
    assert places_of(vars(study.claims[1]), study) == [place | {"num_labelled": 2}, place | {"num_labelled": 3}]
    assert is_about({"mode": "", "num_labelled": 0}, place | {"num_labelled": 0})
    assert not is_about({"mode": "", "num_labelled": 0}, place | {"num_labelled": 8})
    assert len(tiny_study(tmp_path, claims, "initialisations.deeper=null").claims) == 1
    # a smaller scale has no 3 labels: its claim is not tested, and that is no mistake
    (tmp_path / "small").mkdir()
    small = tiny_study(tmp_path / "small", claims, scale="smaller")
    assert len(small.claims) == 2 and places_of(vars(small.claims[0]), small) == []


def test_the_options_of_runs_inside_a_study_are_read_as_their_types(tmp_path):
    study = tiny_study(
        tmp_path,
        "finetune.run.precision=no",
        "finetune.run.report=off",
        "finetune.optim.lr=1e-3",
        "finetune.schedule.steps=1e1",
        "finetune.data.root=1e3",
        "finetune.data.train_options.exclude_sequences=[0016E5, 0006R0]",
        "benchmarks.world.num_labelled=[02, 1e1]",
        "initialisations.off={title: 010, checkpoint: no}",
        "initialisations.none.revision=1e5",
    )
    assert study.finetune["run"] | study.finetune["optim"] == {
        **{"trackers": [], "cpu": True, "select": "last", "eval_every": 1, "precision": "no", "report": False},
        **{"batch_size": 2, "lr": 1e-3},
    }
    assert (study.finetune["schedule"], study.finetune["data"]["root"]) == ({"steps": 10}, "1e3")
    assert study.finetune["data"]["train_options"] == {"count": 4, "exclude_sequences": ["0016E5", "0006R0"]}
    assert study.benchmarks["world"].num_labelled == [2, 10]
    assert (study.initialisations["off"].title, study.initialisations["off"].checkpoint) == ("010", "no")
    assert study.initialisations["none"].revision == "1e5"


def test_a_saved_study_reads_back_to_the_same_values(tmp_path):
    study = tiny_study(tmp_path, "initialisations.no={title: 'null', checkpoint: 1e-3}", "summary=0016E5")
    save_study(study, tmp_path)
    assert load_study(str(tmp_path / "study.yaml")) == study


def test_the_command_of_a_record_runs_the_study_that_was_run(tmp_path):
    assert command_of(load_study("world")) == "depthseg study world"
    assert command_of(load_study("world", "smoke")) == "depthseg study world --scale smoke"
    for changed in (load_study("world", "smoke", ["seeds.draws=3"]), tiny_study(tmp_path)):
        assert command_of(changed) == "depthseg study study.yaml"


def test_an_unknown_study_or_scale_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no study 'wolrd'. Did you mean 'world'"):
        load_study("wolrd")
    with pytest.raises(ValueError, match="has no scale 'huge'; it has full, smaller"):
        tiny_study(tmp_path, scale="huge")


def test_a_study_may_add_an_initialisation_to_another_and_leave_some_out(tmp_path):
    """One entry, and the trials of the others keep their keys, so none of them runs again."""
    whole = tiny_study(tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "base: tiny.yaml\nname: mine\narms: {mine: {checkpoint: me/weights}, deeper: null}\nreference: depth\n"
    )
    study = load_study(str(tmp_path / "mine.yaml"))
    assert (study.name, study.reference, list(study.initialisations)) == ("mine", "depth", ["none", "depth", "mine"])
    trials, before = trials_of(study), {trial.key for trial in trials_of(whole)}
    assert {trial.labels["initialisation"] for trial in trials if trial.key not in before} == {"mine"}
    assert {trial.labels["initialisation"] for trial in trials if trial.key in before} == {"none", "depth"}
    # What a scale changes of an entry does not bring it back.
    scaled = "base: tiny.yaml\nname: small\ninitialisations: {deeper: null}\n"
    scaled += "scales: {smaller: {initialisations: {deeper: {pretrain: {schedule: {steps: 1}}}, more: {title: m}}}}\n"
    (tmp_path / "small.yaml").write_text(scaled)
    assert list(load_study(str(tmp_path / "small.yaml"), "smaller").initialisations) == ["none", "depth", "more"]
    (tmp_path / "of_the_package.yaml").write_text("base: world\nname: ours\nmodes: {frozen: null}\n")
    ours = load_study(str(tmp_path / "of_the_package.yaml"))
    assert ours.name == "ours" and ours.initialisations == load_study("world").initialisations
    assert list(ours.modes) == ["full"]
    assert ours.claims == [claim for claim in load_study("world").claims if claim.mode != "frozen"] != []


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("base: ours.yaml\n", ValueError, "ours.yaml is its own base, by way of"),
        ("base: wrold\n", FileNotFoundError, "There is no study 'wrold'. Did you mean 'world'"),
        ("- initialisations\n", ValueError, "ours.yaml must hold options such as `name: mine`"),
    ],
)
def test_a_base_that_does_not_work(tmp_path, text, error, words):
    (tmp_path / "ours.yaml").write_text(text)
    with pytest.raises(error, match=words):
        load_study(str(tmp_path / "ours.yaml"))


def test_another_decoder_or_data_set_drops_the_options_of_the_one_below(tmp_path):
    """In the layers of a study, and where its sections become a run."""
    head = "architectures.eighth.model.head_type"
    first = tiny_study(
        tmp_path, f"{head}=monodepth2", text=TEXT.replace("head_config", "head_type: dpt\n      head_config")
    )
    assert "head_config" not in first.architectures["eighth"]["model"]
    same = tiny_study(tmp_path, f"{head}=dpt", text=TEXT.replace("head_config", "head_type: dpt\n      head_config"))
    assert same.architectures["eighth"]["model"]["head_config"] == {"decoder_channels": [8, 8, 8, 16, 16]}
    assert "options" not in tiny_study(tmp_path, "finetune.data.name=folder").finetune["data"]
    assert tiny_study(tmp_path, "finetune.data.options={}").finetune["data"]["options"] == {}
    study = tiny_study(tmp_path, f"{head}=monodepth2", "modes.frozen.model.head_type=linear")
    heads = {trial.config.model.head_type: trial.config.model.head_config for trial in trials_of(study)}
    assert heads == {"monodepth2": {"decoder_channels": [8, 8, 8, 16, 16]}, "linear": None}
