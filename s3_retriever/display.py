"""How results look in a notebook: HTML that is escaped, bounded, and in need of nothing else.

Colours are inherited or half transparent, which reads on a light and on a dark page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from s3_retriever.printable import printable

MOST_ROWS = 10
LIST_CHARACTERS = 400
TEXT_CHARACTERS = 4_000
NAME_CHARACTERS = 120

DIM = "opacity:.65;font-size:.85em"
LINE = "1px solid rgba(128,128,128,.3)"
_CELL = "text-align:left;vertical-align:top;padding:.15em .8em .15em 0;border:none"
# The background of a token, or the colour of a bar, at full strength.
HEAT = "rgba(255,160,0,{:.2f})"
_BAR = {True: "rgba(255,160,0,.7)", False: "rgba(110,140,220,.7)"}


def index_html(stats: Mapping[str, Any]) -> str:
    """An index, by its `stats`: where it is, what it holds, and what it was made with."""
    recipe = stats["recipe"]
    rows = [
        ("documents", f"{stats['documents']:,}"),
        ("sentences", f"{stats['sentences']:,}"),
        ("tokens", f"{stats['tokens']:,}"),
        ("size", f"{stats['bytes'] / 1e6:,.1f} MB"),
        ("host", stats["host"]),
        ("recipe", recipe.get("name") if isinstance(recipe, Mapping) else recipe),
    ]
    where = "in memory" if stats["path"] is None else f"at {label(stats['path'])}"
    return frame(f"<b>S3Index</b> {where}{facts((name, str(value)) for name, value in rows)}")


def error_html(error: Exception) -> str:
    """Why there is nothing to show."""
    return frame(escaped(str(error), LIST_CHARACTERS))


def bar(value: float, width: float = 1.0) -> str:
    """A bar, some em wide, in another colour for a negative value."""
    style = f"display:inline-block;height:.7em;width:{width:.2f}em;background:{_BAR[value >= 0]}"
    return f'<span style="{style}"></span>'


def frame(content: str) -> str:
    """What a notebook shows."""
    style = "line-height:1.45;max-width:56em;color:inherit;text-align:left"
    return f'<div style="{style}">{content}</div>'


def table(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A section with a table; empty without rows."""
    cells = [row(map(label, each)) for each in rows]
    if not cells:
        return ""
    heads = "".join(f'<th style="{_CELL};{DIM};font-weight:normal">{name}</th>' for name in names)
    return section(title, table_of([f"<tr>{heads}</tr>", *cells]))


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A table of names and values."""
    return table_of(row((f'<span style="{DIM}">{name}</span>', label(v))) for name, v in pairs)


def table_of(rows: Iterable[str]) -> str:
    """A table of rows."""
    # Notebooks centre tables and give their rows backgrounds.
    style = "border-collapse:collapse;border:none;font-size:inherit;margin:0"
    style += ";background:none;color:inherit"
    return f'<table style="{style}">{"".join(rows)}</table>'


def row(cells: Iterable[str]) -> str:
    """A row of cells, which are HTML."""
    content = "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)
    return f'<tr style="background:none">{content}</tr>'


def section(title: str, content: str) -> str:
    """A heading and what it is of."""
    return f'<div style="margin-top:.6em"><b>{title}</b></div>{content}'


def paragraph(content: str) -> str:
    """A text with its line breaks."""
    # The writing direction of a document's text ends with it.
    style = "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate"
    return f'<div dir="auto" style="{style}">{content}</div>'


def label(text: str) -> str:
    """An id, a title or a few tokens, on one line."""
    # Cut first: a long text is not worth splitting.
    cut = text[: 4 * NAME_CHARACTERS]
    joined = " ".join(cut.split())
    longer = len(text) > len(cut) and len(joined) <= NAME_CHARACTERS
    return f"<bdi>{escaped(joined + '…' * longer, NAME_CHARACTERS)}</bdi>"


def escaped(text: str, characters: int | None = None) -> str:
    """A text for a page; of a longer one, its beginning."""
    if characters is not None and len(text) > characters:
        text = text[:characters] + "…"
    return escape(printable(text))
