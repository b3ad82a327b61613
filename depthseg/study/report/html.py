"""The report as one self-contained HTML file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from .sections import Section


def to_html(numbers: Mapping[str, Any], sections: Sequence[Section], images: Mapping[str, bytes]) -> str:
    """The whole report; only links to records and PDFs refer to other files.

    Args:
        numbers: See `study_numbers`.
        sections: The sections.
        images: PNG of each figure, by name.
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
