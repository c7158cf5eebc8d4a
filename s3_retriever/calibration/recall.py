"""Evidence recall: what a calibration improves."""

from __future__ import annotations

from collections.abc import Sequence

from s3_retriever.calibration.sample import Evidence, LabelledQuestion
from s3_retriever.search import Span

# Evidence counts as found when spans cover this share of its characters: sentence boundaries of
# the labels and of the index may differ by an abbreviation or a quotation mark.
_COVERED = 0.8


def evidence_recall(question: LabelledQuestion, spans: Sequence[Span]) -> float:
    """Share of a question's evidence that spans cover (touch, where any part of it counts)."""
    hits = [_is_found(evidence, spans) for evidence in question.evidence]
    return sum(hits) / len(hits)


def _is_found(evidence: Evidence, spans: Sequence[Span]) -> bool:
    overlap = sum(
        max(0, min(span.end, evidence.end) - max(span.start, evidence.start))
        for span in spans
        if span.document_id == evidence.document_id
    )
    return overlap > 0 and (
        evidence.any_part or overlap >= _COVERED * (evidence.end - evidence.start)
    )
