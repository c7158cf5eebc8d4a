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
    # As many runs as have a larger maximum have n larger scores, so that most scores can be left
    # out before the slow part.
    maxima = np.maximum.reduceat(scores, np.arange(0, len(scores), _RUN))
    if len(maxima) > n:
        scores = scores[scores >= np.partition(maxima, -n - 1)[-n - 1]]
    return float(np.partition(scores, -n - 1)[-n - 1])
