"""Spans, for a reader and for a program."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from s3_retriever.search import Span

# Wider lines are hard to read.
_WIDEST = 100
_INDENT = "   "


def span_json(span: Span) -> dict[str, Any]:
    """A span as JSON values."""
    return {
        "id": span.id,
        "document_id": span.document_id,
        "start": span.start,
        "end": span.end,
        "score": span.score,
        "sources": list(span.sources),
        "tokens": span.tokens,
        "text": span.text,
        "metadata": dict(span.metadata),
    }


def show_spans(console: Console, spans: Sequence[Span]) -> None:
    """Print spans, best first, with a blank line between."""
    for rank, span in enumerate(spans, 1):
        if rank > 1:
            console.print()
        show_heading(console, rank, span)
        show_text(console, Text(re.sub(r"\s+", " ", span.text)))


def show_heading(console: Console, rank: int, span: Span) -> None:
    """Print where a span is from and why it was found, on two lines."""
    title = " ".join(str(span.metadata.get("title") or span.document_id).split())
    console.print(Text.assemble((f"{rank}. ", "cyan"), (title, "bold")), soft_wrap=True)
    size = f"{span.tokens} token{'' if span.tokens == 1 else 's'}"
    facts = f"score {span.score:.2f}, {' + '.join(span.sources)}, {size}"
    console.print(Text(f"{_INDENT}{span.id}  ({facts})", "dim"), soft_wrap=True)


def show_text(console: Console, text: Text) -> None:
    """Print a text, wrapped and indented."""
    for line in _lines(console, text):
        console.print(Text(_INDENT) + line, soft_wrap=True)


def _lines(console: Console, text: Text) -> Iterator[Text]:
    for line in text.wrap(console, max(min(console.width, _WIDEST) - len(_INDENT), 20)):
        line.rstrip()
        yield line
