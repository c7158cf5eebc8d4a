"""Metrics of evidence retrieval besides evidence recall, for one question each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from s3_retriever.calibration.evaluation import overlap
from s3_retriever.calibration.question_sets import Context, Piece, Question

_RANKS = 10
# Short answers that occur in any text by chance.
_NO_STRINGS = {"yes", "no"}


def answer_recall(question: Question, context: Context, found: Sequence[Piece]) -> float | None:
    """1 where an answer's string occurs in a piece, regardless of case, else 0.

    None where there is no such string to be found: none of the answers occurs in the documents,
    or the answer is yes or no.
    """
    answers = [answer.casefold() for answer in question.answers]
    answers = [answer for answer in answers if answer.strip() and answer not in _NO_STRINGS]
    if not _any_occurs(answers, (document.text for document in context.documents)):
        return None
    return float(_any_occurs(answers, (piece.text for piece in found)))


def ndcg(question: Question, found: Sequence[Piece]) -> float:
    """Normalised discounted cumulative gain of the first ten pieces.

    A piece gains 1 where it overlaps evidence that no piece before it does, else 0. The ideal
    ranking begins with as many such pieces as there are pieces of evidence.
    """
    left = set(question.evidence)
    gained = 0.0
    for rank, piece in enumerate(found[:_RANKS], start=1):
        touched = {evidence for evidence in left if overlap(evidence, piece)}
        gained += bool(touched) / math.log2(rank + 1)
        left -= touched
    ideal = range(1, min(_RANKS, len(question.evidence)) + 1)
    return gained / sum(1 / math.log2(rank + 1) for rank in ideal)


def reciprocal_rank(question: Question, found: Sequence[Piece]) -> float:
    """1 over the rank of the first piece that overlaps evidence; 0 where none does."""
    for rank, piece in enumerate(found, start=1):
        if any(overlap(evidence, piece) for evidence in question.evidence):
            return 1 / rank
    return 0.0


def _any_occurs(answers: Sequence[str], texts: Iterable[str]) -> bool:
    joined = "\n".join(texts).casefold() if answers else ""
    return any(answer in joined for answer in answers)
