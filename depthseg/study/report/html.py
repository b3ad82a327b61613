"""The report as one HTML page, rendered from its Markdown."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from ...engine.atomic import atomic_path
from .markdown import anchor

try:
    from markdown_it import MarkdownIt
except ImportError as error:
    raise ImportError(
        'Rendering a report as HTML needs markdown-it-py: python -m pip install "markdown-it-py>=3"'
    ) from error

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
    # Tables may be wider than the screen; they scroll on their own, with the keyboard as well.
    reader.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0"><table>\n')
    reader.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = reader.parse(report.read_text(encoding="utf-8"))
    for token, content in zip(tokens, tokens[1:], strict=False):
        if token.type == "heading_open":
            token.attrSet("id", anchor("".join(child.content for child in content.children)))
        for child in token.children or ():
            if child.type == "image":
                image = (report.parent / child.attrGet("src")).read_bytes()
                child.attrSet("src", f"data:image/png;base64,{base64.b64encode(image).decode()}")
    page = report.with_name("index.html")
    with atomic_path(page) as temporary:
        temporary.write_text(
            PAGE.format(
                title=html.escape("".join(child.content for child in tokens[1].children)),
                style=Path(__file__).with_name("page.css").read_text(encoding="utf-8"),
                body=reader.renderer.render(tokens, reader.options, {}),
            ),
            encoding="utf-8",
        )
    return page
