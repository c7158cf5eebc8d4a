"""When the tokens of an answer come."""

from __future__ import annotations

import time
from typing import Any

from transformers.generation.streamers import BaseStreamer


class TokenClock(BaseStreamer):
    """Notes when each new token is there, on the CPU; given to `generate` as its streamer.

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
        """Nothing is left to do."""

    @property
    def seconds(self) -> float:
        """From the first new token to the last."""
        return self.ticks[-1] - self.ticks[0]


def tokens_per_second(clocks: list[TokenClock]) -> float:
    """Rate at which tokens come after the first ones, over several answers."""
    tokens = sum(len(clock.ticks) - 1 for clock in clocks)
    return round(tokens / sum(clock.seconds for clock in clocks), 3)
