"""Ranking the sentences of a snapshot in one of three modes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from s3_retriever.index.snapshot import Sentences
from s3_retriever.recipe import Recipe
from s3_retriever.search.fusion import fuse_by_union, moments, weigh
from s3_retriever.search.signals import Coactivation, TermGains, count_terms, term_gains

Mode = Literal["hybrid", "s3", "bm25"]
Source = Literal["s3", "sentence", "bm25", "edge", "hop"]
Part = Literal[Source, "document", "coverage"]


@dataclass(frozen=True)
class Ranking:
    """Scores of all sentences of a snapshot.

    Attributes:
        sentences: What is ranked.
        scores: float64 [n].
        eligible: Which sentences may be returned, bool [n].
        signals: By source, its own scores, float64 [n].
        parts: What each source, and the document, adds to the scores, float64 [n], where they are
            a sum.
        coactivation: Where the `s3` signal came from; None in mode `bm25`.
        terms: Where the `bm25` signal came from; None in mode `s3`.
    """

    sentences: Sentences
    scores: NDArray[np.float64]
    eligible: NDArray[np.bool_]
    signals: Mapping[Source, NDArray[np.float64]]
    parts: Mapping[Part, NDArray[np.float64]]
    coactivation: Coactivation | None
    terms: TermGains | None

    def sources(self, first: int, last: int) -> tuple[Source, ...]:
        """The signals by which one of these sentences is at least average, or else the best.

        The second hop reaches many sentences a little; it is named where it adds the most.
        """
        standing = {}
        for source, signal in self.signals.items():
            highest = float(signal[first : last + 1].max())
            if highest > 0:
                mean, deviation = self._moments[source]
                standing[source] = (highest - mean) / deviation if deviation > 0 else 0.0
        if "hop" in standing and len(standing) > 1 and not self._led(first, last):
            del standing["hop"]
        best = max(standing.values())
        return tuple(source for source, z in standing.items() if z >= 0 or z == best)

    @property
    def n_shares(self) -> int:
        """How many features and terms the question has."""
        features = self.coactivation.n_features if self.coactivation else 0
        return features + (len(self.terms.terms) if self.terms else 0)

    def shares(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each feature and term of the question adds to the scores of some sentences.

        A signal's part exceeds the lowest one by what its features, or terms, add, each as much
        as it has of the signal.

        Args:
            numbers: Of sentences [n], ascending.

        Returns:
            float64 [n, n_shares], features first. Of a ranking in mode `s3` or `hybrid`, with
            fusion by sum and scoring by `cover`.
        """
        assert self.coactivation is not None
        bounds = self.sentences.bounds
        cuts = np.searchsorted(numbers, bounds).tolist()
        features = [
            self.coactivation.shares(place, numbers[start:end] - bounds[place])
            for place, (start, end) in enumerate(pairwise(cuts))
            if start < end
        ]
        shares = [self._of_part("s3", numbers, np.concatenate(features))]
        if self.terms is not None:
            gains = self.terms.shares(numbers, len(self.scores))
            shares.append(self._of_part("bm25", numbers, gains))
        return np.concatenate(shares, axis=1)

    def _of_part(
        self, source: Source, numbers: NDArray[np.int64], shares: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Shares of a signal [n, m] as shares of what its part has above the lowest."""
        part, signal = self.parts[source][numbers], self.signals[source][numbers]
        above = part - self._lowest[source]
        factors = np.divide(above, signal, out=np.zeros_like(signal), where=signal > 0)
        return shares * factors[:, None]

    @cached_property
    def _lowest(self) -> dict[Source, float]:
        sources: tuple[Source, ...] = ("s3", "bm25")
        return {one: float(self.parts[one].min()) for one in sources if one in self.parts}

    def _led(self, first: int, last: int) -> bool:
        others = [self.parts[source] for source in self.signals if source != "hop"]
        most = np.max([part[first : last + 1] for part in others], axis=0)
        return bool((self.signals["hop"][first : last + 1] > most).any())

    @cached_property
    def _moments(self) -> dict[Source, tuple[float, float]]:
        return {source: moments(s, self.eligible) for source, s in self.signals.items()}


def rank(
    sentences: Sentences,
    question: str,
    coactivation: Coactivation | None,
    recipe: Recipe,
    mode: Mode,
    allowed: NDArray[np.bool_],
    likeness: NDArray[np.float64] | None = None,
) -> Ranking:
    """Score all sentences for a question.

    Args:
        sentences: What to rank.
        question: The question, for BM25.
        coactivation: Its features in the snapshot; not needed in mode `bm25`.
        recipe: How signals are fused in mode `hybrid`.
        mode: `s3`, `bm25` or both fused.
        allowed: Sentences that may be returned [n].
        likeness: Of all sentences to the question [n], where the recipe scores that.
    """
    signals: dict[Source, NDArray[np.float64]] = {}
    terms = None
    if mode != "bm25" and coactivation is not None:
        signals["s3"] = coactivation.sentences()
    if mode != "s3":
        terms = term_gains(sentences, count_terms(question))
        signals["bm25"] = terms.scores(len(sentences))
    if mode == "hybrid" and recipe.edges:
        signals["edge"] = _edges(sentences, allowed, recipe.edges)
    found = np.zeros(len(sentences), dtype=np.bool_)
    for scores in signals.values():
        found |= scores > 0
    eligible = allowed & found
    # Any sentence is a little like any question: by that alone nothing is found.
    if mode != "bm25" and likeness is not None:
        signals["sentence"] = likeness
    parts: dict[Part, NDArray[np.float64]] = {}
    if mode == "bm25":
        scores = signals["bm25"]
    elif recipe.fusion == "union":
        scores = fuse_by_union(signals, eligible)
    else:
        parts = weigh(signals, _weights(recipe), eligible, recipe.candidates)
        scores = reduce(np.add, parts.values())
    return Ranking(sentences, scores, eligible, signals, parts, coactivation, terms)


def _weights(recipe: Recipe) -> dict[Source, float]:
    weights: dict[Source, float] = {"bm25": recipe.lexical_weight}
    if recipe.sentence is not None:
        weights["sentence"] = recipe.sentence.weight
    return weights


def _edges(sentences: Sentences, allowed: NDArray[np.bool_], tokens: int) -> NDArray[np.float64]:
    """1 for the sentences at the first and last `tokens` tokens (M_bias of the paper), else 0."""
    scores = np.zeros(len(sentences))
    numbers = np.flatnonzero(allowed)
    sizes = sentences.column("n_tokens")[numbers].astype(np.int64)
    before = np.cumsum(sizes) - sizes
    after = np.cumsum(sizes[::-1])[::-1] - sizes
    scores[numbers[(before < tokens) | (after < tokens)]] = 1.0
    return scores
