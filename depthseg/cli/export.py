"""`depthseg export`."""

from __future__ import annotations

import argparse
import re

from ..engine.command import one_sentence_errors


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `export`."""
    parser.add_argument("model", help="directory or Hub id of a depthseg segmenter or depth model")
    parser.add_argument("--output", required=True, help="the file, such as model.onnx or model.pt2")
    parser.add_argument("--format", default="onnx", choices=("onnx", "torch-export"), help="of the file")
    parser.add_argument(
        "--returns",
        nargs="+",
        choices=("labels", "logits", "depth"),
        help="outputs, at the size of the image: class ids, class scores, depth (default: labels, of depth models "
        "depth)",
    )
    parser.add_argument(
        "--takes",
        default="images",
        choices=("images", "pixel_values"),
        help="input: RGB images uint8 (batch, height, width, 3), or what the image processor makes, float32 (batch, "
        "3, height, width)",
    )
    parser.add_argument(
        "--size",
        type=image_size,
        metavar="HEIGHTxWIDTH",
        help="a file for images of this size in pixels alone, such as 224x224; encoders with one image size need it "
        "(default: any size)",
    )
    parser.add_argument("--revision", help="commit, tag or branch of a Hub id")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier file")
    parser.add_argument(
        "--time",
        nargs="?",
        const="eager",
        choices=("eager", "compiled"),
        help="print the time per image of the model and of the file on this machine; 'compiled' adds torch.compile, "
        "which takes minutes",
    )
    parser.set_defaults(run=run)


def image_size(text: str) -> tuple[int, int]:
    """Height and width of `224x224`."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not height and width in pixels, such as 224x224")
    return int(found[1]), int(found[2])


def run(options: argparse.Namespace) -> int:
    """Export, and say what the file takes and returns and how far it is from the model."""
    from ..export.command import export

    with one_sentence_errors():
        done = export(
            options.model,
            options.output,
            format=options.format,
            returns=options.returns,
            takes=options.takes,
            revision=options.revision,
            overwrite=options.overwrite,
            time=options.time,
            size=options.size,
        )
    print(done.summary())
    return 0
