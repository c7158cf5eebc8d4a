"""Loops over the scores of all sentences, compiled by numba."""

from __future__ import annotations

from typing import Any

from numba import njit


# Sums may be taken in any order, so that several are computed at once.
@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"})
def count_and_sums(scores: Any, chosen: Any, centre: float) -> tuple[int, float, float]:
    """How many are chosen, and the sums of their differences from a centre and of their squares.

    `scores` is float64 [n], `chosen` bool [n].
    """
    count, total, squares = 0, 0.0, 0.0
    for i in range(len(scores)):
        count += chosen[i]
        difference = scores[i] - centre if chosen[i] else 0.0
        total += difference
        squares += difference * difference
    return count, total, squares
