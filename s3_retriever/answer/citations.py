"""Citations: which evidence supports which sentence of an answer."""

from __future__ import annotations

import math
import re
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
# A number that is not part of a word: 1887, 1,200 or 12.5.
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*(?!\w)")
_SEPARATOR = re.compile(r"[.,](?=\d{3}(?!\d))")


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
        In the order of the answer; for one sentence, the best span first, and among equals the one
        that the search scored higher. A sentence without content words, or with hardly any words
        that a span has, has no citation.
    """
    terms = [{*_terms(title_of(span.metadata)), *_terms(span.text)} for span in evidence]
    frequencies = Counter(term for found in terms for term in found)

    def content(found: set[str]) -> float:
        # A word that no span has is often the answer's own ("The answer is ..."), so it counts as
        # little as one that all have.
        counts = (frequencies[term] or len(terms) for term in found)
        return sum(math.log1p(len(terms) / (1 + count)) for count in counts)

    citations: list[Citation] = []
    for start, end in split_sentences(text):
        said = _terms(text[start:end])
        whole = content(said)
        shares = [content(said & found) / whole if said else 0.0 for found in terms]
        least = max(_LEAST, _OF_BEST * max(shares, default=0.0))
        supporting = [
            Citation(start, end, span, share)
            for span, share in zip(evidence, shares, strict=True)
            if share >= least
        ]
        citations += sorted(supporting, key=lambda cited: (-cited.support, -cited.span.score))
    return tuple(citations)


def _terms(text: str) -> set[str]:
    """The distinct terms of a text; a number is a single term, without its thousands separators."""
    numbers = {_SEPARATOR.sub("", number) for number in _NUMBER.findall(text)}
    return numbers | set(analyze(_NUMBER.sub(" ", text)))
