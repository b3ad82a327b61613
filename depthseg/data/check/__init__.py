"""Looking through a data set on disk: what is there, and what is wrong with it."""

from .datasets import check_dataset, check_options
from .report import DatasetReport, SplitCount

__all__ = ["DatasetReport", "SplitCount", "check_dataset", "check_options"]
