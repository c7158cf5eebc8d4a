"""`Gain`: a paired difference and how far chance alone would bring it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Of the standard errors on either side of a mean, for 95 %.
_INTERVAL = 1.96


@dataclass(frozen=True, slots=True)
class Gain:
    """The mean of paired differences and its standard error."""

    mean: float
    error: float

    @classmethod
    def between(cls, before: NDArray[np.float64], after: NDArray[np.float64]) -> Gain:
        """The gain from `before` [n] to `after` [n], of the same questions."""
        difference = after - before
        error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
        return cls(float(difference.mean()), error)

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.mean - _INTERVAL * self.error

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.mean + _INTERVAL * self.error

    def exceeds(self, errors: float) -> bool:
        """Whether it is above zero by more than so many standard errors."""
        return self.mean > max(errors * self.error, 0.0)
