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
    from s3_retriever.search.kernels import maxima_of_runs, reaching

    maxima = maxima_of_runs(scores, _RUN)
    if len(maxima) > n:
        # As many runs as have a larger maximum have n larger scores: most runs are left out.
        scores = reaching(scores, _RUN, maxima, _partitioned(maxima, n))
    return _partitioned(scores, n)


def _partitioned(scores: NDArray[np.float64], n: int) -> float:
    return float(np.partition(scores, -n - 1)[-n - 1])
