"""Means and paired differences with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

# What a run returns, or a part of it: JSON values.
Figures = Mapping[str, Any]
_RESAMPLES = 5_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` values with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int

    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def figures(self) -> dict[str, float]:
        """JSON values."""
        rounded = {name: round(getattr(self, name), 4) for name in ("mean", "low", "high")}
        return {**rounded, "questions": self.n}


def estimate(values: Sequence[float | None], groups: Sequence[str], seed: int) -> Estimate | None:
    """The mean of the values that are not None, with a percentile interval.

    Resamples groups rather than values, because the values of a group are not independent.

    Args:
        values: One for each question; None if the question has no such value.
        groups: The group of each question.
        seed: Seed of the resampling.

    Returns:
        None if there is no value.
    """
    pairs = [(v, g) for v, g in zip(values, groups, strict=True) if v is not None]
    return _estimate(tuple(pairs), seed) if pairs else None


# The same means are in the figures, the tables and the pictures of a run.
@lru_cache(maxsize=4_096)
def _estimate(pairs: tuple[tuple[float, str], ...], seed: int) -> Estimate:
    # Here, because it takes tens of megabytes, which `inference` would count.
    from scipy.stats import bootstrap

    known = np.array([value for value, _ in pairs])
    _, number = np.unique([group for _, group in pairs], return_inverse=True)
    sums, counts = np.bincount(number, known), np.bincount(number)
    mean = float(known.mean())
    if len(sums) == 1:
        return Estimate(mean, mean, mean, len(known))
    low, high = bootstrap(
        (sums, counts),
        _mean,
        n_resamples=_RESAMPLES,
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(mean, float(low), float(high), len(known))


def difference(
    values: Sequence[float | None],
    others: Sequence[float | None],
    groups: Sequence[str],
    seed: int,
) -> Estimate | None:
    """The mean of the paired differences `values - others`, with its interval.

    Only questions with both values count; None if there is none.
    """
    pairs = zip(values, others, strict=True)
    differences = [None if a is None or b is None else a - b for a, b in pairs]
    return estimate(differences, groups, seed)


def _mean(sums: Any, counts: Any, axis: int) -> Any:
    return sums.sum(axis) / counts.sum(axis)
