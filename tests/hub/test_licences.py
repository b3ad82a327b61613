"""Which licences a checkpoint may have, decided by hand from the texts of the licences."""

import re

import pytest

from depthseg.data import DATASETS
from depthseg.hub.licences import (
    LICENCES,
    Licence,
    Source,
    check_licence,
    licence_of_data,
    licence_of_weights,
    parse_licence,
)

# From https://huggingface.co/docs/hub/repositories-licenses.
ON_THE_HUB = set(
    "apache-2.0 mit bsd-2-clause bsd-3-clause cc0-1.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-3.0 "
    "cc-by-nc-4.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 gpl-3.0 agpl-3.0 apple-amlr other".split()
)
PERMISSIVE = {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-3.0", "cc-by-4.0"}
NON_COMMERCIAL = {
    "cc-by-nc-3.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0",
    "apple-amlr",
    "monodepth2-license",
    "nvidia-segformer",
}
EVERYTHING = set(LICENCES)
# For what came from something under the key: everything that it may be published under.
ALLOWED = {
    **dict.fromkeys(PERMISSIVE, EVERYTHING - {"cc0-1.0"}),
    "cc0-1.0": EVERYTHING,
    "cc-by-sa-3.0": {"cc-by-sa-3.0", "cc-by-sa-4.0"},
    "cc-by-sa-4.0": {"cc-by-sa-4.0"},
    "cc-by-nc-3.0": NON_COMMERCIAL,
    "cc-by-nc-4.0": NON_COMMERCIAL,
    "cc-by-nc-sa-3.0": {"cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"},
    "cc-by-nc-sa-4.0": {"cc-by-nc-sa-4.0"},
    **{own: {own} for own in ("gpl-3.0", "agpl-3.0", "apple-amlr")},
    **{own: {own} for own in ("dinov3-license", "monodepth2-license", "nvidia-segformer")},
}


def weights(repo_id):
    return Source(repo_id, "weights", licence_of_weights(repo_id))


def data(name):
    return Source(name, "data", licence_of_data(name))


def under(key, name="thing"):
    return Source(name, "data", LICENCES[key])


V2_SMALL, V2_BASE = (
    weights("depth-anything/Depth-Anything-V2-Small-hf"),
    weights("depth-anything/Depth-Anything-V2-Base-hf"),
)
DINOV3 = weights("facebook/dinov3-vitb16-pretrain-lvd1689m")
CAMVID, SYNTHETIC, FOLDER = data("camvid"), data("synthetic"), data("folder")
FORK = weights("someone/Depth-Anything-V2-Small-hf")
KITTI = under("cc-by-nc-sa-3.0", "kitti")


@pytest.mark.parametrize("source", LICENCES)
def test_one_source_against_every_licence(source):
    found = {chosen: check_licence(LICENCES[chosen], [under(source)]) for chosen in LICENCES}
    assert {chosen for chosen, sentences in found.items() if not sentences} == ALLOWED[source]
    for chosen, sentences in found.items():
        assert len(sentences) <= 1
        assert all(f"data set thing is under {source}," in each and f" {chosen} " in each for each in sentences)


@pytest.mark.parametrize(
    ("chosen", "sources", "blamed"),
    [
        ("apache-2.0", [], []),
        ("mit", [SYNTHETIC], []),
        ("apache-2.0", [V2_SMALL, SYNTHETIC], []),
        ("apache-2.0", [V2_BASE, SYNTHETIC], ["Depth-Anything-V2-Base-hf"]),
        ("cc-by-nc-4.0", [V2_BASE, SYNTHETIC], []),
        ("cc-by-nc-4.0", [V2_BASE, CAMVID], []),
        ("mit", [SYNTHETIC, CAMVID], ["camvid"]),
        ("apache-2.0", [V2_BASE, CAMVID], ["Depth-Anything-V2-Base-hf", "camvid"]),
        ("apache-2.0", [DINOV3, SYNTHETIC], ["dinov3-vitb16"]),
        ("cc-by-nc-4.0", [DINOV3], ["dinov3-vitb16"]),
        ("dinov3-license", [DINOV3, SYNTHETIC], []),
        ("apache-2.0", [FOLDER], ["folder"]),
        ("cc-by-nc-4.0", [FORK, CAMVID], ["someone/Depth-Anything-V2-Small-hf"]),
        ("cc-by-nc-sa-3.0", [KITTI, CAMVID], []),
        ("cc-by-nc-sa-4.0", [KITTI, CAMVID], []),
        ("cc-by-nc-4.0", [KITTI, CAMVID], ["kitti"]),
        ("apache-2.0", [KITTI, CAMVID], ["kitti", "camvid"]),
        ("cc-by-nc-sa-4.0", [KITTI, under("cc-by-nc-sa-4.0")], []),
        ("cc-by-nc-sa-3.0", [KITTI, under("cc-by-nc-sa-4.0", "newer")], ["newer"]),
    ],
)
def test_checkpoints(chosen, sources, blamed):
    found = check_licence(LICENCES[chosen], sources)
    assert len(found) == len(blamed)
    assert all(name in sentence for name, sentence in zip(blamed, found, strict=True))
    assert not any("No licence satisfies" in sentence for sentence in found)


@pytest.mark.parametrize("chosen", LICENCES)
@pytest.mark.parametrize(
    "pair",
    [
        (DINOV3, CAMVID),  # commercial use is granted by one and forbidden by the other
        (DINOV3, weights("nvidia/mit-b0")),
        (KITTI, under("cc-by-sa-4.0", "other")),
        (KITTI, weights("apple/DepthPro-hf")),
        (under("gpl-3.0", "one"), under("agpl-3.0", "other")),
        (under("gpl-3.0", "one"), CAMVID),
    ],
    ids=lambda pair: f"{pair[0].name}+{pair[1].name}",
)
def test_pairs_that_no_licence_satisfies(pair, chosen):
    found = check_licence(LICENCES[chosen], [SYNTHETIC, *pair])
    assert [sentence for sentence in found if sentence.startswith("No licence satisfies both")] == [found[-1]]
    assert all(source.name in found[-1] and source.licence.label in found[-1] for source in pair)
    assert any(sentence != found[-1] for sentence in found)  # whatever is chosen, one of the two forbids it


def test_what_to_do_is_said():
    (unknown,) = check_licence(LICENCES["mit"], [FORK])
    assert unknown == (
        "Licences are missing: that of the checkpoint someone/Depth-Anything-V2-Small-hf (give --licence-of "
        "someone/Depth-Anything-V2-Small-hf=ID); in a file of facts they are `licence` and `licences`."
    )
    (non_commercial,) = check_licence(LICENCES["mit"], [CAMVID])
    assert non_commercial == (
        "The data set camvid is under cc-by-nc-4.0, for non-commercial use only, and mit allows commercial use; "
        "choose a non-commercial licence, such as cc-by-nc-4.0, cc-by-nc-3.0, cc-by-nc-sa-3.0 or cc-by-nc-sa-4.0."
    )
    (share_alike,) = check_licence(LICENCES["mit"], [KITTI])
    assert share_alike.endswith("choose cc-by-nc-sa-3.0 or cc-by-nc-sa-4.0.")
    (own,) = check_licence(LICENCES["mit"], [DINOV3])
    assert own.endswith("choose dinov3-license.")
    (notices,) = check_licence(LICENCES["cc0-1.0"], [V2_SMALL])
    assert notices.endswith("such as apache-2.0.")


@pytest.mark.parametrize("source", LICENCES)
def test_what_is_said_to_be_allowed_is(source):
    for chosen in EVERYTHING - ALLOWED[source]:
        (sentence,) = check_licence(LICENCES[chosen], [under(source)])
        words = {word.strip(".,") for word in sentence.partition("; choose ")[2].split()}
        assert source in words
        assert words & EVERYTHING <= ALLOWED[source]


def test_all_missing_licences_are_in_one_sentence():
    folder, video = (Source(name, "data", None) for name in ("folder", "video"))
    (sentence,) = check_licence(None, [folder, SYNTHETIC, video, FORK])
    for words in (
        "these weights (give --licence ID,",
        "data set folder (give --licence-of folder=ID)",
        "data set video (give --licence-of video=ID)",
        f"checkpoint {FORK.name} (give --licence-of {FORK.name}=ID)",
        "also trained with synthetic (apache-2.0).",
    ):
        assert words in sentence


def test_own_terms_of_the_user():
    mine = parse_licence("other:my-terms:https://example.org/terms")
    assert mine == Licence("other", "my-terms", "https://example.org/terms", commercial=False)
    source = Source("folder", "data", mine)
    assert check_licence(mine, [source, SYNTHETIC, CAMVID]) == []
    assert check_licence(parse_licence("other:My-Terms:LICENSE"), [source]) == []
    assert "my-terms" in check_licence(parse_licence("other:your-terms:LICENSE"), [source])[0]
    found = check_licence(mine, [source, DINOV3])
    assert "dinov3-license" in found[0]
    assert found[1].startswith("No licence satisfies both folder (my-terms) and facebook/dinov3")


@pytest.mark.parametrize(
    ("repo_id", "key"),
    [
        ("LiheYoung/depth-anything-large-hf", "apache-2.0"),
        ("depth-anything/Depth-Anything-V2-Small-hf", "apache-2.0"),
        ("DEPTH-anything/depth-anything-v2-small-HF", "apache-2.0"),
        ("depth-anything/Depth-Anything-V2-Base-hf", "cc-by-nc-4.0"),
        ("depth-anything/Depth-Anything-V2-Large-hf", "cc-by-nc-4.0"),
        ("depth-anything/Depth-Anything-V2-Giant", "cc-by-nc-4.0"),
        ("depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf", "apache-2.0"),
        ("depth-anything/Depth-Anything-V2-Metric-Outdoor-Base-hf", "cc-by-nc-4.0"),
        ("depth-anything/Depth-Anything-V2-Metric-Indoor-Large-hf", "cc-by-nc-4.0"),
        ("depth-anything/DA3MONO-LARGE", "apache-2.0"),
        ("depth-anything/DA3METRIC-LARGE", "apache-2.0"),
        ("depth-anything/DA3-BASE", "apache-2.0"),
        ("depth-anything/DA3-SMALL", "apache-2.0"),
        ("depth-anything/DA3-LARGE", "cc-by-nc-4.0"),
        ("depth-anything/DA3-GIANT-1.1", "cc-by-nc-4.0"),
        ("depth-anything/DA3NESTED-GIANT-LARGE-1.1", "cc-by-nc-4.0"),
        ("depth-anything/prompt-depth-anything-vits-hf", "apache-2.0"),
        ("Intel/dpt-large", "apache-2.0"),
        ("Intel/dpt-hybrid-midas", "apache-2.0"),
        ("Intel/dpt-beit-large-512", "mit"),
        ("Intel/dpt-swinv2-tiny-256", "mit"),
        ("Intel/zoedepth-nyu-kitti", "mit"),
        ("apple/DepthPro-hf", "apple-amlr"),
        ("vinvino02/glpn-kitti", "apache-2.0"),
        ("facebook/dinov2-base", "apache-2.0"),
        ("facebook/dinov3-convnext-tiny-pretrain-lvd1689m", "dinov3-license"),
        ("facebook/deit-base-distilled-patch16-224", "apache-2.0"),
        ("facebook/convnext-tiny-224", "apache-2.0"),
        ("facebook/convnext-base-384-22k-1k", "apache-2.0"),
        ("facebook/convnextv2-tiny-1k-224", "cc-by-nc-4.0"),
        ("facebook/vit-mae-base", "cc-by-nc-4.0"),
        ("google/vit-base-patch16-224-in21k", "apache-2.0"),
        ("microsoft/swin-tiny-patch4-window7-224", "apache-2.0"),
        ("microsoft/swinv2-large-patch4-window12to24-192to384-22kto1k-ft", "apache-2.0"),
        ("microsoft/beit-base-patch16-224-pt22k", "apache-2.0"),
        ("microsoft/resnet-18", "apache-2.0"),
        ("nvidia/mit-b0", "nvidia-segformer"),
        ("nvidia/segformer-b5-finetuned-ade-640-640", "nvidia-segformer"),
        # Layouts of published files.
        ("depth-anything-1", "apache-2.0"),
        ("depth-anything-2", None),  # depends on the size
        ("depth-anything-3", "apache-2.0"),
        ("dinov3", "dinov3-license"),
        # Other owners, other models of the same owners, and what no repository is.
        ("depth-anything/DA3-TINY", None),
        ("someone/Depth-Anything-V2-Small-hf", None),
        ("someone/depth-anything/Depth-Anything-V2-Small-hf", None),
        ("depth-anything/Depth-Anything-V2-Small-hf/copy", None),
        ("depth-anything/Depth-Anything-V2-Small-hf-tuned", None),
        ("depth-anything/Depth-Anything-V2-Small-hf\n", None),
        ("depth-anything/prompt-depth-anything-vitl-hf", None),
        ("depth-anything2/Depth-Anything-V2-Small-hf", None),
        ("not-facebook/dinov3-vitb16-pretrain-lvd1689m", None),
        ("facebook/dinov2-with-registers-base", None),
        ("Depth-Anything-V2-Small-hf", None),
        ("dpt-large", None),
        ("runs/model", None),
        ("", None),
    ],
)
def test_weights(repo_id, key):
    assert licence_of_weights(repo_id) == (LICENCES[key] if key else None)


@pytest.mark.parametrize("name", [*DATASETS, "unnamed"])
def test_data(name):
    """What the table of data sets tells people is what decides; terms without a name on the Hub are unknown."""
    terms = DATASETS[name].licence if name in DATASETS else "yours"
    licence = licence_of_data(name)
    if terms == "yours" or not re.match(r"cc[ -]|apache", terms.lower()):
        assert licence is None
    else:
        assert licence is not None, (
            f"{name}: {terms} has an id on the Hub; give it as `licence_id` of its row of DATASETS"
        )
        assert terms.lower().replace(" ", "-").startswith(licence.id)


def test_table():
    assert set(ALLOWED) == EVERYTHING
    assert {licence.id for licence in LICENCES.values()} == ON_THE_HUB
    for key, licence in LICENCES.items():
        assert key == key.lower() == licence.label
        assert bool(licence.name) == bool(licence.link) == (licence.id == "other")


@pytest.mark.parametrize("key", LICENCES)
def test_reading_what_was_written(key):
    licence = LICENCES[key]
    assert parse_licence(key) == parse_licence(f"  {key.upper()} ") == licence
    if licence.id == "other":
        assert parse_licence(f"other:{licence.name}:{licence.link}") == licence


def test_a_known_name_keeps_its_rules():
    assert parse_licence("other:DINOv3-license:LICENSE.md") == Licence("other", "dinov3-license", "LICENSE.md")
    assert parse_licence("other:MIT:LICENSE") == LICENCES["mit"]  # not non-commercial by being called own terms


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("apachy-2.0", r"Unknown licence: 'apachy-2.0'. Did you mean 'apache-2.0'\?"),
        ("cc-by-nc-5.0", r"Did you mean 'cc-by-nc-4.0'"),
        ("dinov3", r"Did you mean 'dinov3-license'\?"),
        (
            "quite new",
            r"Unknown licence: 'quite new'. Known licences: apache-2.0, mit, .*nvidia-segformer. .*other:NAME:LINK",
        ),
        ("", "Unknown licence: ''"),
        ("unknown", "Unknown licence"),
        ("mit:LICENSE", "Unknown licence: 'mit:LICENSE'"),
        ("other", "'other' lacks a name or a link; write other:NAME:LINK"),
        ("other:my-terms", "lacks a name or a link"),
        ("other:my-terms: ", "lacks a name or a link"),
        ("other::https://example.org", "lacks a name or a link"),
    ],
)
def test_what_is_no_licence(text, words):
    with pytest.raises(ValueError, match=words):
        parse_licence(text)
