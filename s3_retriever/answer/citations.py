"""Citations: which evidence supports which sentence of an answer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from s3_retriever.document import title_of
from s3_retriever.search import Span
from s3_retriever.text import analyze, split_sentences

# A span is cited if it has at least this share of what an answer's sentence says, and of what the
# best span for that sentence has.
_LEAST = 0.5
_OF_BEST = 0.8


@dataclass(frozen=True, slots=True)
class Citation:
    """A sentence of an answer and a span of the evidence that supports it.

    The match is one of words, so it shows where the words come from; it doesn't prove that the
    span says what the sentence claims.

    Attributes:
        start: Offset of the sentence's first character in the answer's text.
        end: Offset after its last character.
        span: The span. Its text is the document's own, from `span.start` to `span.end`.
        support: Share of the sentence's terms that the span or its title contains, rare terms
            counting more: above 0 and at most 1.
    """

    start: int
    end: int
    span: Span
    support: float


def cite(text: str, evidence: Sequence[Span]) -> tuple[Citation, ...]:
    """Find the spans that support each sentence of an answer.

    Args:
        text: The answer.
        evidence: What it was generated from.

    Returns:
        In the order of the answer; for one sentence, the best span first. A sentence without
        content words, or with words that no span has, has no citation.
    """
    terms = [{*analyze(title_of(span.metadata)), *analyze(span.text)} for span in evidence]
    frequencies = Counter(term for found in terms for term in found)

    def content(found: set[str]) -> float:
        return sum(math.log1p(len(terms) / (1 + frequencies[term])) for term in found)

    citations: list[Citation] = []
    for start, end in split_sentences(text):
        said = set(analyze(text[start:end]))
        whole = content(said)
        shares = [content(said & found) / whole if said else 0.0 for found in terms]
        least = max(_LEAST, _OF_BEST * max(shares, default=0.0))
        supporting = sorted((-share, place) for place, share in enumerate(shares) if share >= least)
        citations += [Citation(start, end, evidence[place], -share) for share, place in supporting]
    return tuple(citations)
