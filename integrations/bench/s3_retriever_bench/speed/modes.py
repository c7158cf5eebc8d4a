"""The package's own searches."""

from __future__ import annotations

from functools import partial
from typing import get_args

from s3_retriever.engine import S3Index
from s3_retriever.search import Mode
from s3_retriever_bench.speed.timing import Ask, TimedEncoder, Timing, now

RESULTS = 5


def modes(index: S3Index, encoder: TimedEncoder) -> dict[str, Ask]:
    """A search in each mode.

    Args:
        index: What is searched.
        encoder: Its encoder.
    """

    def ask(mode: Mode, question: str) -> Timing:
        before = encoder.milliseconds
        started = now()
        index.search(question, RESULTS, mode=mode)
        return Timing(now() - started, encoder.milliseconds - before)

    return {f"mode {mode}": partial(ask, mode) for mode in get_args(Mode)}
