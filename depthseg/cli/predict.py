"""`depthseg predict`."""

from __future__ import annotations

import argparse
import sys

from ..engine.command import one_sentence_errors
from .export import image_size

SMOOTH = 0.7
"""Weight of earlier frames where `--smooth` comes without one."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `predict`."""
    parser.add_argument("model", help="directory or Hub id of a depthseg model")
    parser.add_argument(
        "images",
        nargs="+",
        help="image files, video files, folders of them, patterns in quotes such as 'drive/*.jpg', or - for a list of "
        "these from standard input, one a line",
    )
    parser.add_argument("--output-dir", required=True, help="where label maps, overlays, videos and JSON files go")
    parser.add_argument("--revision", help="commit, tag or branch of a Hub id")
    parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier call")
    parser.add_argument(
        "--native",
        action="store_true",
        help="predict images at their own size, in overlapping tiles of the size that the model was trained with, in "
        "place of resizing them to it",
    )
    parser.add_argument(
        "--tile",
        type=image_size,
        metavar="HEIGHTxWIDTH",
        help="size of the tiles in pixels, such as 512x512 (default: with --native the size that the image processor "
        "resizes to, without it the whole image up to 2 megapixels, then 1024x1024)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="frames, tiles or images of one size at once (default: 1)",
    )
    parser.add_argument(
        "--smooth",
        type=float,
        nargs="?",
        const=SMOOTH,
        metavar="WEIGHT",
        help="videos: carry class scores along the motion of the frames; weight of earlier frames, from 0 to 1 "
        f"({SMOOTH} without a number)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Predict, name the images and videos that could not be done, and return 1 if there are any."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    from ..engine.command import INTERRUPTED, show_progress
    from ..engine.predict import predict
    from ..engine.stopping import Stopped

    show_progress()
    try:
        with one_sentence_errors(), logging_redirect_tqdm():
            done = predict(
                options.model,
                options.images,
                options.output_dir,
                revision=options.revision,
                overwrite=options.overwrite,
                native=options.native,
                tile=options.tile,
                batch_size=options.batch_size,
                smooth=options.smooth,
            )
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.code
    except KeyboardInterrupt:
        print("Stopped at once: the frames since the last finished piece of a video are lost.", file=sys.stderr)
        return INTERRUPTED
    print(f"{done.count()} done, in {options.output_dir}.")
    for sentence in done.summary():
        print(f"error: {sentence}", file=sys.stderr)
    return 1 if done.failures else 0
