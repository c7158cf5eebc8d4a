"""`Ranking`: the scores of all sentences of a part, and what they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from s3_retriever.features import EncodedQuestion
from s3_retriever.index import Snapshot
from s3_retriever.search.attention import HeadAttention
from s3_retriever.search.fusion import DIGITS, Spread
from s3_retriever.search.parts import Sizes
from s3_retriever.search.relevance import Relevance
from s3_retriever.search.signals import Coactivation, TermGains
from s3_retriever.search.tap_attention import TapAttention
from s3_retriever.types import Contribution, Scores, Source


@dataclass(frozen=True)
class Ranking:
    """Scores of all sentences of a snapshot, which may be a part of the collection that is ranked.

    Attributes:
        snapshot: What is ranked.
        sizes: Those of the collection.
        scores: float64 [n].
        eligible: Which sentences may be returned, bool [n].
        raw_scores: What each signal scores, before fusion, float64 [n].
        contributions: What each signal, and the document, adds to the scores, float64 [n]; empty
            in mode `bm25` and with fusion `Interleave`, which do not add scores.
        question: What the host read of the question; None in mode `bm25`.
        coactivation: The source of the `s3` signal; None in mode `bm25`.
        terms: The source of the `bm25` signal; None in mode `s3`.
        attention: The source of the `heads` signal; None if the recipe does not score heads.
        hop: The second hop; None for a single pass.
        lowest: The lowest contribution of each signal in the collection.
        spreads: By signal, the spread of raw scores over all sentences that may be returned.
        log_odds: Log-odds of each sentence against one drawn at random, float64 [n]; None for a
            host whose log-odds are not known.
        relevance: What relevance depends on besides a sentence's score and log-odds. Like the two
            before, it is known once the scores are final.
        first_scores: The scores before a second look, float64 [n]; None without one.
    """

    snapshot: Snapshot
    sizes: Sizes
    scores: Scores
    eligible: NDArray[np.bool_]
    raw_scores: Mapping[Source, Scores]
    contributions: Mapping[Contribution, Scores]
    question: EncodedQuestion | None = None
    coactivation: Coactivation | TapAttention | None = None
    terms: TermGains | None = None
    attention: HeadAttention | None = None
    hop: Hop | None = None
    lowest: Mapping[Source, float] = field(default_factory=dict)
    spreads: Mapping[Source, Spread] = field(default_factory=dict)
    log_odds: Scores | None = None
    relevance: Relevance | None = None
    first_scores: Scores | None = None

    @property
    def own_scores(self) -> Scores:
        """The scores of the search itself, without a second look, float64 [n]."""
        return self.scores if self.first_scores is None else self.first_scores

    def relevance_of(self, number: int) -> float:
        """The relevance, 0 to 1, of a sentence that may be returned."""
        assert self.relevance is not None
        odds = None if self.log_odds is None else float(self.log_odds[number])
        return self.relevance.of(float(self.own_scores[number]), odds)

    def sources(self, first: int, last: int) -> tuple[Source, ...]:
        """The signals by which these sentences are at least average, and their best signal.

        The second hop adds a little to many sentences; it is named only if it adds the most.

        Args:
            first: Number of the first sentence of a run.
            last: Number of the last sentence of the run.
        """
        standing = {}
        for source, scores in self.raw_scores.items():
            highest = float(scores[first : last + 1].max())
            if highest > 0:
                spread = self.spreads[source]
                deviation = spread.deviation
                standing[source] = (highest - spread.mean) / deviation if deviation > 0 else 0.0
        if "hop" in standing and len(standing) > 1 and not self._led(first, last):
            del standing["hop"]
        # The average of equal scores is one of them, but for rounding.
        standing = {source: round(z, DIGITS) for source, z in standing.items()}
        best = max(standing.values())
        return tuple(source for source, z in standing.items() if z >= 0 or z == best)

    @property
    def n_shares(self) -> int:
        """How many features and terms the question has."""
        features = self.coactivation.n_features if self.coactivation else 0
        return features + (len(self.terms.terms) if self.terms else 0)

    def shares(self, numbers: NDArray[np.int64]) -> Scores:
        """What each feature and term of the question adds to the scores of some sentences.

        A signal's contribution above its lowest is divided among its features or terms in
        proportion to their parts of the raw score.

        Args:
            numbers: Sentences [n], ascending.

        Returns:
            float64 [n, n_shares], features first. Defined for modes `s3` and `hybrid` with fusion
            `ZScore` and scoring `FeatureCoverage`.
        """
        assert isinstance(self.coactivation, Coactivation)
        bounds = self.snapshot.bounds
        cuts = np.searchsorted(numbers, bounds).tolist()
        features = [
            self.coactivation.shares(place, numbers[start:end] - bounds[place])
            for place, (start, end) in enumerate(pairwise(cuts))
            if start < end
        ]
        shares = [self._of_contribution("s3", numbers, np.concatenate(features))]
        if self.terms is not None:
            gains = self.terms.shares(numbers, len(self.scores))
            shares.append(self._of_contribution("bm25", numbers, gains))
        return np.concatenate(shares, axis=1)

    def _of_contribution(
        self, source: Source, numbers: NDArray[np.int64], shares: Scores
    ) -> Scores:
        """Shares of a raw score [n, m] as shares of what it contributes above the lowest."""
        raw = self.raw_scores[source][numbers]
        above = self.contributions[source][numbers] - self.lowest[source]
        factors = np.divide(above, raw, out=np.zeros_like(raw), where=raw > 0)
        return shares * factors[:, None]

    def _led(self, first: int, last: int) -> bool:
        others = [self.contributions[source] for source in self.raw_scores if source != "hop"]
        most = np.max([part[first : last + 1] for part in others], axis=0)
        return bool((self.raw_scores["hop"][first : last + 1] > most).any())


class Bridge(NamedTuple):
    """A sentence that the second hop starts from.

    Attributes:
        span_id: Id of the span that it is.
        number: Its number, if it is of this part; else None.
    """

    span_id: str
    number: int | None


@dataclass(frozen=True, slots=True)
class Hop:
    """What the second pass adds.

    Attributes:
        first: The first pass.
        bridges: Sentences of this part that it started from, by number, best first.
        leaders: For sentences that bridges lead to, by number, the bridge that adds most.
    """

    first: Ranking
    bridges: tuple[int, ...]
    leaders: Mapping[int, Bridge]
