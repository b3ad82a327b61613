"""Monodepth2, and the networks of depth-to-semantic, which have the same encoder and decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .converted import ENCODER, Converted, ConvertOptions, Rule, count, need, prefixed, rename
from .kinds_resnet import TRUNK_RULES, counters, has_resnet, name_classes, resnet_config
from .reading import Source

SCALING = {"mean": [0.45, 0.45, 0.45], "std": [0.225, 0.225, 0.225]}
"""What the published encoder subtracts from images in [0, 1] and divides them by, in its own forward."""

LEVELS = 5
UP_CONVOLUTIONS = 2 * LEVELS
SCALES = 4

DEPTH_RANGE = (0.1, 100.0)
"""Smallest and largest depth of Monodepth2."""

METRIC_DEPTH_RANGE = (0.54, 540.0)
"""depth-to-semantic multiplies Monodepth2's depth by 5.4, in the network: metres of KITTI's stereo rig."""

WHOLE_ENCODER = "class scores of the ResNet, which the published depth network keeps but does not use"
POSE = "pose network, which only training on video needs"
ANOTHER = "another network than the encoder and decoder that were converted"
TASKS = {2: "optical flow", 3: "the colours of erased pixels"}
"""Channels of a decoder of depth-to-semantic's other pre-trainings -> what it predicts."""


def find_encoder(source: Source, prefix: str = "encoder.") -> str | None:
    """Return the name of the file with the encoder of one image (that of pose reads two), or `None`."""
    for stem, tensors in source.files.items():
        if has_resnet(tensors, prefix) and tensors[f"{prefix}conv1.weight"].shape[1:2] == (3,):
            return stem
    return None


def find_decoder(source: Source) -> str | None:
    """Return the name of the file with the decoder, or `None`.

    Monodepth2's option of a predicted mask saves a second one of the same layout, which has two channels.

    Raises:
        ValueError: If there are several, and not exactly one of them predicts depth.
    """
    names = [stem for stem, tensors in source.files.items() if "decoder.0.conv.conv.weight" in tensors]
    of_depth = [stem for stem in names if decoder_outputs(source.files[stem]) == 1]
    if len(names) > 1 and len(of_depth) != 1:
        raise ValueError(
            f"The files {', '.join(names)} are decoders, and {len(of_depth)} of them predict depth; give the encoder "
            "and the decoder that you want."
        )
    return (of_depth or names or [None])[0]


def is_depth_to_semantic(source: Source) -> bool:
    """Whether depth-to-semantic's code wrote the files: it counts its steps beside the weights."""
    return any("train_step" in extras for extras in source.extras.values()) or is_joint(source)


def is_joint(source: Source) -> bool:
    """Whether one file holds encoder and decoder, as depth-to-semantic saves its segmentation networks."""
    return has_resnet(source.tensors, "encoder.encoder.") and "decoder.decoder.0.conv.conv.weight" in source.tensors


def recognises_monodepth2(source: Source) -> bool:
    """Whether the files are the encoder of Monodepth2, with or without its other networks."""
    return find_encoder(source) is not None and not is_depth_to_semantic(source)


def recognises_depth_to_semantic(source: Source) -> bool:
    """Whether depth-to-semantic wrote the files."""
    return is_depth_to_semantic(source) and (is_joint(source) or find_encoder(source) is not None)


def convert_monodepth2(source: Source, options: ConvertOptions) -> Converted:
    """Convert `encoder.pth` and `depth.pth`; the encoder alone becomes a bare one."""
    return convert_networks(source, chosen_range(DEPTH_RANGE, options))


def convert_depth_to_semantic(source: Source, options: ConvertOptions) -> Converted:
    """Convert depth-to-semantic's encoder and decoder, of depth or of labels."""
    depth_range = chosen_range(METRIC_DEPTH_RANGE, options)
    if is_joint(source):
        return convert_networks(split(source), depth_range, pretraining=False)
    return convert_networks(source, depth_range)


def chosen_range(published: tuple[float, float], options: ConvertOptions) -> tuple[float, float]:
    """Return the smallest and largest depth, the largest one as the user gave it.

    Raises:
        ValueError: If the largest is not above the smallest.
    """
    nearest, farthest = published[0], options.max_depth or published[1]
    if farthest <= nearest:
        raise ValueError(
            f"--max-depth is {farthest}, and the smallest depth of this network is {nearest}; give a larger one. "
            f"Published is {published[1]:g}."
        )
    return nearest, farthest


def split(source: Source) -> Source:
    """Return the two networks of one file as two files."""
    stem, parts = source.stem, ("encoder", "decoder")
    files: dict[str, dict[str, Tensor]] = {part: {} for part in parts}
    original: dict[str, dict[str, str]] = {part: {} for part in parts}
    for name, tensor in source.files[stem].items():
        part, _, rest = name.partition(".")
        if part not in files:
            raise ValueError(f"{source.label(stem, name)} belongs neither to the encoder nor to the decoder.")
        files[part][rest] = tensor
        original[part][rest] = source.original[stem][name]
    return Source(source.paths, files, original, {part: source.extras[stem] for part in parts}, source.sha256)


def convert_networks(source: Source, depth_range: tuple[float, float], pretraining: bool = True) -> Converted:
    """Convert an encoder, and a decoder if there is one.

    Args:
        source: The files.
        depth_range: Smallest and largest depth that the network predicts.
        pretraining: Whether a decoder of 2 or 3 channels is that of another pre-training, and not of as many classes.

    Raises:
        ValueError: If there is no encoder, or a network is incomplete.
    """
    stem = find_encoder(source)
    if stem is None:
        raise ValueError(
            f"{', '.join(source.sha256)}: none of the files contains the encoder (encoder.conv1.weight of 3 input "
            "channels); give it with the decoder, or the folder that contains both."
        )
    encoder = resnet_config(source.files[stem], "encoder.")
    decoder_stem = find_decoder(source)
    outputs = decoder_outputs(source.files[decoder_stem]) if decoder_stem else 0
    left_out = leave_out_files(source, {stem, decoder_stem})
    if decoder_stem is None or (pretraining and outputs in TASKS):
        if decoder_stem is not None:
            why = f"decoder that predicts {TASKS[outputs]}; the encoder is what transfers"
            left_out |= {source.label(decoder_stem, name): why for name in source.files[decoder_stem]}
        tensors, unused = rename(source, encoder_rules(""), stem)
        processor = {"image_mean": SCALING["mean"], "image_std": SCALING["std"], **training_size(source, stem)}
        return Converted(ENCODER, encoder, tensors, processor, left_out | unused, counters(tensors))
    tensors, unused = rename(source, encoder_rules("encoder.backbone."), stem)
    decoded, unused_scales = rename(source, decoder_rules(outputs), decoder_stem)
    config = {
        "encoder_config": encoder,
        "head_type": "monodepth2",
        "head_config": decoder_sizes(source.files[decoder_stem]),
        "input_mean": SCALING["mean"],
        "input_std": SCALING["std"],
    }
    if outputs == 1:
        config |= {"depth_type": "disparity", "min_depth": depth_range[0], "max_depth": depth_range[1]}
    else:
        config |= name_classes(outputs, "kitti34")
    return Converted(
        "DepthSegForDepthEstimation" if outputs == 1 else "DepthSegForSemanticSegmentation",
        config,
        tensors | decoded,
        {"do_normalize": False, **training_size(source, stem)},
        left_out | unused | unused_scales,
        counters(tensors),
    )


def decoder_outputs(tensors: Mapping[str, Tensor]) -> int:
    """Return the number of channels that the decoder predicts at its finest scale."""
    return need(tensors, f"decoder.{UP_CONVOLUTIONS}.conv.weight").shape[0]


def decoder_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the options of the head `monodepth2`."""
    names = [f"decoder.{2 * (LEVELS - 1 - level) + 1}.conv.conv.weight" for level in range(LEVELS)]
    return {
        "decoder_channels": [need(tensors, name).shape[0] for name in names],
        "num_scales": count(tensors, r"decoder\.(\d+)\.") - UP_CONVOLUTIONS,
    }


def leave_out_files(source: Source, used: set[str | None]) -> dict[str, str]:
    """Return `left_out` of the files that are not converted."""
    return {
        source.label(stem, name): POSE if is_pose(tensors) else ANOTHER
        for stem, tensors in source.files.items()
        if stem not in used
        for name in tensors
    }


def is_pose(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file is a network that predicts motion: an encoder of several images, its decoder, or `PoseCNN`."""
    stem = tensors.get("encoder.conv1.weight")
    return "net.0.weight" in tensors if stem is None else stem.ndim == 4 and stem.shape[1] > 3


def encoder_rules(ours: str) -> list[Rule]:
    """Return the rules of the encoder: a whole ResNet under `encoder.`."""
    return [*prefixed(TRUNK_RULES, "encoder.", ours), Rule(r"encoder\.fc\.(weight|bias)", reason=WHOLE_ENCODER)]


def decoder_rules(outputs: int) -> list[Rule]:
    """Return the rules of the decoder, one flat list of modules: coarsest level first, then the scales, finest first.

    Args:
        outputs: Channels that it predicts: 1 for depth, otherwise classes.
    """
    rules = [
        Rule(
            rf"decoder\.{number}\.conv\.conv\.(weight|bias)",
            (rf"head.levels.{LEVELS - 1 - number // 2}.conv{number % 2}.conv.\1",),
        )
        for number in range(UP_CONVOLUTIONS)
    ]
    for scale in range(SCALES):
        pattern = rf"decoder\.{UP_CONVOLUTIONS + scale}\.conv\.(weight|bias)"
        if outputs == 1:
            rules.append(Rule(pattern, (rf"depth_predictor.{scale}.conv.\1",)))
        elif scale == 0:
            rules.append(Rule(pattern, (r"classifier.conv.\1",)))
        else:
            rules.append(Rule(pattern, reason="coarser scale of the labels, which the published network never uses"))
    return rules


def training_size(source: Source, stem: str) -> dict[str, Any]:
    """Return the processor's size, where the file says at which one the network was trained."""
    extras = source.extras[stem]
    if not {"height", "width"} <= extras.keys():
        return {}
    return {"size": {"height": int(extras["height"]), "width": int(extras["width"])}}
