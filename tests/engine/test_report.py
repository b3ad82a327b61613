import json

import numpy as np
import pytest
from PIL import Image

from depthseg.engine.report import read_curves, write_curves, write_panel

RED, GREEN, BLUE, ORANGE = (220, 20, 20), (20, 180, 20), (20, 20, 220), (255, 150, 0)


def plain(colour: tuple[int, int, int], height: int = 60, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def read(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.array(image.convert("RGB"))


def box(image: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """Top, left, bottom, right of the pixels of a colour."""
    places = np.argwhere((image == colour).all(-1))
    return (*places.min(0), *places.max(0)) if len(places) else None


def test_panel_puts_the_images_in_a_grid_in_their_own_shape(tmp_path) -> None:
    write_panel(tmp_path / "report" / "panel.png", [[plain(RED), plain(GREEN)], [plain(BLUE), None]], ["in", "out"])
    image = read(tmp_path / "report" / "panel.png")
    red, green, blue = (box(image, colour) for colour in (RED, GREEN, BLUE))
    assert red[3] < green[1], "columns from left to right"
    assert red[2] < blue[0], "rows from top to bottom"
    assert abs(red[0] - green[0]) <= 1 and abs(red[1] - blue[1]) <= 1
    for top, left, bottom, right in (red, green, blue):
        assert (bottom - top + 1) / (right - left + 1) == pytest.approx(60 / 160, rel=0.02)
    assert image.shape[1] < 1.1 * (green[3] - red[1]), "hardly any margin"


def test_panel_has_a_legend_below_and_takes_images_of_several_sizes(tmp_path) -> None:
    rows = [[plain(RED)], [plain(GREEN, 120, 100)]]
    write_panel(tmp_path / "panel.png", rows, ["input"], names=["a", "b"], legend={"Something": ORANGE})
    image = read(tmp_path / "panel.png")
    assert box(image, ORANGE)[0] > box(image, GREEN)[2]
    top, left, bottom, right = box(image, GREEN)
    assert (bottom - top + 1) / (right - left + 1) == pytest.approx(1.2, rel=0.02)


@pytest.mark.parametrize(("rows", "names"), [([[plain(RED)]], None), ([[plain(RED), None]], ["a", "b"])])
def test_a_grid_with_holes_in_its_form_is_refused(tmp_path, rows, names) -> None:
    with pytest.raises(ValueError):
        write_panel(tmp_path / "panel.png", rows, ["in", "out"], names=names)
    assert not (tmp_path / "panel.png").exists()


def write_lines(path, lines) -> None:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))


def test_curves_pass_over_everything_that_is_not_a_number_at_a_step(tmp_path) -> None:
    lines = [
        {"step": 10, "train_loss": 2.0, "mean_iou": 0.25, "alignment": "none", "iou": {"Sky": 0.5}},
        {"step": 30, "train_loss": 0.5, "mean_iou": None},
        {"step": 20, "train_loss": float("nan")},
        {"step": 30, "train_loss": 0.75},
        '{"step": 40, "train_lo',
    ]
    write_lines(tmp_path / "metrics.jsonl", lines)
    assert read_curves(tmp_path / "metrics.jsonl") == {
        "train_loss": [(10, 2.0), (30, 0.75)],
        "mean_iou": [(10, 0.25)],
    }


def test_each_kind_of_number_that_is_there_gets_a_frame(tmp_path) -> None:
    lines = [
        {"step": step, "train_loss": 1 / step, "seconds": 3.0 * step, "colour": 1.0, "islr": 2.0} for step in (1, 2, 3)
    ]
    write_lines(tmp_path / "loss.jsonl", lines)
    write_lines(tmp_path / "more.jsonl", [{**line, "abs_rel": 0.5, "delta1": 0.25, "lr": 1e-4} for line in lines])
    for name in ("loss", "more"):
        write_curves(tmp_path / f"{name}.png", tmp_path / f"{name}.jsonl")
    one, four = read(tmp_path / "loss.png"), read(tmp_path / "more.png")
    assert four.shape[1] / one.shape[1] == pytest.approx(4, rel=0.05)
    assert box(one, (31, 119, 180)) is not None, "a line in matplotlib's first colour"


def test_a_loss_that_falls_and_rises_is_drawn_as_a_valley(tmp_path) -> None:
    write_lines(tmp_path / "m.jsonl", [{"step": step, "loss": abs(step - 50)} for step in range(101)])
    write_curves(tmp_path / "m.png", tmp_path / "m.jsonl")
    line = np.argwhere((read(tmp_path / "m.png") == (31, 119, 180)).all(-1))
    left, right = line[:, 1].min(), line[:, 1].max()
    lowest = line[line[:, 0] == line[:, 0].max(), 1].mean()
    assert (lowest - left) / (right - left) == pytest.approx(0.5, abs=0.03)


def test_files_without_a_curve_get_a_sentence(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*metrics\.jsonl"):
        write_curves(tmp_path / "c.png", tmp_path / "metrics.jsonl")
    write_lines(tmp_path / "metrics.jsonl", [{"step": 1, "seconds": 2.0}])
    with pytest.raises(ValueError, match="no curve to draw.*mean_iou"):
        write_curves(tmp_path / "c.png", tmp_path / "metrics.jsonl")
    assert not (tmp_path / "c.png").exists()
