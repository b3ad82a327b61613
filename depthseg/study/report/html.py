"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from .sections import Section


def to_html(numbers: Mapping[str, Any], sections: Sequence[Section], images: Mapping[str, bytes]) -> str:
    """The whole report; only its links to records and PDFs leave the file.

    Args:
        numbers: See `study_numbers`.
        sections: What is shown.
        images: PNG of each picture, by name.
    """
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html.jinja").render(
        numbers=numbers,
        sections=sections,
        images={name: base64.b64encode(image).decode() for name, image in images.items()},
    )
