"""The check of the data of a run before its first step."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..data.check import check_dataset, check_options
from .build import source_of

if TYPE_CHECKING:
    from .options import DataOptions

logger = logging.getLogger(__name__)


def require_sound_data(data: DataOptions) -> None:
    """Read every file of the data of a run, and log what is worth knowing; data sets that are rendered are sound.

    Raises:
        ValueError: Something is wrong; one sentence for each thing.
    """
    name, root = source_of(data)
    known = check_options(name) if name is not None else None
    if known is None or root is None:
        return
    both = [{**data.options, **own} for own in (data.train_options, data.val_options)]
    both = [{key: value for key, value in options.items() if key in known} for options in both]
    for options in both[:1] if both[0] == both[1] else both:
        report = check_dataset(name, root, **options)
        if report.problems:
            lines = [f"{root} was checked before training, and something is wrong with it:"]
            lines += [f"- {problem}" for problem in report.problems]
            lines.append("Mend it, or set data.check=false to train on it as it is.")
            raise ValueError("\n".join(lines))
        logger.info("%s", report)
