"""Fusing rankings: by the sum of standardised scores, or by union."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


def standardise(scores: Scores, chosen: NDArray[np.bool_]) -> Scores:
    """Z-scores [n] over the chosen entries; the others are computed on the same scale."""
    if not chosen.any():
        return np.zeros_like(scores)
    deviation = float(scores[chosen].std())
    centred = scores - float(scores[chosen].mean())
    return centred / deviation if deviation > 0 else np.zeros_like(scores)


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
