"""Evidence as one text, under its budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from s3_retriever.document import title_of
from s3_retriever.search import Span


def join_evidence(spans: Sequence[Span]) -> str:
    """Spans as one text, in the order they are given.

    Sentences that followed each other do so again, what was left out between others is a line
    break, and a blank line and the next one's title, where it has one, part documents.
    """
    if not spans:
        return ""
    parts = [_title(spans[0]), spans[0].text]
    for before, span in pairwise(spans):
        parts += [_between(before, span), span.text]
    return "".join(parts)


def append_span(spans: list[Span], span: Span) -> None:
    """Add a span to others, as one with the last of them where it begins at that one's end."""
    last = spans[-1] if spans else None
    if last is None or (last.document_id, last.end) != (span.document_id, span.start):
        spans.append(span)
    else:
        text, tokens = last.text + span.text, last.tokens + span.tokens
        spans[-1] = replace(last, text=text, end=span.end, tokens=tokens)


def fit_evidence(
    spans: Sequence[Span], tokens: Callable[[Sequence[Span]], int], budget: int
) -> list[Span]:
    """Leave out the worst spans until the rest fits.

    The spans' own tokens are within the budget already; joining them costs a few more.

    Args:
        spans: In any order, which is kept.
        tokens: Counts the tokens of spans joined.
        budget: Tokens at most.
    """
    kept = list(spans)
    while kept and tokens(kept) > budget:
        # Of equals the later one goes.
        worst = min(range(len(kept)), key=lambda i: (kept[i].score, -i))
        del kept[worst]
    return kept


def _between(before: Span, span: Span) -> str:
    if before.document_id != span.document_id:
        return f"\n\n{_title(span)}"
    gap = span.start - before.end
    return " " * gap if gap in (0, 1) else "\n"


def _title(span: Span) -> str:
    title = title_of(span.metadata)
    return f"{title}\n" if title else ""
