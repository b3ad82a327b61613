"""The report in a real browser, at the width of a desktop and of a phone."""

from __future__ import annotations

import pytest
from study.made_up_study import write_study

from depthseg.study.report import write_report
from depthseg.study.report.html import write_page

pytestmark = pytest.mark.heavy

WIDTHS = {"desktop": (1440, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_page(write_report(write_study(tmp_path_factory.mktemp("study"))))


def open_page(browser, report, device):
    """The page at a width, with what it complained of and what it asked for."""
    width, height = WIDTHS[device]
    page = browser.new_page(viewport={"width": width, "height": height})
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.resolve().as_uri())
    return page, complaints, asked


@pytest.mark.parametrize("device", WIDTHS)
def test_the_page_opens_without_complaint_and_without_a_network(browser, report, device, tmp_path):
    page, complaints, asked = open_page(browser, report, device)
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    # Only tables may be wider than the screen, and those scroll on their own.
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[device][0]
    images = page.locator("img")
    assert images.count() > 0
    for number in range(images.count()):
        shown = images.nth(number).evaluate("image => [image.naturalWidth, image.getBoundingClientRect().width]")
        assert shown[0] > 0 and 0 < shown[1] <= WIDTHS[device][0]
    page.close()


@pytest.mark.parametrize("device", WIDTHS)
def test_every_link_of_the_contents_leads_somewhere(browser, report, device):
    page, _, _ = open_page(browser, report, device)
    links = page.locator("a[href^='#']")
    assert links.count() == page.locator("h2").count() > 5
    for number in range(links.count()):
        target = links.nth(number).get_attribute("href")
        links.nth(number).click()
        assert page.locator(target).bounding_box()["y"] < WIDTHS[device][1]
    page.close()


@pytest.mark.parametrize("device", WIDTHS)
def test_a_wide_table_scrolls_with_the_keyboard_to_its_last_column(browser, report, device):
    page, complaints, _ = open_page(browser, report, device)
    wide = page.evaluate(
        "[...document.querySelectorAll('.scroll')].findIndex(one => one.scrollWidth > one.clientWidth)"
    )
    assert wide >= 0
    table = page.locator(".scroll").nth(wide)
    table.focus()
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    reach = "box => box.scrollLeft + box.clientWidth >= box.scrollWidth - 1"
    page.wait_for_function(reach, arg=table.element_handle())
    last = table.locator("th").last.bounding_box()
    assert last["x"] + last["width"] <= WIDTHS[device][0]
    assert complaints == []
    page.close()


@pytest.mark.parametrize("device", WIDTHS)
def test_a_row_opens_the_records_it_comes_from(browser, report, device):
    page, _, _ = open_page(browser, report, device)
    records = page.locator("td details").first
    links = records.locator("a")
    assert not links.first.is_visible()
    records.locator("summary").click()
    assert links.first.is_visible() and links.count() == int(records.locator("summary").inner_text().split()[0]) > 1
    for link in links.all():
        assert (report.parent / link.get_attribute("href")).resolve().is_file()
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[device][0]
    page.close()
