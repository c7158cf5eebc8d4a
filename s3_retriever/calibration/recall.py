"""Evidence recall: what a calibration improves and the benchmark reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from s3_retriever.calibration.sample import Evidence

# Evidence counts as found when pieces cover this share of its characters: sentence boundaries of
# the labels and of the index may differ by an abbreviation or a quotation mark.
_COVERED = 0.8


class Located(Protocol):
    """A piece of a document that something found; `Span` is one."""

    @property
    def document_id(self) -> str:
        """The document's id."""

    @property
    def start(self) -> int:
        """Offset of the first character in the document."""

    @property
    def end(self) -> int:
        """Offset after the last one."""


def evidence_recall(evidence: Sequence[Evidence], found: Sequence[Located]) -> float:
    """Share of the evidence that was found.

    A sentence is found when the pieces cover 80 % of its characters; what is labelled as a whole
    (a paragraph, a section, a turn: `any_part`) when any part of it is.
    """
    hits = [_is_found(part, found) for part in evidence]
    return sum(hits) / len(hits)


def overlap(evidence: Evidence, piece: Located) -> int:
    """Characters of the evidence that a piece covers."""
    if piece.document_id != evidence.document_id:
        return 0
    return max(0, min(piece.end, evidence.end) - max(piece.start, evidence.start))


def _is_found(evidence: Evidence, found: Sequence[Located]) -> bool:
    covered = sum(overlap(evidence, piece) for piece in found)
    if evidence.any_part:
        return covered > 0
    return covered >= _COVERED * (evidence.end - evidence.start)
