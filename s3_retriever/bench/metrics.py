"""Metrics of evidence retrieval."""

from __future__ import annotations

from collections.abc import Sequence

from s3_retriever.bench.datasets import Context
from s3_retriever.search import Span

# A sentence counts as found when spans cover this share of its characters: sentence boundaries
# of the data set and of the index may differ by an abbreviation or a quotation mark.
_COVERED = 0.8


def evidence_recall(context: Context, spans: Sequence[Span]) -> float:
    """Share of a context's evidence that lies in the spans.

    An evidence sentence is found when the spans cover 80 % of its characters. Where the data set
    labels whole paragraphs, one is found when a span lies in it.
    """
    found = [
        _covered(spans, document, start, end, any_part)
        for document, start, end, any_part in context.evidence
    ]
    return sum(found) / len(found) if found else 0.0


def answer_recall(context: Context, spans: Sequence[Span]) -> float:
    """1 where one of the answers occurs in the spans' text, regardless of case, else 0."""
    text = "\n".join(span.text for span in spans).casefold()
    return float(any(answer.casefold() in text for answer in context.question.answers))


def _covered(spans: Sequence[Span], document: str, start: int, end: int, any_part: bool) -> bool:
    overlap = sum(
        max(0, min(span.end, end) - max(span.start, start))
        for span in spans
        if span.document_id == document
    )
    return overlap > 0 if any_part else overlap >= _COVERED * (end - start)
