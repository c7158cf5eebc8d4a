"""Loops over the scores of all sentences, compiled with numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


# Sums may be taken in any order, which lets the compiler compute several at once.
@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"})
def mean_and_variance(scores: Any, chosen: Any) -> tuple[int, float, float]:
    """Number, mean and variance of the chosen scores; all 0 if there are none.

    `scores` is float64 [n], `chosen` bool [n].
    """
    count, total = 0, 0.0
    for i in range(len(scores)):
        count += chosen[i]
        total += scores[i] if chosen[i] else 0.0
    if count == 0:
        return 0, 0.0, 0.0
    mean, squares = total / count, 0.0
    for i in range(len(scores)):
        difference = scores[i] - mean if chosen[i] else 0.0
        squares += difference * difference
    return count, mean, squares / count


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def extremes(scores: Any, chosen: Any) -> tuple[int, float, float]:
    """How many scores are chosen, their lowest and their highest; inf and -inf if none is.

    `scores` is float64 [n] without NaN, `chosen` bool [n].
    """
    count, lowest, highest = 0, np.inf, -np.inf
    for i in range(len(scores)):
        count += chosen[i]
        low = scores[i] if chosen[i] else np.inf
        high = scores[i] if chosen[i] else -np.inf
        lowest = low if low < lowest else lowest
        highest = high if high > highest else highest
    return count, lowest, highest


# No score is NaN, which lets the compiler compute several maxima at once.
@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def maxima_of_runs(scores: Any, run: int) -> Any:
    """The largest of each `run` scores in a row, float64; the last run may be shorter."""
    maxima = np.empty(-(-len(scores) // run))
    for r in range(len(maxima)):
        highest = -np.inf
        for i in range(r * run, min(r * run + run, len(scores))):
            highest = scores[i] if scores[i] > highest else highest
        maxima[r] = highest
    return maxima


@njit(nogil=True, cache=True)
def exceeding(scores: Any, run: int, maxima: Any, bound: float) -> Any:
    """The scores above `bound`; runs whose maximum is not above it are skipped."""
    above = np.empty(run * np.sum(maxima > bound))
    n = 0
    for r in range(len(maxima)):
        if maxima[r] > bound:
            for i in range(r * run, min(r * run + run, len(scores))):
                if scores[i] > bound:
                    above[n] = scores[i]
                    n += 1
    return above[:n]


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def column_sums(rows: Any) -> Any:
    """The sum of each column, float64 [m], of rows float32 [n, m]."""
    sums = np.zeros(rows.shape[1])
    for i in range(len(rows)):
        for j in range(rows.shape[1]):
            sums[j] += np.float64(rows[i, j])
    return sums


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def add_weighted(rows: Any, weights: Any, scores: Any) -> None:
    """Add to each score, float64 [n], its row's numbers, float32 [m], each times its weight [m]."""
    for i in range(len(rows)):
        total = 0.0
        for j in range(rows.shape[1]):
            total += np.float64(rows[i, j]) * weights[j]
        scores[i] += total


@njit(nogil=True, cache=True)
def discount(scores: Any, lengths: Any, powers: Any, steps: float) -> None:
    """Multiply each score, float64 [n], by the power for its sentence's length, and round it.

    `lengths` is int64 [n], from 1 on; `powers` float64 [longest]; there are `steps` to 1.
    """
    for i in range(len(scores)):
        scores[i] = np.rint(scores[i] * powers[lengths[i] - 1] * steps) / steps


@njit(nogil=True, cache=True)
def add_rows(rows: Any, chosen: Any, totals: Any) -> None:
    """Add to each total, float32 [n, m], the rows, float32 [r, m], chosen for it, int32 [n, k].

    Negative numbers choose no row. A total is added up in the same order wherever it is.
    """
    for i in range(len(chosen)):
        for j in range(chosen.shape[1]):
            row = chosen[i, j]
            if row >= 0:
                for column in range(totals.shape[1]):
                    totals[i, column] += rows[row, column]
