"""The page of faults lists what the tests inject, and nothing else."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("faults_conftest", Path(__file__).with_name("conftest.py"))
_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_conftest)


def test_every_fault_has_its_row_and_no_row_is_left_over():
    declared = _conftest.declared_faults()
    assert list(_conftest.rows_of_page()) == declared
    assert len(declared) == len(set(declared)) >= 25
