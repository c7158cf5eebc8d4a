"""Fusion: several signals become one score, by adding z-scores or by taking turns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from s3_retriever.types import Scores

_Key = TypeVar("_Key", bound=str)

# Scores whose deviation is below this share of their mean are equal but for rounding.
_EQUAL = 1e-12
# Digits after the point that count: the last ones of a sum depend on the processor.
DIGITS = 9
# Length of the runs whose maxima `nth_largest` looks at first.
_RUN = 64


def moments(scores: Scores, chosen: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean and standard deviation over the chosen entries; both 0 if there are none.

    The deviation of scores that are all equal is exactly 0, whatever the rounding.
    """
    # numba takes a while to load, and only searches need it.
    from s3_retriever.search.kernels import mean_and_variance

    mean, variance = mean_and_variance(scores, chosen)
    deviation = math.sqrt(variance)
    return mean, deviation if deviation > _EQUAL * abs(mean) else 0.0


def extremes(scores: Scores, chosen: NDArray[np.bool_]) -> tuple[int, float, float]:
    """Number, lowest and highest of the chosen entries; inf and -inf if there are none."""
    from s3_retriever.search import kernels

    count, lowest, highest = kernels.extremes(scores, chosen)
    return int(count), float(lowest), float(highest)


def standardise(scores: Scores, chosen: NDArray[np.bool_]) -> Scores:
    """Z-scores [n] over the chosen entries; the others are computed on the same scale."""
    mean, deviation = moments(scores, chosen)
    return (scores - mean) / deviation if deviation > 0 else np.zeros_like(scores)


def weigh(
    raw_scores: Mapping[_Key, Scores],
    weights: Mapping[_Key, float],
    chosen: NDArray[np.bool_],
    candidates: int,
) -> dict[_Key, Scores]:
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
        By signal, float64 [n]; entries that do not count get the lowest contribution.
    """
    few = np.count_nonzero(chosen) <= candidates
    among = chosen.copy() if few else np.zeros_like(chosen)
    contributions = {}
    for signal, scores in raw_scores.items():
        masked = np.where(chosen, scores, -np.inf)
        floor = _lowest(scores[chosen]) if few else _floor(masked, candidates)
        among |= masked > floor
        contributions[signal] = np.maximum(masked, floor, out=masked)
    for signal, contribution in contributions.items():
        mean, deviation = moments(contribution, among)
        if deviation == 0:
            # All candidates are equal, so the spread comes from all entries.
            mean, deviation = moments(contribution, chosen)
        contribution -= mean
        contribution *= weights.get(signal, 1.0) / deviation if deviation > 0 else 0.0
    return contributions


def interleave(raw_scores: Mapping[_Key, Scores], chosen: NDArray[np.bool_]) -> Scores:
    """Scores whose order takes the best of each signal in turn (M_S3 U M_BM25 of the paper).

    An entry scores the reciprocal of its best rank; ties go to the signal named first.
    """
    total = np.zeros(len(chosen))
    offsets = np.arange(len(raw_scores)) / max(len(raw_scores), 1)
    for offset, scores in zip(offsets, raw_scores.values(), strict=True):
        ranked = np.flatnonzero(chosen & (scores > 0))
        order = ranked[np.argsort(-rounded(scores[ranked]), kind="stable")]
        total[order] = np.maximum(total[order], 1.0 / (1.0 + np.arange(len(order)) + offset))
    return total


def rounded(scores: Scores) -> Scores:
    """Scores [n] that are equal where only rounding sets them apart, on any processor."""
    return np.round(scores, DIGITS)


def nth_largest(scores: Scores, n: int) -> float:
    """The score at rank n, counted from 0 for the largest.

    Args:
        scores: More than n scores, none NaN.
        n: Rank.
    """
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


def _lowest(scores: Scores) -> float:
    return float(scores.min()) if scores.size else 0.0


def _floor(scores: Scores, candidates: int) -> float:
    """The highest score below the candidates; their own lowest if there is nothing below."""
    least = nth_largest(scores, candidates - 1)
    below = float(np.where(scores < least, scores, -np.inf).max())
    return below if below > -np.inf else least
