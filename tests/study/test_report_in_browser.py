"""The report in a real browser, at the width of a desktop and of a phone."""

from __future__ import annotations

import shutil

import pytest
from study.made_up_study import write_study

from depthseg.study.report import write_report

pytestmark = pytest.mark.heavy

CHROMIUM = shutil.which("chromium")
# No start-up traffic: nothing may be asked of a network here.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
WIDTHS = {"desktop": (1440, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs a chromium on the PATH; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(write_study(tmp_path_factory.mktemp("study")))


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
    pictures = page.locator("img")
    assert pictures.count() > 0
    for number in range(pictures.count()):
        shown = pictures.nth(number).evaluate("image => [image.naturalWidth, image.getBoundingClientRect().width]")
        assert shown[0] > 0 and 0 < shown[1] <= WIDTHS[device][0]
    page.close()


@pytest.mark.parametrize("device", WIDTHS)
def test_every_link_of_the_contents_leads_somewhere(browser, report, device):
    page, _, _ = open_page(browser, report, device)
    links = page.locator("nav a")
    for number in range(links.count()):
        target = links.nth(number).get_attribute("href")
        links.nth(number).click()
        assert page.locator(target).bounding_box()["y"] < WIDTHS[device][1]
    page.close()


def test_a_click_orders_a_table_and_another_one_turns_it_round(browser, report):
    page, complaints, _ = open_page(browser, report, "desktop")
    table = page.locator("table[data-sortable]").first
    column = table.locator("thead th").evaluate_all("all => all.findIndex(one => 'number' in one.dataset)")
    button = table.locator("thead th").nth(column).locator("button")

    def values():
        cells = table.locator("tbody tr").evaluate_all(
            "(rows, column) => rows.map(row => row.cells[column].dataset.sort)", column
        )
        return [float(cell) for cell in cells if cell is not None]

    button.click()
    assert len(values()) > 1 and values() == sorted(values())
    button.click()
    assert values() == sorted(values(), reverse=True)
    assert complaints == []
    page.close()


def test_a_number_opens_the_records_it_comes_from(browser, report):
    page, _, _ = open_page(browser, report, "desktop")
    button = page.locator("td button[popovertarget]").first
    records = page.locator(f"#{button.get_attribute('popovertarget')}")
    assert not records.is_visible()
    button.click()
    assert records.is_visible()
    for link in records.locator("a").all():
        target = report.parent / link.get_attribute("href")
        assert target.resolve().is_file()
    page.close()
