"""`depthseg predict`."""

from __future__ import annotations

import argparse
import sys

from ..engine.command import one_sentence_errors


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `predict`."""
    parser.add_argument("model", help="directory or Hub id of a depthseg model")
    parser.add_argument("images", nargs="+", help="image files and folders of images")
    parser.add_argument("--output-dir", required=True, help="where label maps, overlays and JSON files go")
    parser.add_argument("--revision", help="commit, tag or branch of a Hub id")
    parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier call")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Predict, name the images that could not be done, and return 1 if there are any."""
    from ..engine.predict import predict

    with one_sentence_errors():
        done = predict(
            options.model,
            options.images,
            options.output_dir,
            revision=options.revision,
            overwrite=options.overwrite,
        )
    print(f"{len(done.names)} images done, in {options.output_dir}.")
    for sentence in done.summary():
        print(f"error: {sentence}", file=sys.stderr)
    return 1 if done.failures else 0
