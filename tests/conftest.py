"""Settings of every test process."""

import os

import pytest

# One thread each, also of the processes that tests start: the workers share the cores already.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def own_caches(tmp_path_factory):
    """What runs keep for later runs is not kept in the home of who tests; files of the Hub stay where they are."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    os.environ.setdefault("HF_HOME", os.path.join(home, "huggingface"))
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("caches"))
