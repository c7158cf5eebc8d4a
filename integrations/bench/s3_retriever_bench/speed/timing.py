"""The time of a search, and how much of it the host took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s3_retriever.encoder import Encoder
from s3_retriever.encoder.encoder import QuestionFeatures
from s3_retriever.recipe import Recipe

_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """One search.

    Attributes:
        whole: Milliseconds from the question to the results.
        host: Those of them in which a model read.
    """

    whole: float
    host: float

    @property
    def rest(self) -> float:
        """Milliseconds without the model."""
        return self.whole - self.host


Ask = Callable[[str], Timing]


class TimedEncoder(Encoder):
    """An encoder that counts the time in which it reads questions.

    Attributes:
        milliseconds: Spent so far.
    """

    milliseconds = 0.0

    def question(self, text: str, recipe: Recipe) -> dict[str, QuestionFeatures]:
        """As `Encoder.question`."""
        started = now()
        found = super().question(text, recipe)
        self.milliseconds += now() - started
        return found


def now() -> float:
    """Milliseconds of a clock that never goes back."""
    return 1_000 * time.perf_counter()


def describe(timings: Sequence[Timing]) -> dict[str, Any]:
    """Medians and 95th percentiles of searches, and all values, as JSON values in milliseconds."""
    columns = {
        "whole_ms": [one.whole for one in timings],
        "host_ms": [one.host for one in timings],
        "rest_ms": [one.rest for one in timings],
    }
    return {
        name: {
            "median": round(float(np.median(values)), _DIGITS),
            "p95": round(float(np.percentile(values, 95)), _DIGITS),
            "values": [round(value, _DIGITS) for value in values],
        }
        for name, values in columns.items()
    }
