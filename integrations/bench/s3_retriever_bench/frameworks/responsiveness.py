"""How late an event loop gets to its other tasks while it answers many questions."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from s3_retriever_bench.frameworks.framework import Retriever

_PERIOD = 0.005


def measure_responsiveness(
    retriever: Retriever, questions: Sequence[str], rounds: int
) -> dict[str, Any]:
    """Ask all questions at once in one event loop, beside a ticker that notes how late it is.

    They are asked one by one before, which also reads the index for the first time.

    Args:
        retriever: What is asked.
        questions: The calls of a round.
        rounds: How often, in the same loop.

    Returns:
        JSON values. `worst_ms` and `p99_ms`: lateness over the ticks of all rounds. `seconds`:
        the median of the rounds. `equal`: whether every round found what calls one by one found.
        `rounds`: the figures of each.
    """
    expected = [retriever.ask(question) for question in questions]
    made = asyncio.run(_all_rounds(retriever, questions, expected, rounds))
    return {
        **_lateness([late for _, _, ticks in made for late in ticks]),
        "seconds": round(statistics.median(seconds for seconds, _, _ in made), 3),
        "equal": all(equal for _, equal, _ in made),
        "rounds": [
            {**_lateness(ticks), "ticks": len(ticks), "seconds": round(seconds, 3), "equal": equal}
            for seconds, equal, ticks in made
        ],
    }


async def _all_rounds(
    retriever: Retriever, questions: Sequence[str], expected: list[Any], rounds: int
) -> list[tuple[float, bool, list[float]]]:
    """Seconds, whether all was found as expected, and the lateness of the ticks, of each round."""
    made = []
    for _ in range(rounds):
        async with _ticker() as late:
            started = time.perf_counter()
            found = await asyncio.gather(*(retriever.aask(question) for question in questions))
            seconds = time.perf_counter() - started
        made.append((seconds, list(found) == expected, late))
    return made


@asynccontextmanager
async def _ticker() -> AsyncIterator[list[float]]:
    """Ticks beside the block, and the milliseconds that each came late."""
    late: list[float] = []
    done = asyncio.Event()
    task = asyncio.create_task(_tick(late, done))
    await asyncio.sleep(0)  # It is to be asleep when the block begins.
    try:
        yield late
    finally:
        done.set()
        await task  # The tick that is under way counts too.


async def _tick(late: list[float], done: asyncio.Event) -> None:
    while not done.is_set():
        started = time.perf_counter()
        await asyncio.sleep(_PERIOD)
        # A loop may wake a task early, by less than its clock can tell.
        late.append(max(0.0, 1_000 * (time.perf_counter() - started - _PERIOD)))


def _lateness(ticks: Sequence[float]) -> dict[str, float]:
    return {
        "worst_ms": round(max(ticks), 2),
        "p99_ms": round(float(np.percentile(ticks, 99)), 2),
    }
