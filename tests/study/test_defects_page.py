"""The page with the price list says what the records say."""

from __future__ import annotations

import pytest
from guide_scripts import load_script
from study.test_defects_prices import OVERRIDES, WITH_DEFECTS, record_all
from study.tiny_study import tiny_study

from depthseg.study.defects.switches import SWITCHES


@pytest.fixture(scope="module")
def script():
    return load_script("price_of_defects")


def test_the_page_is_up_to_date(script):
    page = script.PAGE.read_text(encoding="utf-8")
    assert page == script.fill(page), "run training/guides/price_of_defects.py"
    assert all(f"| `{name}` |" in page for name in SWITCHES)


def test_the_page_takes_what_was_run_from_the_records(script, tmp_path):
    study = tiny_study(tmp_path, *OVERRIDES, text=WITH_DEFECTS)
    record_all(study, tmp_path / "defects")
    page = script.fill(script.PAGE.read_text(encoding="utf-8"), tmp_path)
    assert "| none (mean IoU) | 32.5 | 36.5 |  |" in page
    assert "| none (mean IoU) | not run yet |" in page  # of the other two studies


def test_a_page_without_a_part_is_refused(script):
    with pytest.raises(ValueError, match="0 parts named 'defects_camvid'"):
        script.fill(script.PAGE.read_text(encoding="utf-8").replace("<!-- defects_camvid -->", ""))
