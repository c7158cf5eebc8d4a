"""Means with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 5_000
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its bootstrap 95 % interval; `n` values went into it."""

    mean: float
    low: float
    high: float
    n: int

    def decided(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def estimate(values: Sequence[float | None], groups: Sequence[str], seed: int) -> Estimate | None:
    """The mean of the values that there are, with a percentile interval.

    Groups are resampled, not values, because the values of a group are not independent.

    Args:
        values: One for each question; None where the question has no such value.
        groups: The group of each question.
        seed: Of the resampling.

    Returns:
        None where there is no value.
    """
    pairs = [(v, g) for v, g in zip(values, groups, strict=True) if v is not None]
    if not pairs:
        return None
    known = np.array([value for value, _ in pairs])
    _, number = np.unique([group for _, group in pairs], return_inverse=True)
    sums, counts = np.bincount(number, known), np.bincount(number)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, _PERCENTILES)
    return Estimate(float(known.mean()), float(low), float(high), len(known))


def difference(
    values: Sequence[float], others: Sequence[float], groups: Sequence[str], seed: int
) -> Estimate | None:
    """The mean of the paired differences `values - others`, with its interval."""
    return estimate([a - b for a, b in zip(values, others, strict=True)], groups, seed)
