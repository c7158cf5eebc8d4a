"""Time and memory of the parts of an answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.generation.streamers import BaseStreamer

from s3_retriever_bench.processes import peak_bytes, reset_peak


class TokenClock(BaseStreamer):
    """Records when each new token is on the CPU; given to `generate` as its streamer.

    Attributes:
        ticks: Seconds of `time.perf_counter`, one for each new token.
    """

    def __init__(self) -> None:
        self._prompt_passed = False
        self.ticks: list[float] = []

    def put(self, value: Any) -> None:  # noqa: ARG002
        """Take the prompt, then every new token."""
        if self._prompt_passed:
            self.ticks.append(time.perf_counter())
        self._prompt_passed = True

    def end(self) -> None:
        """See `BaseStreamer`."""


@dataclass(slots=True)
class Cost:
    """What a piece of work took.

    Attributes:
        seconds: Its time.
        peak_bytes: The most memory of this process meanwhile, as `peak_bytes` counts it; None
            where a peak cannot be reset.
    """

    seconds: float = 0.0
    peak_bytes: int | None = None


@contextmanager
def metered(device: torch.device) -> Iterator[Cost]:
    """Measure the block; its cost is complete at the end."""
    cost = Cost()
    known = reset_peak(device)
    began = time.perf_counter()
    yield cost
    cost.seconds = time.perf_counter() - began
    cost.peak_bytes = peak_bytes(device) if known else None


def highest(*costs: Cost) -> int | None:
    """The highest peak of several pieces of work; None if one is unknown."""
    peaks = [cost.peak_bytes for cost in costs]
    return None if None in peaks else max(peak for peak in peaks if peak is not None)
