"""BM25 over sentences, title included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s3_retriever.index import analyze, term_hash
from s3_retriever.search.sentences import Sentences

K1 = 1.5
B = 0.75


@dataclass(frozen=True, slots=True)
class TermGains:
    """What each term of a question adds to the score of each sentence that has it.

    Attributes:
        terms: The question's distinct terms, analysed, length t.
        numbers: Sentences, int64 [n].
        which: The term of each entry, as an index into `terms`, int64 [n].
        gains: BM25 gain of each entry, float64 [n].
    """

    terms: tuple[str, ...]
    numbers: NDArray[np.int64]
    which: NDArray[np.int64]
    gains: NDArray[np.float64]

    def scores(self, size: int) -> NDArray[np.float64]:
        """BM25 scores of all sentences [size]; 0 where no term of the question occurs."""
        return np.bincount(self.numbers, self.gains, minlength=size).astype(np.float64, copy=False)

    def shares(self, numbers: NDArray[np.int64], size: int) -> NDArray[np.float64]:
        """What each term adds to the scores of some sentences [n], of `size` in all; [n, t]."""
        row = np.full(size, -1)
        row[numbers] = np.arange(len(numbers))
        rows = row[self.numbers]
        shares = np.zeros((len(numbers), len(self.terms)))
        kept = rows >= 0
        shares[rows[kept], self.which[kept]] = self.gains[kept]
        return shares


def count_terms(question: str) -> Counter[str]:
    """The terms of a text and how often each occurs."""
    return Counter(analyze(question))


def term_gains(sentences: Sentences, counted: Mapping[str, int]) -> TermGains:
    """BM25 of a question, term by term (Lucene's variant, whose IDF is never negative).

    Args:
        sentences: What to score; deleted ones are in no statistic.
        counted: The question's terms and how often each occurs in it.
    """
    terms = tuple(counted)
    hashes = np.array([term_hash(term) for term in terms], dtype=np.uint64)
    numbers, which, counts = _live_postings(sentences, hashes)
    total = sentences.n_live
    frequency = np.bincount(which, minlength=len(terms))
    idf = np.log1p((total - frequency + 0.5) / (frequency + 0.5))
    weights = idf * np.array([counted[term] for term in terms], dtype=np.float64)
    lengths = sentences.column("n_terms")[numbers].astype(np.float64)
    saturation = K1 * (1 - B + B * lengths / max(sentences.mean_terms, 1.0))
    gains = weights[which] * counts * (K1 + 1) / (counts + saturation)
    return TermGains(terms, numbers, which, gains)


def bm25_each(
    sentences: Sentences, several: Sequence[Mapping[str, int]]
) -> list[NDArray[np.float64]]:
    """BM25 scores of all sentences [n] for each of several questions.

    What the index knows of their terms is looked up once for all.
    """
    found = term_gains(sentences, {term: 1 for counted in several for term in counted})
    rows = []
    for counted in several:
        counts = np.array([counted.get(term, 0) for term in found.terms], dtype=np.float64)
        gains = found.gains * counts[found.which]
        scores = np.bincount(found.numbers, gains, minlength=len(sentences))
        rows.append(scores.astype(np.float64, copy=False))
    return rows


def _live_postings(
    sentences: Sentences, hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    empty = np.zeros(0, dtype=np.int64)
    parts = [(empty, empty, empty)]
    for segment, first in zip(sentences.segments, sentences.bounds[:-1], strict=True):
        ordinals, which, counts = segment.lexical(hashes)
        parts.append((ordinals + first, which, counts))
    numbers, which, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
    if sentences.n_live == len(sentences):
        return numbers, which, counts
    kept = sentences.live[numbers]
    return numbers[kept], which[kept], counts[kept]
