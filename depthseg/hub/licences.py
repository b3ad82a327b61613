"""Which licence a checkpoint may be published under, given the data and weights that it was trained with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from ..choices import did_you_mean
from ..data import DATASETS

OTHER = "other"
"""The Hub's identifier of every licence that has no identifier of its own."""

PUBLIC_DOMAIN = "cc0-1.0"


@dataclass(frozen=True)
class Licence:
    """A licence, with the properties that decide which licences are compatible.

    Attributes:
        id: Identifier on the Hub, such as `cc-by-nc-4.0`; `other` for a custom licence.
        name: Name of a custom licence, the `license_name` of a card; empty for all others.
        link: Link to a custom licence, the `license_link` of a card.
        commercial: Whether commercial use is allowed.
        share_alike: Whether derived works must keep the licence. A custom licence is always treated so, because only
            its owner can say which other licence would be compatible.
    """

    id: str
    name: str = ""
    link: str = ""
    commercial: bool = True
    share_alike: bool = False

    @property
    def label(self) -> str:
        """Its usual name."""
        return self.name or self.id

    @property
    def text(self) -> str:
        """Its form for `parse_licence`."""
        return f"{OTHER}:{self.name}:{self.link}" if self.id == OTHER else self.id


@dataclass(frozen=True)
class Source:
    """Data or weights that a checkpoint was trained with.

    Attributes:
        name: Repository of the weights, or name of the data set.
        kind: `weights` or `data`.
        licence: Its licence; None = unknown.
    """

    name: str
    kind: str
    licence: Licence | None


# Identifiers: https://huggingface.co/docs/hub/repositories-licenses. Only licences with known conditions are here.
LICENCES: dict[str, Licence] = {
    licence.label: licence
    for licence in (
        Licence("apache-2.0"),
        Licence("mit"),
        Licence("bsd-2-clause"),
        Licence("bsd-3-clause"),
        Licence(PUBLIC_DOMAIN),
        Licence("cc-by-3.0"),
        Licence("cc-by-4.0"),
        Licence("cc-by-sa-3.0", share_alike=True),
        Licence("cc-by-sa-4.0", share_alike=True),
        Licence("cc-by-nc-3.0", commercial=False),
        Licence("cc-by-nc-4.0", commercial=False),
        Licence("cc-by-nc-sa-3.0", commercial=False, share_alike=True),
        Licence("cc-by-nc-sa-4.0", commercial=False, share_alike=True),
        Licence("gpl-3.0", share_alike=True),
        Licence("agpl-3.0", share_alike=True),
        # Research only, also for derived models, which must include a copy of it.
        Licence("apple-amlr", commercial=False, share_alike=True),
        # Commercial use is allowed, but derived models must keep the licence (1.b.i).
        Licence(OTHER, "dinov3-license", "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"),
        # Derived works only under the same licence (3.3).
        Licence(
            OTHER,
            "monodepth2-license",
            "https://github.com/nianticlabs/monodepth2/blob/master/LICENSE",
            commercial=False,
        ),
        # Research and evaluation only, also for derived works (3.3).
        Licence(
            OTHER, "nvidia-segformer", "https://github.com/NVlabs/SegFormer/blob/master/LICENSE", commercial=False
        ),
    )
}
"""Every licence with known conditions, by identifier or, for a custom licence, by name."""

# Weights of the Hub, as stated on their cards, and layouts of published files. The owner is part of every pattern of
# the Hub, so that a copy under another name is not taken for the original. If the authors' own repository is stricter
# than the card, the repository counts.
_WEIGHTS: tuple[tuple[str, str], ...] = (
    (r"LiheYoung/depth-anything-(small|base|large)-hf", "apache-2.0"),
    (r"depth-anything/Depth-Anything-V2-(Metric-(Indoor|Outdoor|Hypersim|VKITTI)-)?Small(-hf)?", "apache-2.0"),
    # Some cards of the metric ones state Apache, some nothing; they were fine-tuned from these non-commercial weights.
    (
        r"depth-anything/Depth-Anything-V2-(Metric-(Indoor|Outdoor|Hypersim|VKITTI)-)?(Base|Large|Giant)(-hf)?",
        "cc-by-nc-4.0",
    ),
    (r"depth-anything/prompt-depth-anything-vits(-transparent)?-hf", "apache-2.0"),
    # https://github.com/ByteDance-Seed/Depth-Anything-3, table of models.
    (r"depth-anything/DA3(MONO-LARGE|METRIC-LARGE|-BASE|-SMALL)", "apache-2.0"),
    (r"depth-anything/DA3(-LARGE|-GIANT|NESTED-GIANT-LARGE)(-1\.1)?", "cc-by-nc-4.0"),
    (r"Intel/dpt-(large|hybrid-midas)", "apache-2.0"),
    (r"Intel/dpt-(beit-(base-384|large-384|large-512)|swinv2-(tiny-256|base-384|large-384))", "mit"),
    (r"Intel/zoedepth-(nyu|kitti|nyu-kitti)", "mit"),
    (r"apple/DepthPro(-hf)?", "apple-amlr"),
    (r"vinvino02/glpn-(nyu|kitti)", "apache-2.0"),
    (r"facebook/dinov2-(small|base|large|giant)(-imagenet1k-1-layer)?", "apache-2.0"),
    (r"facebook/dinov3-.+", "dinov3-license"),
    (r"facebook/deit-(tiny|small|base)(-distilled)?-patch16-(224|384)", "apache-2.0"),
    (r"facebook/convnext-(tiny|small|base|large|xlarge)-(224|384)(-22k)?(-1k)?", "apache-2.0"),
    # Non-commercial according to the README of their authors.
    (r"facebook/(convnextv2-.+|vit-mae-(base|large|huge))", "cc-by-nc-4.0"),
    (r"google/vit-(base|large|huge)-patch(14|16|32)-(224|384)(-in21k)?", "apache-2.0"),
    (r"microsoft/swin(v2)?-(tiny|small|base|large)-patch4-window[\w-]+", "apache-2.0"),
    (r"microsoft/beit-(base|large)-patch16-[\w-]+", "apache-2.0"),
    (r"microsoft/resnet-(18|26|34|50|101|152)", "apache-2.0"),
    (r"nvidia/(mit-b[0-5]|segformer-b[0-5]-.+)", "nvidia-segformer"),
    # Layouts that `depthseg convert` reads; where the licence depends on the file, its owner states it.
    (r"monodepth2", "monodepth2-license"),
    (r"torchvision-(resnet|mobilenet-v2|fcn|deeplabv3)", "bsd-3-clause"),
    (r"efficientnet-lite|dino-(resnet|vit)|dinov2|depth-anything-[13]", "apache-2.0"),
    (r"dinov3", "dinov3-license"),
    (r"mae", "cc-by-nc-4.0"),
    (r"dpt", "mit"),
)

_KINDS = {"weights": "checkpoint", "data": "data set"}


def licence_of_weights(repo_id: str) -> Licence | None:
    """The licence of weights on the Hub.

    Args:
        repo_id: `owner/name`, case-insensitive.

    Returns:
        None if it is unknown.
    """
    found = (key for pattern, key in _WEIGHTS if re.fullmatch(pattern, repo_id, re.IGNORECASE | re.ASCII))
    return next((LICENCES[key] for key in found), None)


def licence_of_data(name: str) -> Licence | None:
    """The licence of a data set of depthseg.

    Args:
        name: A key of `depthseg.data.DATASETS`.

    Returns:
        None if it is unknown, as for a folder or video of the user.
    """
    licence = DATASETS[name].licence_id if name in DATASETS else ""
    return LICENCES[licence] if licence else None


def check_licence(chosen: Licence | None, sources: Sequence[Source]) -> list[str]:
    """The reasons against publishing weights under a licence.

    Args:
        chosen: The licence; None = none was stated. An unknown custom licence is treated as non-commercial, see
            `parse_licence`.
        sources: Data and weights that they were trained with.

    Returns:
        One sentence that names all missing licences, then one for each source that forbids the licence, then one for
        each incompatible pair of sources; empty = it is allowed.
    """
    known = [(source, source.licence) for source in sources if source.licence is not None]
    found = [_missing(chosen, sources)]
    if chosen is not None:
        found += [_problem(chosen, source, licence) for source, licence in known]
    found = [problem for problem in found if problem]
    for (first, one), (second, other) in combinations(known, 2):
        if not any(_allows(one, each) and _allows(other, each) for each in (*LICENCES.values(), one, other)):
            found.append(
                f"No licence satisfies both {first.name} ({one.label}) and {second.name} ({other.label}); publish "
                "weights that were trained with only one of them, or ask their owners for another licence."
            )
    return found


def parse_licence(text: str) -> Licence:
    """Read a licence.

    Args:
        text: A key of `LICENCES`, case-insensitive, or a custom licence as `other:NAME:LINK`. An unknown custom
            licence is treated as non-commercial and share-alike.

    Raises:
        ValueError: The licence is unknown, or the name or the link of a custom licence is missing.
    """
    key, *own = (part.strip() for part in text.split(":", 2))
    if key.lower() == OTHER:
        if len(own) < 2 or not all(own):
            raise ValueError(
                f"The licence {text!r} lacks a name or a link; write other:NAME:LINK, such as "
                "other:my-terms:https://example.org/terms."
            )
        name, link = own
        known = LICENCES.get(name.lower())
        if known is None:
            return Licence(OTHER, name, link, commercial=False)
        # A licence of the Hub given as a custom one keeps its conditions.
        return replace(known, link=link) if known.id == OTHER else known
    name = text.strip().lower()
    if name not in LICENCES:
        raise ValueError(
            f"Unknown licence: {text!r}.{did_you_mean(name, LICENCES)} Known licences: {', '.join(LICENCES)}. Give "
            "any other licence as other:NAME:LINK."
        )
    return LICENCES[name]


def _missing(chosen: Licence | None, sources: Sequence[Source]) -> str:
    """Which licences have to be stated, and how; empty if none is missing."""
    missing = [] if chosen is not None else ["that of these weights (give --licence ID, such as apache-2.0)"]
    missing += [
        f"that of the {_KINDS[source.kind]} {source.name} (give --licence-of {source.name}=ID)"
        for source in sources
        if source.licence is None
    ]
    if not missing:
        return ""
    known = [f"{source.name} ({source.licence.label})" for source in sources if source.licence]
    trained = f" The weights were also trained with {', '.join(known)}." if known else ""
    return (
        f"Licences are missing: {', '.join(missing)}; in a file of facts they are `licence` and `licences`.{trained}"
    )


def _problem(chosen: Licence, source: Source, licence: Licence) -> str:
    """Why a source under `licence` forbids the chosen licence, empty if it does not."""
    what = f"{_KINDS[source.kind]} {source.name}"
    if _allows(licence, chosen):
        return ""
    # Of the other compatible licences, only those of Creative Commons are not specific to an owner.
    fitting = (key for key, each in LICENCES.items() if key.startswith("cc-") and _allows(licence, each))
    *others, last = dict.fromkeys([licence.label, *fitting])
    allowed = f"{', '.join(others)} or {last}" if others else last
    if _stays(licence):
        return (
            f"The {what} is under {licence.label}, which derived weights must keep, and {chosen.label} is another "
            f"licence; choose {allowed}."
        )
    if not licence.commercial:
        return (
            f"The {what} is under {licence.label}, for non-commercial use only, and {chosen.label} allows commercial "
            f"use; choose a non-commercial licence, such as {allowed}."
        )
    return (
        f"The {what} is under {licence.label}, whose notices must be kept, and {chosen.label} does not require that; "
        f"choose a licence that keeps them, such as {licence.label}."
    )


def _allows(licence: Licence, chosen: Licence) -> bool:
    """Whether weights trained with a source under `licence` may be published under `chosen`."""
    if not _stays(licence):
        if not licence.commercial:
            return not chosen.commercial
        return chosen.id != PUBLIC_DOMAIN or licence.id == PUBLIC_DOMAIN
    if licence.id.startswith("cc-"):
        # A later version of a licence of Creative Commons continues it.
        family, _, version = licence.id.rpartition("-")
        chosen_family, _, chosen_version = chosen.id.rpartition("-")
        return chosen_family == family and float(chosen_version) >= float(version)
    return (licence.id, licence.name.lower()) == (chosen.id, chosen.name.lower())


def _stays(licence: Licence) -> bool:
    return licence.share_alike or licence.id == OTHER
