"""A run of tests ends with the seconds of each room, on one process and on several."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"


@pytest.mark.parametrize("processes", ["0", "2"])
def test_the_seconds_of_each_room_are_printed(tmp_path, processes):
    for room, seconds in (("slow", 0.9), ("slow/inner", 0.7), ("quick", 0.0)):
        (tmp_path / "tests" / room).mkdir(parents=True)
        text = f"import time\n\ndef test_it():\n    time.sleep({seconds})\n"
        (tmp_path / "tests" / room / f"test_{Path(room).name}.py").write_text(text)
    (tmp_path / "tests" / "test_top.py").write_text("def test_it():\n    assert False\n")
    shutil.copy(CONFTEST, tmp_path / "tests")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    words = [sys.executable, "-m", "pytest", "--import-mode=importlib", "-n", processes, "tests"]
    printed = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True).stdout
    (line,) = re.findall(r"seconds of each room =+\n(.*)\n", printed)
    seconds = {room: int(number) for room, number in (part.split() for part in line.split(", "))}
    assert set(seconds) == {"slow", "quick", "tests"} and "1 failed, 3 passed" in printed
    assert seconds["slow"] >= 2 and seconds["slow"] > seconds["quick"]
