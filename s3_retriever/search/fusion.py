"""Fusing rankings: by the sum of standardised scores, or by union."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RUN = 64


def nth_largest(scores: NDArray[np.float64], n: int) -> float:
    """The score that n others reach or exceed.

    Args:
        scores: More than n scores.
        n: From 0 for the largest one.
    """
    # Loading numba takes a while, which only searches need to spend.
    from s3_retriever.search.kernels import exceeding, maxima_of_runs

    run = max(min(_RUN, len(scores) // (2 * (n + 1))), 1)
    maxima = maxima_of_runs(scores, run)
    # So many runs reach this one that it is the score, or one of those that exceed it, few of all.
    least = _nth(maxima, n)
    above = exceeding(scores, run, maxima, least)
    return least if len(above) <= n else _nth(above, n)


def _nth(scores: NDArray[np.float64], n: int) -> float:
    # numpy's partition takes fifteen times as long as its sort where most scores are equal.
    return float(np.sort(scores)[-n - 1])


Scores = NDArray[np.float64]


# Scores that differ by less than this part of their mean are equal but for rounding.
_EQUAL = 1e-12


def moments(scores: Scores, chosen: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean and standard deviation over the chosen entries; both 0 where there are none.

    The deviation of scores that are all equal is 0.
    """
    # Loading numba takes a while, which only searches need to spend.
    from s3_retriever.search.kernels import mean_and_variance

    mean, variance = mean_and_variance(scores, chosen)
    deviation = math.sqrt(variance)
    return mean, deviation if deviation > _EQUAL * abs(mean) else 0.0


def standardise(scores: Scores, chosen: NDArray[np.bool_]) -> Scores:
    """Z-scores [n] over the chosen entries; the others are computed on the same scale."""
    mean, deviation = moments(scores, chosen)
    return (scores - mean) / deviation if deviation > 0 else np.zeros_like(scores)


def weigh(
    rankings: Mapping[Any, Scores],
    weights: Mapping[Any, float],
    chosen: NDArray[np.bool_],
    candidates: int,
) -> dict[Any, Scores]:
    """Standardised scores, each times its weight, which is 1 where none is given.

    They are standardised over the candidates, the best few of every ranking: over a large index,
    where hardly any sentence has a word of the question, a word would outweigh all else. Scores
    below those of a ranking's own candidates tell nothing, and count as the highest of them.

    Args:
        rankings: Scores by source.
        weights: By source.
        chosen: Which entries count.
        candidates: How many entries each ranking contributes, those that are as good not counted.

    Returns:
        By source, float64 [n]; entries that do not count have that of the lowest that do.
    """
    few = np.count_nonzero(chosen) <= candidates
    among = chosen.copy() if few else np.zeros_like(chosen)
    parts = {}
    for source, scores in rankings.items():
        masked = np.where(chosen, scores, -np.inf)
        floor = _lowest(scores[chosen]) if few else _floor(masked, candidates)
        among |= masked > floor
        parts[source] = np.maximum(masked, floor, out=masked)
    for source, part in parts.items():
        mean, deviation = _moments_of(part, among, chosen)
        part -= mean
        part *= weights.get(source, 1.0) / deviation if deviation > 0 else 0.0
    return parts


def _lowest(scores: Scores) -> float:
    return float(scores.min()) if scores.size else 0.0


def _floor(scores: Scores, candidates: int) -> float:
    """The highest score below those of the candidates; their own lowest where there is none."""
    least = nth_largest(scores, candidates - 1)
    below = float(np.where(scores < least, scores, -np.inf).max())
    return below if below > -np.inf else least


def _moments_of(
    scores: Scores, among: NDArray[np.bool_], chosen: NDArray[np.bool_]
) -> tuple[float, float]:
    """Over the candidates; where these are equal, over all, so that they are told from the rest."""
    mean, deviation = moments(scores, among)
    return (mean, deviation) if deviation > 0 else moments(scores, chosen)


def fuse_by_union(rankings: Mapping[Any, Scores], chosen: NDArray[np.bool_]) -> Scores:
    """Scores whose order takes the best of each ranking in turn (M_S3 U M_BM25 of the paper).

    An entry's score is one over its best rank in any ranking; ties go to the ranking named first.
    """
    total = np.zeros(len(chosen))
    places = np.arange(len(rankings)) / max(len(rankings), 1)
    for place, scores in zip(places, rankings.values(), strict=True):
        found = np.flatnonzero(chosen & (scores > 0))
        order = found[np.argsort(-scores[found], kind="stable")]
        total[order] = np.maximum(total[order], 1.0 / (1.0 + np.arange(len(order)) + place))
    return total
