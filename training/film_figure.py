"""The figure of the README: frames, depth trained on their own video without labels, and the segmentation after it.

    python training/film_figure.py --root CAMVID --depth-model runs/pretrain_video_mono/model --model RUN/model

RUN is the run of seed 0 of the commands in training/results/camvid_film.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from depthseg.data import CamVid
from depthseg.engine.predict import load_model, predict_maps
from depthseg.engine.report import write_panel
from depthseg.engine.visualization import colourise_labels, colourise_predicted_depth, legend_of

FRAMES = ("0016E5_07961", "0016E5_08027")
FIGURE = Path(__file__).parent / "figures" / "film.png"


def main() -> None:
    """Predict depth and classes of the frames and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="CamVid in its SegNet layout")
    parser.add_argument("--depth-model", required=True, help="checkpoint trained on the video")
    parser.add_argument("--model", required=True, help="segmenter that was fine-tuned from it")
    options = parser.parse_args()
    val_set = CamVid(options.root, "val")
    depth_model, segmenter = load_model(options.depth_model), load_model(options.model)
    palette = val_set.label_space.palette
    rows, maps = [], []
    for name in FRAMES:
        sample = val_set[val_set.names.index(name)]
        depth = predict_maps(*depth_model, sample.image)[1]
        labels = predict_maps(*segmenter, sample.image)[0]
        maps += [labels, sample.labels]
        rows.append(
            [
                sample.image,
                colourise_predicted_depth(depth, depth_model[0].config.depth_type),
                colourise_labels(labels, palette),
                colourise_labels(sample.labels, palette),
            ]
        )
    titles = ["a video without labels", "depth trained on that video", "segmentation, 16 labels", "ground truth"]
    write_panel(FIGURE, rows, titles, legend=legend_of(maps, val_set.label_space))


if __name__ == "__main__":
    main()
