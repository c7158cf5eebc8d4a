"""Coverage: what taken spans have of the question counts less in those that follow."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush, heapreplace

import numpy as np
from numpy.typing import NDArray

from s3_retriever.recipe import CoverageRecipe, Recipe
from s3_retriever.search.best_first import BestFirst
from s3_retriever.search.ranking import Ranking

# Sentences whose features are looked up at once.
_LOOKED_UP = 32


class Coverage(BestFirst):
    """Eligible sentences by falling score, less what repeats the sentences that were taken.

    Scores only fall, so that one that was looked at some time ago is as high as it can be: only
    the sentence in front is looked at again (lazy greedy selection; Minoux, 1978).

    Args:
        ranking: Scores of all sentences, whose parts are added.
        recipe: How much counts again.
    """

    def __init__(self, ranking: Ranking, recipe: CoverageRecipe) -> None:
        super().__init__(ranking)
        self._recipe = recipe
        # Of the sentences in the queue, what each feature and term of the question adds.
        self._shares: dict[int, NDArray[np.float64]] = {}
        self._left = np.ones(ranking.n_shares)
        self._taken = 0
        # Scores, negative, sentences, and how many were taken when the score was computed.
        self._queue: list[tuple[float, int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """Numbers, and scores as of now; once only."""
        chunks = self._chunks()
        chunk = next(chunks, None)
        while self._queue or chunk is not None:
            if chunk is not None and self._may_lead(chunk[0]):
                self._look_up(chunk)
                chunk = next(chunks, None)
                continue
            score, number, taken = self._queue[0]
            if taken == self._taken:
                heappop(self._queue)
                yield number, -score
                del self._shares[number]
            else:
                now = self._score(number) - self._lost(number)
                heapreplace(self._queue, (-now, number, self._taken))

    def take(self, number: int) -> None:
        """From now on what the sentence that came up last has of the question counts less."""
        has = self._shares[number] > 0
        self._left[has] = np.maximum(self._left[has] * self._recipe.decay, self._recipe.floor)
        self._taken += 1

    def _lost(self, number: int) -> float:
        """What the score of a sentence in the queue has lost by now."""
        return float(self._shares[number] @ (1.0 - self._left))

    def _score(self, number: int) -> float:
        return float(self.ranking.scores[number])

    def _chunks(self) -> Iterator[NDArray[np.int64]]:
        for numbers in self.sorted():
            for start in range(0, len(numbers), _LOOKED_UP):
                yield numbers[start : start + _LOOKED_UP]

    def _may_lead(self, number: int) -> bool:
        """Whether a sentence not looked up yet may be better than those in the queue."""
        return not self._queue or self._score(number) > -self._queue[0][0]

    def _look_up(self, chunk: NDArray[np.int64]) -> None:
        """Queue sentences, with what they have of the question."""
        numbers = np.sort(chunk)
        for number, shares in zip(numbers.tolist(), self.ranking.shares(numbers), strict=True):
            self._shares[number] = shares
            heappush(self._queue, (-self._score(number), number, 0))


def order_of(ranking: Ranking, recipe: Recipe) -> BestFirst:
    """The order in which sentences come up. BM25 alone, a baseline, knows no coverage."""
    if recipe.coverage is None or ranking.coactivation is None:
        return BestFirst(ranking)
    return Coverage(ranking, recipe.coverage)
