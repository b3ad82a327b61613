"""Settings of every test process."""

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

# One thread each, also of the processes that tests start: the workers share the cores already.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Each test and the fixtures it is the first to ask for draw the same numbers in every run, alone or among all."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def own_caches(tmp_path_factory):
    """What runs keep for later runs is not kept in the home of who tests; files of the Hub stay where they are."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    os.environ.setdefault("HF_HOME", os.path.join(home, "huggingface"))
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("caches"))


def pytest_terminal_summary(terminalreporter):
    """Seconds of each room, the first folder under tests/, summed over the processes that ran its tests."""
    rooms = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                _, *folders = Path(report.nodeid.partition("::")[0]).parts[:-1] or ("",)
                rooms[folders[0] if folders else "tests"] += report.duration
    if rooms:
        terminalreporter.section("seconds of each room")
        terminalreporter.line(", ".join(f"{room} {seconds:.0f}" for room, seconds in rooms.most_common()))


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs a chromium on the PATH; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    # No start-up traffic: nothing may be asked of a network here.
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()
