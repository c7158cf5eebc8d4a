"""Finding the few largest of many scores."""

from __future__ import annotations

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
