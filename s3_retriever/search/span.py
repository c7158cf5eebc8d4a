"""`Span`: a piece of evidence, and how it looks in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsIndex, overload

from s3_retriever.display import (
    DIM,
    LIST_CHARACTERS,
    NAME_CHARACTERS,
    TEXT_CHARACTERS,
    escaped,
    frame,
    label,
    paragraph,
)
from s3_retriever.document import title_of
from s3_retriever.types import Contribution, Source

# Spans of a list that are shown.
_MOST_SPANS = 50


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of evidence.

    Attributes:
        text: The document's text from `start` to `end`.
        score: Higher is better; comparable within one search only.
        relevance: How sure it is to be more than chance, 0 to 1; comparable between searches.
        document_id: The document's id.
        start: Offset of the first character in the document.
        end: Offset after the last character.
        sources: The signals that found it: `s3` (features), `sentence` (its mean state), `bm25`,
            `edge`, and `hop` if the second hop adds the most.
        metadata: A copy of the document's metadata.
        tokens: Length in tokens of the host; of a text with more than ten characters to a token, a
            tenth of its characters.
        contributions: What each source, the document, and a second look (`rerank`) add to `score`,
            and what `redundancy` takes off; empty in mode `bm25` and with fusion `Interleave`,
            which do not add scores.
        bridge: Id of the span that leads to this one in the second hop; None if none does.
    """

    text: str
    score: float
    relevance: float
    document_id: str
    start: int
    end: int
    sources: tuple[Source, ...]
    metadata: Mapping[str, Any] = field(hash=False)
    tokens: int
    contributions: Mapping[Contribution, float] = field(default_factory=dict, hash=False)
    bridge: str | None = None

    @property
    def id(self) -> str:
        """`document_id:start-end`, the same in every search."""
        return f"{self.document_id}:{self.start}-{self.end}"

    def _repr_html_(self) -> str:
        return frame(span_html(self, "", TEXT_CHARACTERS))


class SpanList(list[Span]):
    """A list of spans that notebooks show as evidence; in every other respect a list."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> Span: ...

    @overload
    def __getitem__(self, index: slice) -> SpanList: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Span | SpanList:
        chosen = super().__getitem__(index)
        return chosen if isinstance(chosen, Span) else SpanList(chosen)

    def _repr_html_(self) -> str | None:
        """None, which leaves it to the text, if something else was put into the list."""
        if not all(isinstance(span, Span) for span in self):
            return None
        return frame(spans_html(self) or f'<span style="{DIM}">Nothing found.</span>')


def spans_html(spans: Sequence[Span]) -> str:
    """Spans, numbered, with the beginning of each one's text."""
    shown = "".join(
        span_html(span, f"{rank}. ", LIST_CHARACTERS)
        for rank, span in enumerate(spans[:_MOST_SPANS], 1)
    )
    more = len(spans) - _MOST_SPANS
    return shown + (f'<div style="{DIM}">and {more:,} more</div>' if more > 0 else "")


def span_html(span: Span, number: str, characters: int) -> str:
    """A span: where it is from, why it was found, and its text, or the beginning of it."""
    content = heading_html(span, number) + paragraph(escaped(span.text, characters))
    return f'<div style="margin:.5em 0">{content}</div>'


def heading_html(span: Span, number: str) -> str:
    """Where a span is from, and why it was found."""
    title, name = title_of(span.metadata), label(span.id)
    facts = f"score {span.score:.2f}, relevance {span.relevance:.2f}"
    sources = escaped(" + ".join(span.sources), NAME_CHARACTERS)
    tokens = f"{span.tokens:,} token{'' if span.tokens == 1 else 's'}"
    line = f"{facts}, {sources}, {tokens}" if span.sources else f"{facts}, {tokens}"
    head, line = (label(title), f"{name} &nbsp; {line}") if title else (name, line)
    return f'<div>{number}<b>{head}</b></div><div style="{DIM}">{line}</div>'
