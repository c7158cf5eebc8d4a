"""Fusion: several signals become one score, by adding z-scores or by taking turns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from s3_retriever.search.parts import Steps, alone, apart, together
from s3_retriever.types import Scores

_Key = TypeVar("_Key", bound=str)

# Scores whose deviation is below this share of their mean are equal but for rounding.
_EQUAL = 1e-12
# Digits after the point that count: the last ones of a sum depend on the processor.
DIGITS = 9
# Candidates that a part reports, as a multiple of what a signal adds; many more are tied.
_MANY = 16
# Length of the runs whose maxima `nth_largest` looks at first.
_RUN = 64
# Fewer scores than this go through numpy: to load the compiled loops takes a second.
_SMALL = 8_192


@dataclass(frozen=True, slots=True)
class Spread:
    """How scores spread.

    Attributes:
        count: How many there are.
        mean: Their mean.
        squares: Sum of the squared differences from the mean.
    """

    count: int
    mean: float
    squares: float

    @classmethod
    def of(cls, scores: Scores, chosen: NDArray[np.bool_]) -> Spread:
        """The spread of the chosen entries."""
        if len(scores) < _SMALL:
            values = scores[chosen]
            mean = float(values.mean()) if len(values) else 0.0
            return cls(len(values), mean, float(np.square(values - mean).sum()))
        from s3_retriever.search.kernels import mean_and_variance

        count, mean, variance = mean_and_variance(scores, chosen)
        return cls(int(count), float(mean), float(variance) * int(count))

    def __add__(self, other: Spread) -> Spread:
        """The spread of both together (Chan, Golub and LeVeque, 1979)."""
        if not (self.count and other.count):
            return self if self.count else other
        count = self.count + other.count
        apart = other.mean - self.mean
        return Spread(
            count,
            self.mean + apart * other.count / count,
            self.squares + other.squares + apart**2 * self.count * other.count / count,
        )

    @property
    def deviation(self) -> float:
        """The standard deviation; exactly 0 if all are equal, whatever the rounding."""
        deviation = math.sqrt(self.squares / self.count) if self.count else 0.0
        return deviation if deviation > _EQUAL * abs(self.mean) else 0.0


def extremes(scores: Scores, chosen: NDArray[np.bool_]) -> tuple[int, float, float]:
    """Number, lowest and highest of the chosen entries; inf and -inf if there are none."""
    if len(scores) < _SMALL:
        values = scores[chosen]
        return len(values), float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
    from s3_retriever.search import kernels

    count, lowest, highest = kernels.extremes(scores, chosen)
    return int(count), float(lowest), float(highest)


def standardise(scores: Scores, chosen: NDArray[np.bool_]) -> Scores:
    """Z-scores [n] over the chosen entries; the others are computed on the same scale."""
    spread = Spread.of(scores, chosen)
    if spread.deviation == 0:
        return np.zeros_like(scores)
    return np.asarray((scores - spread.mean) / spread.deviation)


class Weighed(NamedTuple, Generic[_Key]):
    """What signals contribute.

    Attributes:
        contributions: By signal, float64 [n].
        lowest: By signal, the lowest contribution of any entry.
    """

    contributions: dict[_Key, Scores]
    lowest: dict[_Key, float]


def weigh(
    raw_scores: Mapping[_Key, Scores],
    weights: Mapping[_Key, float],
    chosen: NDArray[np.bool_],
    candidates: int,
) -> dict[_Key, Scores]:
    """What each signal contributes in a collection of one part; see `weigh_steps`."""
    return alone(weigh_steps(raw_scores, weights, chosen, candidates)).contributions


def weigh_steps(
    raw_scores: Mapping[_Key, Scores],
    weights: Mapping[_Key, float],
    chosen: NDArray[np.bool_],
    candidates: int,
) -> Steps[Weighed[_Key]]:
    """What each signal contributes: its standardised scores times its weight (1 by default).

    Scores are standardised over the candidates, the best few of every signal: in a large index,
    where hardly any sentence has a word of the question, one word would outweigh everything else.
    Scores below a signal's own candidates are noise and count as the highest of them.

    Args:
        raw_scores: By signal, float64 [n].
        weights: By signal.
        chosen: Which entries count.
        candidates: How many of its best entries each signal adds to the candidates, less those
            tied with the first entry below.

    Returns:
        Contributions by signal; entries that do not count get the lowest.
    """
    masked = {signal: np.where(chosen, each, -np.inf) for signal, each in raw_scores.items()}
    own = _Best.of(list(masked.values()), int(np.count_nonzero(chosen)), candidates)
    floors, spreads = yield from together(partial(_standards, candidates), own)
    for scores, floor in zip(masked.values(), floors.lowest, strict=True):
        np.maximum(scores, floor, out=scores)
    if spreads is None:
        among = chosen if floors.few else np.zeros_like(chosen)
        for scores, floor in zip(masked.values(), floors.lowest, strict=True):
            among = among | (scores > floor)
        spreads = yield from _spreads(list(masked.values()), among)
    if any(spread.deviation == 0 for spread in spreads):
        # All candidates are equal, so the spread comes from all entries.
        every = yield from _spreads(list(masked.values()), chosen)
        spreads = [own if own.deviation else all_ for own, all_ in zip(spreads, every, strict=True)]
    lowest = {}
    for (signal, scores), floor, spread in zip(masked.items(), floors.lowest, spreads, strict=True):
        factor = weights.get(signal, 1.0) / spread.deviation if spread.deviation > 0 else 0.0
        scores -= spread.mean
        scores *= factor
        lowest[signal] = (floor - spread.mean) * factor
    return Weighed(masked, lowest)


@dataclass(frozen=True, slots=True, eq=False)
class _Best:
    """What a part knows of the candidates.

    Attributes:
        count: How many entries count.
        best: By signal, the best scores as many as candidates, and the next lower one.
        floors: By signal, a score that no candidate is at or below, whatever the other parts have,
            unless they have lower floors.
        candidates: The scores [signals, m] of all entries above any of these; None for too many.
    """

    count: int
    best: list[Scores]
    floors: list[float]
    candidates: NDArray[np.float64] | None

    @classmethod
    def of(cls, several: Sequence[Scores], count: int, candidates: int) -> _Best:
        """What a part knows, given its scores by signal, -inf for entries that do not count."""
        best = [_best(scores, candidates) for scores in several]
        floors = [_floor(each, candidates) if count > candidates else -np.inf for each in best]
        above = np.zeros(len(several[0]), dtype=np.bool_)
        for scores, floor in zip(several, floors, strict=True):
            above |= scores > floor
        near = np.flatnonzero(above)
        known = None
        if len(near) <= _MANY * candidates:
            known = np.array([scores[near] for scores in several])
        return cls(count, best, floors, known)


class _Floors(NamedTuple):
    """Below what scores are noise.

    Attributes:
        few: Whether all entries are candidates.
        lowest: By signal the highest score below the candidates; where there is nothing below, the
            lowest score.
    """

    few: bool
    lowest: list[float]


def _best(scores: Scores, candidates: int) -> Scores:
    """The `candidates` best scores, and the next lower one; -inf does not count."""
    if len(scores) <= candidates:
        return scores[scores > -np.inf]
    least = nth_largest(scores, candidates - 1)
    if least == -np.inf:
        return scores[scores > -np.inf]
    above = scores[scores > least]
    below = float(np.where(scores < least, scores, -np.inf).max())
    tied = np.full(candidates - len(above), least)
    return np.concatenate([above, tied, [below] if below > -np.inf else []])


def _floor(best: Scores, candidates: int) -> float:
    """The highest score below the candidates, given the best; the lowest if there is none below."""
    best = np.sort(best)
    if len(best) < candidates:
        return float(best[0]) if len(best) else 0.0
    below = int(np.searchsorted(best, best[-candidates]))
    return float(best[max(below - 1, 0)])


def _standards(candidates: int, parts: Sequence[_Best]) -> tuple[_Floors, list[Spread] | None]:
    """The floors, and the spread of the candidates of each signal where parts know enough."""
    few = sum(part.count for part in parts) <= candidates
    columns = [np.concatenate(each) for each in zip(*(part.best for part in parts), strict=True)]
    lowest = [
        float(best.min(initial=np.inf)) if few and len(best) else _floor(best, candidates)
        for best in columns
    ]
    enough = all(
        part.candidates is not None
        and all(own <= floor for own, floor in zip(part.floors, lowest, strict=True))
        for part in parts
    )
    if not enough:
        return _Floors(few, lowest), None
    floors = np.array(lowest)[:, None]
    scores = np.concatenate([part.candidates for part in parts if part.candidates is not None], 1)
    if not few:
        scores = scores[:, (scores > floors).any(axis=0)]
    scores = np.maximum(scores, floors)
    every = np.ones(scores.shape[1], dtype=np.bool_)
    return _Floors(few, lowest), [Spread.of(row, every) for row in scores]


def _spreads(several: Sequence[Scores], chosen: NDArray[np.bool_]) -> Steps[list[Spread]]:
    own = [Spread.of(scores, chosen) for scores in several]
    return (yield from together(add_spreads, own))


def add_spreads(parts: Sequence[Sequence[Spread]]) -> list[Spread]:
    """The spreads of several scores over all parts, given those over each part."""
    return [reduce(Spread.__add__, column) for column in zip(*parts, strict=True)]


def interleave(raw_scores: Mapping[_Key, Scores], chosen: NDArray[np.bool_]) -> Scores:
    """Scores of a collection of one part; see `interleave_steps`."""
    return alone(interleave_steps(raw_scores, chosen))


def interleave_steps(raw_scores: Mapping[_Key, Scores], chosen: NDArray[np.bool_]) -> Steps[Scores]:
    """Scores whose order takes the best of each signal in turn (M_S3 U M_BM25 of the paper).

    An entry scores the reciprocal of its best rank; ties go to the signal named first.
    """
    orders, falling = [], []
    for scores in raw_scores.values():
        numbers = np.flatnonzero(chosen & (scores > 0))
        positive = rounded(scores[numbers])
        order = np.argsort(-positive, kind="stable")
        orders.append(numbers[order])
        falling.append(positive[order])
    ranks = yield from apart(_ranks, falling)
    total = np.zeros(len(chosen))
    offsets = np.arange(len(raw_scores)) / max(len(raw_scores), 1)
    for offset, order, rank in zip(offsets, orders, ranks, strict=True):
        total[order] = np.maximum(total[order], 1.0 / (1.0 + rank + offset))
    return total


def _ranks(parts: Sequence[Sequence[Scores]]) -> list[list[NDArray[np.int64]]]:
    """By part and signal the ranks of falling scores among those of all parts, from 0."""
    by_signal = []
    for columns in zip(*parts, strict=True):
        scores = np.concatenate(columns)
        ranks = np.arange(len(scores))
        if len(columns) > 1:
            ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
        by_signal.append(np.split(ranks, np.cumsum([len(each) for each in columns])[:-1]))
    return [list(ranks) for ranks in zip(*by_signal, strict=True)]


def rounded(scores: Scores) -> Scores:
    """Scores [n] that are equal where only rounding sets them apart, on any processor."""
    return np.round(scores, DIGITS)


def nth_largest(scores: Scores, n: int) -> float:
    """The score at rank n, counted from 0 for the largest.

    Args:
        scores: More than n scores, none NaN.
        n: Rank.
    """
    if len(scores) < _SMALL:
        return _nth(scores, n)
    from s3_retriever.search.kernels import exceeding, maxima_of_runs

    run = max(min(_RUN, len(scores) // (2 * (n + 1))), 1)
    maxima = maxima_of_runs(scores, run)
    # At least n + 1 runs reach this score: the result is this score or one of the few above it.
    least = _nth(maxima, n)
    above = exceeding(scores, run, maxima, least)
    return least if len(above) <= n else _nth(above, n)


def _nth(scores: Scores, n: int) -> float:
    # numpy's partition takes fifteen times as long as its sort if most scores are equal.
    return float(np.sort(scores)[-n - 1])
