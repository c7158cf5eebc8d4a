"""The order in which sentences come up for the result: best first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from s3_retriever.search.largest import nth_largest
from s3_retriever.search.ranking import Ranking

# Sentences that are sorted at first, and then; most searches need no more.
_SORTED = (64, 1_024)


class BestFirst:
    """Eligible sentences by falling score, earlier ones first among equals.

    Args:
        ranking: Scores of all sentences.
    """

    def __init__(self, ranking: Ranking) -> None:
        self.ranking = ranking

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """Numbers and scores."""
        for numbers in self.sorted():
            yield from zip(numbers.tolist(), self.ranking.scores[numbers].tolist(), strict=True)

    def take(self, number: int) -> None:
        """Be told that a sentence is in the result, which changes nothing here."""

    def sorted(self) -> Iterator[NDArray[np.int64]]:
        """Numbers by falling score, the best few and, when they are used up, more."""
        eligible = self.ranking.eligible
        scores = np.where(eligible, self.ranking.scores, -np.inf)
        limit = np.inf
        for n in _SORTED:
            if n < len(scores):
                least = nth_largest(scores, n)
                yield self._falling((scores > least) & (scores <= limit))
                limit = least
        yield self._falling(eligible & (scores <= limit))

    def _falling(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        numbers = np.flatnonzero(chosen)
        return numbers[np.argsort(-self.ranking.scores[numbers], kind="stable")]
