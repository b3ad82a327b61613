"""Which licence a checkpoint may be published under, given everything that its weights came from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

OWN_TERMS = "other"
"""The Hub's identifier of every licence that it has no own one for."""

PUBLIC_DOMAIN = "cc0-1.0"


@dataclass(frozen=True)
class Licence:
    """A licence, as far as it decides what may be published under which one.

    Attributes:
        id: Identifier on the Hub, such as `cc-by-nc-4.0`; `other` for own terms.
        name: Name of own terms, the `license_name` of a card; empty for all others.
        link: Where own terms can be read, the `license_link` of a card.
        commercial: Whether more than non-commercial use is allowed.
        share_alike: Whether what is made from it must stay under it. Own terms always ask for that here: nobody but
            their owner can say what else would satisfy them.
    """

    id: str
    name: str = ""
    link: str = ""
    commercial: bool = True
    share_alike: bool = False

    @property
    def label(self) -> str:
        """What people call it."""
        return self.name or self.id

    @property
    def text(self) -> str:
        """What `parse_licence` reads."""
        return f"{OWN_TERMS}:{self.name}:{self.link}" if self.id == OWN_TERMS else self.id


@dataclass(frozen=True)
class Source:
    """Something that weights came from.

    Attributes:
        name: Repository of the weights, or name of the data set.
        kind: `weights` or `data`.
        licence: Its licence; None = unknown.
    """

    name: str
    kind: str
    licence: Licence | None


# Identifiers: https://huggingface.co/docs/hub/repositories-licenses. Only licences whose demands are sure are here.
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
        # Research only, for derived models too, which travel with a copy of it.
        Licence("apple-amlr", commercial=False, share_alike=True),
        # Commercial use is allowed, but derived models stay under it (1.b.i).
        Licence(OWN_TERMS, "dinov3-license", "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"),
        # Derived works only under the same terms (3.3).
        Licence(
            OWN_TERMS,
            "monodepth2-license",
            "https://github.com/nianticlabs/monodepth2/blob/master/LICENSE",
            commercial=False,
        ),
        # Research and evaluation only, for derived works too (3.3).
        Licence(
            OWN_TERMS, "nvidia-segformer", "https://github.com/NVlabs/SegFormer/blob/master/LICENSE", commercial=False
        ),
    )
}
"""Every licence that we know the rules of, by identifier or, for own terms, by name."""

# Weights of the Hub, as their cards state it. The owner is part of every pattern, so that a copy under another name
# never passes for the original. Where the authors' own repository is stricter than the card, it is what counts here.
_WEIGHTS: tuple[tuple[str, str], ...] = (
    (r"LiheYoung/depth-anything-(small|base|large)-hf", "apache-2.0"),
    (r"depth-anything/Depth-Anything-V2-(Metric-(Indoor|Outdoor|Hypersim|VKITTI)-)?Small(-hf)?", "apache-2.0"),
    # Of the metric ones some cards say Apache, some nothing; they were fine-tuned from these non-commercial weights.
    (
        r"depth-anything/Depth-Anything-V2-(Metric-(Indoor|Outdoor|Hypersim|VKITTI)-)?(Base|Large|Giant)(-hf)?",
        "cc-by-nc-4.0",
    ),
    (r"depth-anything/prompt-depth-anything-vits(-transparent)?-hf", "apache-2.0"),
    (r"Intel/dpt-(large|hybrid-midas)", "apache-2.0"),
    (r"Intel/dpt-(beit-(base-384|large-384|large-512)|swinv2-(tiny-256|base-384|large-384))", "mit"),
    (r"Intel/zoedepth-(nyu|kitti|nyu-kitti)", "mit"),
    (r"apple/DepthPro(-hf)?", "apple-amlr"),
    (r"vinvino02/glpn-(nyu|kitti)", "apache-2.0"),
    (r"facebook/dinov2-(small|base|large|giant)(-imagenet1k-1-layer)?", "apache-2.0"),
    (r"facebook/dinov3-.+", "dinov3-license"),
    (r"facebook/deit-(tiny|small|base)(-distilled)?-patch16-(224|384)", "apache-2.0"),
    (r"facebook/convnext-(tiny|small|base|large|xlarge)-(224|384)(-22k)?(-1k)?", "apache-2.0"),
    # Non-commercial by the README of their authors.
    (r"facebook/(convnextv2-.+|vit-mae-(base|large|huge))", "cc-by-nc-4.0"),
    (r"google/vit-(base|large|huge)-patch(14|16|32)-(224|384)(-in21k)?", "apache-2.0"),
    (r"microsoft/swin(v2)?-(tiny|small|base|large)-patch4-window[\w-]+", "apache-2.0"),
    (r"microsoft/beit-(base|large)-patch16-[\w-]+", "apache-2.0"),
    (r"microsoft/resnet-(18|26|34|50|101|152)", "apache-2.0"),
    (r"nvidia/(mit-b[0-5]|segformer-b[0-5]-.+)", "nvidia-segformer"),
)

# Data sets of depthseg that are not the user's own; the table of data sets states the same terms for people.
_DATA = {
    "camvid": "cc-by-nc-4.0",
    # Rendered by this package and therefore under its licence, which weights satisfy by keeping the notice.
    "synthetic": "apache-2.0",
    "synthetic_crops": "apache-2.0",
}

_KINDS = {"weights": "checkpoint", "data": "data set"}


def licence_of_weights(repo_id: str) -> Licence | None:
    """The licence of weights on the Hub.

    Args:
        repo_id: `owner/name`, in any case.

    Returns:
        None if we do not know it.
    """
    for pattern, key in _WEIGHTS:
        if re.fullmatch(pattern, repo_id, re.IGNORECASE | re.ASCII):
            return LICENCES[key]
    return None


def licence_of_data(name: str) -> Licence | None:
    """The licence of a data set of depthseg.

    Args:
        name: A key of `depthseg.data.DATASETS`.

    Returns:
        None if we do not know it: only its owner knows that of a folder or a video.
    """
    return LICENCES[_DATA[name]] if name in _DATA else None


def check_licence(chosen: Licence, sources: Sequence[Source]) -> list[str]:
    """What forbids publishing weights under a licence.

    Args:
        chosen: The licence. Own terms that we have no rules for are taken at their author's word as non-commercial,
            see `parse_licence`.
        sources: Everything that the weights came from.

    Returns:
        One sentence for each source that forbids it, then one for each pair that no licence satisfies; empty = it is
        allowed.
    """
    problems = [_problem(chosen, source) for source in sources]
    found = [problem for problem in problems if problem]
    known = [(source, source.licence) for source in sources if source.licence is not None]
    for (first, one), (second, other) in combinations(known, 2):
        if not any(_allows(one, each) and _allows(other, each) for each in (*LICENCES.values(), one, other)):
            found.append(
                f"No licence satisfies both {first.name} ({one.label}) and {second.name} ({other.label}); publish "
                "weights that came from only one of them, or ask their owners for other terms."
            )
    return found


def parse_licence(text: str) -> Licence:
    """Read a licence.

    Args:
        text: A key of `LICENCES`, in any case, or own terms as `other:NAME:LINK`. Own terms that we have no rules for
            count as non-commercial ones that must be passed on as they are.

    Raises:
        ValueError: We know no such licence, or the name or the link of own terms is missing.
    """
    key, *own = (part.strip() for part in text.split(":", 2))
    if key.lower() == OWN_TERMS:
        if len(own) < 2 or not all(own):
            raise ValueError(
                f"The licence {text!r} lacks a name or a link; write other:NAME:LINK, such as "
                "other:my-terms:https://example.org/terms."
            )
        name, link = own
        known = LICENCES.get(name.lower())
        if known is None:
            return Licence(OWN_TERMS, name, link, commercial=False)
        # Calling a licence of the Hub own terms does not change what it demands.
        return replace(known, link=link) if known.id == OWN_TERMS else known
    if text.strip().lower() in LICENCES:
        return LICENCES[text.strip().lower()]
    near = difflib.get_close_matches(text.strip().lower(), LICENCES, n=3)
    hint = f" Did you mean {_either(near)}?" if near else ""
    raise ValueError(
        f"Unknown licence: {text!r}.{hint} Known: {', '.join(LICENCES)}. Write any other one as other:NAME:LINK."
    )


def _problem(chosen: Licence, source: Source) -> str:
    """Why a source forbids a licence, empty if it does not."""
    what, licence = f"{_KINDS[source.kind]} {source.name}", source.licence
    if licence is None:
        return (
            f"The licence of the {what} is not known; state it with --licence-of {source.name}=ID, or under "
            "`licences` in the file of facts."
        )
    if _allows(licence, chosen):
        return ""
    # Of the others that would do, Creative Commons' are the only ones that fit any owner.
    fitting = (key for key, each in LICENCES.items() if key.startswith("cc-") and _allows(licence, each))
    allowed = _either(dict.fromkeys([licence.label, *fitting]))
    if _stays(licence):
        return (
            f"The {what} is under {licence.label}, which must be passed on as it is, and {chosen.label} is another "
            f"licence; allowed is {allowed}."
        )
    if not licence.commercial:
        return (
            f"The {what} is under {licence.label}, for non-commercial use only, and {chosen.label} allows more; "
            f"allowed is a non-commercial licence, such as {allowed}."
        )
    return (
        f"The {what} is under {licence.label}, whose notices must be kept, and {chosen.label} lets everybody drop "
        f"them; allowed is a licence that keeps them, such as {licence.label}."
    )


def _allows(licence: Licence, chosen: Licence) -> bool:
    """Whether what came from something under `licence` may be published under `chosen`."""
    if _stays(licence):
        return _continues(licence, chosen)
    if not licence.commercial:
        return not chosen.commercial
    return chosen.id != PUBLIC_DOMAIN or licence.id == PUBLIC_DOMAIN


def _stays(licence: Licence) -> bool:
    return licence.share_alike or licence.id == OWN_TERMS


def _continues(licence: Licence, chosen: Licence) -> bool:
    """Whether `chosen` is the same licence or, as Creative Commons allows, a later version of it."""
    if licence.id.startswith("cc-"):
        family, _, version = licence.id.rpartition("-")
        chosen_family, _, chosen_version = chosen.id.rpartition("-")
        return chosen_family == family and float(chosen_version) >= float(version)
    return (licence.id, licence.name.lower()) == (chosen.id, chosen.name.lower())


def _either(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
