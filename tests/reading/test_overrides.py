"""Options on the command line where no type is declared."""

import pytest

from depthseg.cli import main
from depthseg.data import DATASETS, DatasetEntry
from depthseg.reading import read_pairs


def test_pairs_without_types_follow_yaml_1_2():
    texts = [
        "a=no",
        "b=1e-3",
        "c=010",
        "d=[0016E5, 1]",
        "e=null",
        "f=true",
        "g=x=y",
        "h='1'",
        "a=off",
        "i.j=2",
        "i.k=",
    ]
    assert read_pairs(texts, "--option", "count=3") == {
        **{"a": "off", "b": 1e-3, "c": "010", "d": ["0016E5", 1], "e": None, "f": True, "g": "x=y", "h": "1"},
        "i": {"j": 2, "k": None},
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("count", "--option 'count' has no `=`: write `option=value`, such as `count=3`."),
        ("=3", "--option '=3' has an empty name: write `option=value`, such as `count=3`."),
        ("count=[1", "--option 'count=[1' cannot be read: "),
        ("a=@b", "--option 'a=@b' cannot be read: "),
    ],
)
def test_pairs_that_cannot_be_read(text, sentence):
    with pytest.raises(ValueError) as error:
        read_pairs([text], "--option", "count=3")
    assert str(error.value).startswith(sentence)


def test_the_options_of_evaluate_arrive_as_their_declared_types(monkeypatch):
    received = {}

    def load(root: str, split: str, *, sequences: list[str], stereo: bool, share: float, calibration: str | None):
        received.update(sequences=sequences, stereo=stereo, share=share, calibration=calibration)
        raise ValueError("seen")

    monkeypatch.setitem(DATASETS, "mine", DatasetEntry(load, ("val",), "", ""))
    command = ["evaluate", "--model", "x", "--dataset", "mine", "--root", "x", "--option", "sequences=[0016E5,16]"]
    with pytest.raises(SystemExit, match="error: seen"):
        main([*command, "--option", "stereo=on", "--option", "share=5e-1", "--option", "calibration=no"])
    assert received == {"sequences": ["0016E5", "16"], "stereo": True, "share": 0.5, "calibration": "no"}
    with pytest.raises(SystemExit, match="error: Data set 'mine': option share must be a number, got 'half'."):
        main([*command, "--option", "stereo=on", "--option", "share=half", "--option", "calibration=~"])
