"""The report as one HTML page, rendered from its Markdown."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engine.atomic import atomic_path
from .markdown import anchor

try:
    from markdown_it import MarkdownIt
except ImportError as error:
    raise ImportError(
        'Rendering a report as HTML needs markdown-it-py: python -m pip install "markdown-it-py>=3"'
    ) from error

if TYPE_CHECKING:
    from markdown_it.renderer import RendererHTML
    from markdown_it.token import Token

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}: results of a study</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}</main>
</body>
</html>
"""


def write_page(report: Path) -> Path:
    """Write `index.html` beside a report.

    Args:
        report: The Markdown file; its figures become part of the page, which refers to other files only by links.

    Returns:
        The page.
    """
    reader = MarkdownIt("commonmark").enable("table")
    reader.add_render_rule("table_open", _open_table)
    reader.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = reader.parse(report.read_text(encoding="utf-8"))
    for token, content in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(_plain(content)))
        for child in token.children or ():
            if child.type == "image":
                image = (report.parent / child.attrGet("src")).read_bytes()
                child.attrSet("src", f"data:image/png;base64,{base64.b64encode(image).decode()}")
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    body = reader.renderer.render(tokens, reader.options, {})
    page = report.with_name("index.html")
    with atomic_path(page) as temporary:
        text = PAGE.format(title=html.escape(_plain(tokens[1])), style=style, body=body)
        temporary.write_text(text, encoding="utf-8")
    return page


def _open_table(self: RendererHTML, tokens: Sequence[Token], place: int, *_: Any) -> str:
    """A table may be wider than the screen and scrolls on its own; its caption is the paragraph before it."""
    caption = html.escape(_plain(tokens[place - 2]))
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table>\n'


def _plain(token: Token) -> str:
    return "".join(child.content for child in token.children)
