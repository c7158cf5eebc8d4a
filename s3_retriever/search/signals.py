"""Signals: what co-activation, mean states and BM25 score each sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from s3_retriever.encoder.encoder import QuestionFeatures
from s3_retriever.index import Segment, Snapshot
from s3_retriever.index.snapshot import Sentences
from s3_retriever.recipe import Recipe
from s3_retriever.text.terms import analyze, term_hash


def smooth(
    scores: NDArray[np.float64], first_tokens: NDArray[np.int64], kernel: int
) -> NDArray[np.float64]:
    """Sum the scores of the `kernel` tokens around each token of its own document.

    S3-Attention convolves token scores before it looks for peaks; the shape of its kernel is not
    stated, a box is taken.

    Args:
        scores: Token scores [n].
        first_tokens: Position of each document's first token, ascending, the first of them 0.
        kernel: Width in tokens; 1 leaves the scores as they are.

    Returns:
        Smoothed scores [n].
    """
    if kernel == 1 or len(scores) == 0:
        return scores
    left, right = box(kernel)
    positions = np.arange(len(scores))
    low, high = positions - left, positions + right + 1
    starts = np.unique(first_tokens)
    ends = np.append(starts[1:], len(scores))
    # Only the tokens next to a document's border need their window cut.
    for offset in range(left):
        near = starts + offset
        inside = near < ends
        low[near[inside]] = starts[inside]
    for offset in range(right):
        near = ends - 1 - offset
        inside = near >= starts
        high[near[inside]] = ends[inside]
    total = np.concatenate([[0.0], np.cumsum(scores)])
    return np.asarray(total[high] - total[low])


def box(kernel: int) -> tuple[int, int]:
    """How many tokens a kernel takes to the left and to the right of its centre."""
    return kernel // 2, (kernel - 1) // 2


@dataclass(frozen=True, slots=True)
class FeatureWeights:
    """The question's features at one tap.

    Attributes:
        features: Ascending, int64 [f].
        weights: Factor of each, without its IDF, float64 [f].
    """

    features: NDArray[np.int64]
    weights: NDArray[np.float64]


def question_weights(
    question: Mapping[str, QuestionFeatures], recipe: Recipe
) -> dict[str, FeatureWeights]:
    """Pool the features of a question's tokens (w_q of S3-Attention, eq. 7), by tap name."""
    pooled = {}
    for tap, part in recipe.taps.items():
        found = question[tap]
        fires = found.indices >= 0
        features, which = np.unique(found.indices[fires], return_inverse=True)
        weights = np.zeros(len(features))
        pool = np.add if recipe.pooling == "sum" else np.maximum
        pool.at(weights, which, found.values[fires].astype(np.float64))
        pooled[tap] = FeatureWeights(features, part.weight * weights**recipe.weight_power)
    return pooled


class Coactivation:
    """The question's features in a snapshot: document frequencies and scores.

    Args:
        snapshot: What to score.
        question: Weights of the question's features, by tap name.
        recipe: Power of the IDF, and how a sentence scores.

    Attributes:
        weights: By tap name, the weight of each feature with its IDF, float64 [f].
    """

    def __init__(
        self, snapshot: Snapshot, question: Mapping[str, FeatureWeights], recipe: Recipe
    ) -> None:
        self.question = question
        self._recipe = recipe
        self._segments = snapshot.segments
        self.weights = {
            tap: part.weights * _idf(snapshot, tap, part.features) ** recipe.idf_power
            for tap, part in question.items()
        }

    @property
    def n_features(self) -> int:
        """How many features the question has at all taps."""
        return sum(len(weights) for weights in self.weights.values())

    @cached_property
    def tokens(self) -> list[NDArray[np.float64]]:
        """For each segment the smoothed token scores, float64 [tokens]."""
        return [
            smooth(
                self.raw(place),
                segment.documents["first_token"].astype(np.int64),
                self._recipe.kernel,
            )
            for place, segment in enumerate(self._segments)
        ]

    def raw(self, place: int) -> NDArray[np.float64]:
        """Token scores [tokens] of the segment at a place of the snapshot, before smoothing."""
        segment = self._segments[place]
        scores = np.zeros(segment.n_tokens)
        for tap, part in self.question.items():
            segment.add_to_tokens(tap, part.features, self.weights[tap], scores)
        return scores

    def sentences(self) -> NDArray[np.float64]:
        """The score of each sentence of the snapshot [n], as `Recipe.scoring` says."""
        score = self._peaks if self._recipe.scoring == "peak" else self._cover
        parts = [
            score(place, segment)
            for place, segment in enumerate(self._segments)
            if segment.n_sentences
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _peaks(self, place: int, segment: Segment) -> NDArray[np.float64]:
        """The best token of each sentence (S3-Attention's max within a span)."""
        first = segment.sentences["first_token"].astype(np.int64)
        return np.asarray(np.maximum.reduceat(self.tokens[place], first))

    def _cover(self, _place: int, segment: Segment) -> NDArray[np.float64]:
        """The distinct features of each sentence, long sentences discounted."""
        scores = np.zeros(segment.n_sentences)
        for tap, part in self.question.items():
            segment.add_to_sentences(tap, part.features, self.weights[tap], scores)
        # Sentences are short, so that few powers serve all of them.
        lengths = segment.sentence_tokens
        powers = np.arange(1, int(lengths.max()) + 1) ** -self._recipe.length_power
        scores *= powers[lengths - 1]
        return scores

    def shares(self, place: int, ordinals: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each feature adds to the scores of some sentences, where they score as `cover`.

        Args:
            place: Of the sentences' segment in the snapshot.
            ordinals: Sentences of the segment [n], ascending.

        Returns:
            float64 [n, f], the features of tap after tap.
        """
        segment = self._segments[place]
        parts = [
            segment.features_in(tap, part.features, ordinals) * self.weights[tap]
            for tap, part in self.question.items()
        ]
        lengths = segment.sentence_tokens[ordinals].astype(np.float64)
        return np.concatenate(parts, axis=1) * lengths[:, None] ** -self._recipe.length_power

    def contributions(
        self, place: int, start: int, end: int
    ) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Which of the question's features fire on the tokens from `start` to `end`.

        Returns:
            By tap name, token positions [n] and the index [n] of the feature among the tap's
            `weights`.
        """
        found = {}
        for tap, part in self.question.items():
            positions, which = self._segments[place].postings(tap, part.features)
            inside = (positions >= start) & (positions < end)
            found[tap] = (positions[inside], which[inside])
        return found


def _idf(snapshot: Snapshot, tap: str, features: NDArray[np.int64]) -> NDArray[np.float64]:
    """`-log(share of the live tokens on which the feature fires)`, 0 where it never does."""
    frequency = np.zeros(len(features))
    for segment in snapshot.segments:
        frequency += segment.frequencies(tap, features)
    share = frequency / max(snapshot.n_tokens, 1)
    return -np.log(share, where=share > 0, out=np.zeros(len(features)))


def likeness_of(
    snapshot: Snapshot, question: Mapping[str, QuestionFeatures], recipe: Recipe
) -> NDArray[np.float64] | None:
    """The cosine of each sentence's mean state, as its code tells it, and the question's.

    Args:
        snapshot: The sentences.
        question: Features of the question, and where it points at the recipe's tap of sentences.
        recipe: Names the tap.

    Returns:
        float64 [n], about -1 to 1; None where the recipe has no such tap.
    """
    if recipe.sentence is None:
        return None
    tap = recipe.sentence.tap
    (direction,) = question[tap].values
    parts = [segment.likeness(tap, direction) for segment in snapshot.segments]
    return np.concatenate(parts) if parts else np.zeros(0)


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
