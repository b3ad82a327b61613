"""The web page in a real browser: uploads, examples, messages, and the width of a phone."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from engine.demo_models import write_film, write_model, write_street
from PIL import Image

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("gradio", reason="needs gradio: pip install 'depthseg[demo]'")

WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
# The machine may be slow.
PATIENCE = 60_000


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return [write_model(root / "from_random", seed=0), write_model(root / "from_depth", seed=1)]


@pytest.fixture(scope="module")
def served(models, tmp_path_factory):
    """Address of a page with two models, and its own folder."""
    from depthseg.engine.demo import load_checkpoints
    from depthseg.engine.demo_page import build_page, launch

    folder = tmp_path_factory.mktemp("served")
    # Named as a user does who is in their folder.
    with contextlib.chdir(models[0].parent):
        checkpoints = load_checkpoints([model.name for model in models])
    page = build_page(checkpoints, folder)
    _, address, _ = launch(page, "127.0.0.1", None, prevent_thread_lock=True, quiet=True)
    yield address, folder
    page.close()


@pytest.fixture(params=WIDTHS)
def opened(request, browser, served):
    """The page at a width, with what it complained of and what it asked for."""
    width, height = WIDTHS[request.param]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE)
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served[0])
    page.locator("input[type=file]").first.wait_for(state="attached")
    yield page, complaints, request.param
    page.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith((served[0], "data:", "blob:"))] == []


def drop(page, path):
    page.locator("input[type=file]").first.set_input_files(path)


def check_fits(page, device):
    """No horizontal scrolling."""
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[device][0]


def check_slider(page):
    """The line between the two overlays follows the mouse, from the middle to 40 % of the width."""
    right = page.locator("#slider img").nth(1)
    right.scroll_into_view_if_needed()
    box = page.locator("#slider .slider-wrap").bounding_box()
    middle = box["y"] + box["height"] / 2
    assert "inset(0px 0px 0px 50%)" in right.get_attribute("style")
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, middle, steps=5)
    page.mouse.up()
    found = re.search(r"inset\(0px 0px 0px ([\d.]+)%\)", right.get_attribute("style"))
    assert abs(float(found[1]) - 40) < 1


def take(page, name, device):
    """A screenshot for people, where the environment says where to."""
    if folder := os.environ.get("DEPTHSEG_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}_{device}.png"), full_page=True)


def uploads_of(folder):
    return [
        path
        for path in folder.rglob("*")
        if path.name in ("street.png", "film.mp4", "broken.png", "large.png", "weighty.png")
    ]


def test_an_image_shows_classes_slider_and_depth_and_a_film_its_overlay(opened, served, tmp_path):
    page, _, device = opened
    assert "images up to 25 megapixels" in page.inner_text("body")
    take(page, "start", device)
    check_fits(page, device)
    drop(page, write_street(tmp_path / "street.png"))
    page.locator("#slider img").nth(1).wait_for()
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    text = page.inner_text("body")
    assert "Classes: from_random" in text and "Classes: from_depth" in text and "Depth (near is bright)" in text
    assert re.search(r"\d ?%", text)  # shares
    take(page, "image", device)
    check_fits(page, device)
    for number in range(page.locator("img:visible").count()):
        box = page.locator("img:visible").nth(number).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= WIDTHS[device][0] + 1
    check_slider(page)
    drop(page, write_film(tmp_path / "film.mp4"))
    page.locator("video").nth(1).wait_for()
    page.wait_for_function("[...document.querySelectorAll('video')].every(video => video.videoWidth == 96)")
    assert not page.locator("#slider").is_visible()
    take(page, "film", device)
    check_fits(page, device)
    assert uploads_of(served[1]) == []


def test_an_example_is_predicted(opened):
    page, _, _ = opened
    page.locator("#examples button").nth(1).click()
    page.locator("#slider img").nth(1).wait_for()


@pytest.mark.parametrize("kind", ["broken", "large", "weighty"])
def test_what_cannot_be_used_gives_a_message_and_the_next_file_is_taken(opened, served, kind, tmp_path):
    page, complaints, device = opened
    path = tmp_path / f"{kind}.png"
    if kind == "large":
        Image.new("1", (10000, 10000)).save(path)
    else:
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(53 * 10**6 if kind == "weighty" else 100))
    said = {
        "broken": "broken.png is",
        "large": "large.png has 100 megapixels",
        "weighty": "maximum allowed size of 50",
    }
    drop(page, path)
    page.get_by_text(said[kind]).first.wait_for()
    assert str(served[1]) not in page.inner_text("body")
    take(page, kind, device)
    check_fits(page, device)
    assert uploads_of(served[1]) == []
    complaints[:] = [text for text in complaints if "413" not in text]  # the browser logs the refused upload
    if kind != "weighty":
        drop(page, write_street(tmp_path / "street.png"))
        page.locator("#slider img").nth(1).wait_for()


def test_the_app_of_a_space_builds_the_page(models, tmp_path):
    from depthseg.engine.demo_space import write_space

    space = tmp_path / "space"
    write_space(space, [str(model) for model in models])
    program = "import app, depthseg; print(depthseg.__file__, type(app.page).__name__)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", program], cwd=space, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(space / "depthseg/__init__.py"), "Blocks"]
