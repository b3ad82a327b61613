"""The tables of may_i_use_this_commercially.md: licences of checkpoints and data, and what they ask of your model.

    python training/guides/may_i_use_this_commercially.py

Licences and what they allow are those of `depthseg.hub.licences` and `depthseg.data`; here are only the names that the
page shows, and what the networks were trained on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from depthseg.data import DATASETS
from depthseg.hub.licences import LICENCES, Licence, Source, check_licence, licence_of_data, licence_of_weights

PAGE = Path(__file__).with_suffix(".md")


class Family(NamedTuple):
    """Checkpoints under one licence, a row of the page.

    Attributes:
        name: As the page shows them.
        ids: Checkpoints of the Hub, and kinds of `depthseg convert`.
        trained_on: Data that they were trained on, as their authors state it.
    """

    name: str
    ids: tuple[str, ...]
    trained_on: str


V2 = "depth-anything/Depth-Anything-V2-"
DA3 = "depth-anything/DA3"
UNLABELLED = "62 M images of public data sets, not labelled by people"
IMAGENET = "ImageNet (research access, non-commercial)"
MIDAS = "data sets of MiDaS"
KITTI = f"KITTI ({DATASETS['kitti_raw'].licence.partition(';')[0]})"
NYU = f"NYU (licence: {DATASETS['nyuv2'].licence.partition(';')[0]})"
WEB = "images of the web, not published"
RESTRICTED = ("non-commercial", "research only")
"""Words of terms without an identifier on the Hub that exclude commercial use."""

DEPTH = (
    Family(
        "Depth Anything V1, Small, Base, Large",
        (*(f"LiheYoung/depth-anything-{size}-hf" for size in ("small", "base", "large")), "depth-anything-1"),
        f"1.5 M images with depth of six data sets; {UNLABELLED}",
    ),
    Family("Depth Anything V2 Small", (V2 + "Small-hf", V2 + "Small"), f"rendered scenes; {UNLABELLED}"),
    Family(
        "Depth Anything V2 Small, metric",
        tuple(f"{V2}Metric-{place}-Small-hf" for place in ("Indoor", "Outdoor", "Hypersim", "VKITTI")),
        "the above; Hypersim (CC BY-SA 3.0) or Virtual KITTI 2 (CC BY-NC-SA 3.0)",
    ),
    Family(
        "Depth Anything V2 Base, Large, Giant, and metric",
        tuple(f"{V2}{kind}{size}-hf" for kind in ("", "Metric-Indoor-") for size in ("Base", "Large", "Giant")),
        "as Small",
    ),
    Family(
        "Depth Anything 3 Small, Base, Mono-L, Metric-L",
        (*(DA3 + name for name in ("-SMALL", "-BASE", "MONO-LARGE", "METRIC-LARGE")), "depth-anything-3"),
        "see its paper",
    ),
    Family(
        "Depth Anything 3 Large, Giant, Nested",
        tuple(DA3 + name for name in ("-LARGE", "-GIANT", "NESTED-GIANT-LARGE")),
        "see its paper",
    ),
    Family("Prompt Depth Anything Small", ("depth-anything/prompt-depth-anything-vits-hf",), "see its paper"),
    Family("DPT-Large, -Hybrid of Intel", ("Intel/dpt-large", "Intel/dpt-hybrid-midas"), f"ten {MIDAS}"),
    Family(
        "DPT with BEiT or Swinv2; files of MiDaS 3",
        ("Intel/dpt-beit-base-384", "Intel/dpt-swinv2-tiny-256", "dpt"),
        f"ten {MIDAS}, the newer ones also {NYU} and {KITTI}",
    ),
    Family("ZoeDepth", ("Intel/zoedepth-nyu-kitti",), f"{MIDAS}; {NYU}; {KITTI}"),
    Family("GLPN", ("vinvino02/glpn-nyu", "vinvino02/glpn-kitti"), f"{NYU}, or {KITTI}"),
    Family("DepthPro", ("apple/DepthPro-hf",), "see its paper"),
    Family("Monodepth2", ("monodepth2",), KITTI),
)
IMAGE = (
    Family("DINOv2", ("facebook/dinov2-small", "dinov2"), f"LVD-142M, {WEB}"),
    Family("DINOv3", ("facebook/dinov3-vits16-pretrain-lvd1689m", "dinov3"), f"LVD-1689M, {WEB}"),
    Family("DINO", ("dino-vit", "dino-resnet"), IMAGENET),
    Family(
        "DeiT, ConvNeXt, ViT, Swin, BEiT, ResNet",
        (
            *("facebook/deit-small-patch16-224", "facebook/convnext-tiny-224", "google/vit-base-patch16-224"),
            *("microsoft/swin-tiny-patch4-window7-224", "microsoft/beit-base-patch16-224", "microsoft/resnet-50"),
        ),
        IMAGENET,
    ),
    Family("MAE, ConvNeXt V2", ("facebook/vit-mae-base", "facebook/convnextv2-tiny-22k-224", "mae"), IMAGENET),
    Family(
        "MiT and SegFormer",
        ("nvidia/mit-b0", "nvidia/segformer-b0-finetuned-ade-512-512"),
        f"{IMAGENET}; SegFormer also ADE20K or Cityscapes",
    ),
    Family("torchvision: ResNet, MobileNetV2", ("torchvision-resnet", "torchvision-mobilenet-v2"), IMAGENET),
    Family("torchvision: FCN, DeepLabV3", ("torchvision-fcn", "torchvision-deeplabv3"), f"{IMAGENET}; COCO"),
    Family("EfficientNet-Lite", ("efficientnet-lite",), IMAGENET),
)


def licence_of(family: Family) -> Licence:
    """The licence of a row.

    Raises:
        ValueError: Its checkpoints have several, or one that is not known.
    """
    found = {licence_of_weights(id) for id in family.ids}
    if len(found) != 1 or None in found:
        labels = sorted(licence.label if licence else "unknown" for licence in found)
        raise ValueError(f"The row {family.name!r} has the licences {', '.join(labels)}; it needs one.")
    return found.pop()


def derived(licence: Licence, kind: str) -> str:
    """What a licence of weights or data asks of a model that was trained with them."""
    source = Source("it", kind, licence)
    allowed = [chosen for chosen in LICENCES.values() if not check_licence(chosen, [source])]
    if licence in allowed and len(allowed) < 3:
        return f"under {' or '.join(chosen.label for chosen in allowed)}"
    if not any(chosen.commercial for chosen in allowed):
        return "under a non-commercial licence"
    return "under any licence that keeps the notices" if len(allowed) < len(LICENCES) else "under any licence"


def commercial(licence: Licence) -> str:
    """Whether a licence itself allows commercial use."""
    return "yes" if licence.commercial else "**no**"


def weight_rows(families: tuple[Family, ...]) -> Iterator[str]:
    """The rows of checkpoints."""
    yield "| checkpoints | licence | commercial use by the licence | your model | trained on |"
    yield "|---|---|---|---|---|"
    for family in families:
        licence = licence_of(family)
        yield (
            f"| {family.name} | {licence.label} | {commercial(licence)} | {derived(licence, 'weights')} "
            f"| {family.trained_on} |"
        )


def data_rows() -> Iterator[str]:
    """The rows of data sets that are not the user's own."""
    yield "| data | terms | commercial use | your model |"
    yield "|---|---|---|---|"
    for name, entry in DATASETS.items():
        if entry.is_official:
            licence = licence_of_data(name)
            known = "**no**" if any(words in entry.licence for words in RESTRICTED) else "read the terms"
            cells = (commercial(licence), derived(licence, "data")) if licence else (known, "you state the licence")
            yield f"| `{name}` | {entry.licence.split('; cite')[0]} | {' | '.join(cells)} |"


def fill(page: str) -> str:
    """The page with its tables made anew."""
    tables = {"depth networks": weight_rows(DEPTH), "encoders": weight_rows(IMAGE), "data": data_rows()}
    for name, rows in tables.items():
        table = "\n".join(rows)
        pattern = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        page, count = re.subn(pattern, lambda found, table=table: f"{found[1]}{table}\n{found[2]}", page, flags=re.S)
        if count != 1:
            raise ValueError(f"{PAGE.name} has {count} tables named {name!r}; it needs one.")
    return page


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
