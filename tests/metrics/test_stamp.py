"""Stamps of scores: equal where the score is computed alike, and never ranked together where it is not."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace

import pytest

from depthseg.data import LABEL_SPACES
from depthseg.metrics.stamp import Stamp, check_same_stamps, differences, file_ids_of, label_space_hash

PLAIN = Stamp("0" * 12)
CHANGED = {
    "label_space": "1" * 12,
    "ignore_id": None,
    "resolution": "192x640",
    "window": (512, 1024),
    "stride": (256, 512),
    "scales": (0.5, 1.0),
    "flip": True,
    "reduction": "mean over images of per-image IoU",
    "image_interpolation": "bicubic",
    "logit_interpolation": "nearest",
    "label_interpolation": "nearest",
    "absent_classes": "count as 0",
    "corruption": "fog:2",
}


def test_every_part_is_tried():
    assert set(CHANGED) == {part.name for part in fields(Stamp)}


@pytest.mark.parametrize("name", CHANGED)
def test_each_part_changes_the_digest_and_is_named_where_it_differs(name):
    other = replace(PLAIN, **{name: CHANGED[name]})
    assert other.digest != PLAIN.digest and re.fullmatch("[0-9a-f]{12}", other.digest)
    assert [text.split(" (")[0] for text in differences(PLAIN, other)] == [name.replace("_", " ")]
    with pytest.raises(ValueError, match=f"scores of a and c cannot be compared.* differ in {name.replace('_', ' ')}"):
        check_same_stamps({"a": PLAIN, "b": replace(PLAIN), "c": other.to_dict()})


def test_stamps_survive_json():
    stamp = Stamp(**CHANGED)
    written = json.loads(json.dumps(stamp.to_dict()))
    assert Stamp.from_dict(written) == stamp and written["digest"] == stamp.digest
    with pytest.raises(ValueError, match="was changed: its digest is"):
        Stamp.from_dict(written | {"flip": False})
    with pytest.raises(ValueError, match="lacks or does not know colour, flip"):
        Stamp.from_dict({name: value for name, value in written.items() if name != "flip"} | {"colour": 1})


def test_the_stamp_of_clear_images_is_that_of_versions_without_corruptions():
    assert PLAIN.digest == "d472ec0bf460" and "corruption" not in PLAIN.to_dict()
    assert Stamp.from_dict(PLAIN.to_dict()) == PLAIN


def test_scores_without_a_stamp_are_compared_as_before():
    check_same_stamps({})
    check_same_stamps({"old": None, "new": PLAIN, "older": None})


def test_the_hash_of_a_label_space_tells_names_ids_and_encodings_apart():
    space = LABEL_SPACES["cityscapes19"]
    files = file_ids_of(space)
    assert files[7] == 0 and files[33] == 18 and files[0] == 255
    hashes = {
        label_space_hash(space.id2label),
        label_space_hash(space.id2label, files),
        label_space_hash(space.id2label, files | {4: 0}),
        label_space_hash(space.id2label | {0: "street"}, files),
        label_space_hash({index + 1: name for index, name in space.id2label.items()}, files),
    }
    assert len(hashes) == 5
    assert label_space_hash(dict(reversed(space.id2label.items())), files) in hashes
    assert file_ids_of(replace(space, name="mine")) is None


def test_a_stamp_in_words():
    assert str(PLAIN) == (
        f"stamp {PLAIN.digest}: label space 000000000000; id 255 ignored; compared at own size; whole image, "
        "scales 1, no flip; one matrix over the data set; image the model's own, logits bilinear, labels none; "
        "absent classes excluded where neither labelled nor predicted"
    )
    assert "windows of 512x1024 every 256x512, scales 0.5, 1, with flip" in str(Stamp(**CHANGED))
    assert str(Stamp(**CHANGED)).endswith("; images corrupted by fog:2")
