import pytest

from depthseg.data import DATASETS, load_dataset


def test_the_table_is_complete():
    assert set(DATASETS) == {"camvid", "folder", "stereo", "synthetic", "synthetic_crops", "video"}
    for entry in DATASETS.values():
        assert entry.splits
        assert entry.summary
        assert entry.terms


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("camvit", "train", {}), "Unknown data set: 'camvit'. Did you mean 'camvid'"),
        (("camvid", "trian", {}), "Unknown split of data set 'camvid': 'trian'. Did you mean 'train'"),
        (("camvid", "train", {"exclude_sequence": 1}), "'exclude_sequence'. Did you mean 'exclude_sequences'"),
        (("folder", "test", {}), "Unknown split of data set 'folder': 'test'.* Known: train, val, all"),
        (("synthetic", "train", {"count": 3, "sise": 1}), "Unknown option of data set 'synthetic': 'sise'"),
        (("synthetic", "train", {"size": (2, 3)}), "'synthetic' needs the option 'count'"),
        (("x", "train", {}), "Unknown data set: 'x'. Known: camvid, folder, synthetic"),
    ],
)
def test_unknown_names_are_answered_with_known_ones(call, message):
    name, split, options = call
    with pytest.raises(ValueError, match=message):
        load_dataset(name, "root", split, **options)


def test_options_reach_the_data_set(tmp_path):
    with pytest.raises(ValueError, match="val_fraction=2"):
        load_dataset("folder", tmp_path, "train", val_fraction=2)
