"""Fusing rankings: by the sum of standardised scores, or by union."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    rankings: Mapping[Any, Scores], weights: Mapping[Any, float], chosen: NDArray[np.bool_]
) -> dict[Any, Scores]:
    """Standardised scores, each times its weight, which is 1 where none is given."""
    return {
        source: weights.get(source, 1.0) * standardise(scores, chosen)
        for source, scores in rankings.items()
    }


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
