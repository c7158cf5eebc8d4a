"""Running windows in length-sorted batches, in bounded memory and in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from s3_retriever.host.heap import trim_heap
from s3_retriever.host.windows import Window

Result = TypeVar("Result")

# Lengths are padded to multiples of this. Every new shape of a batch costs the matrix library time
# and memory that it keeps, so there are to be few.
_PADDING = 32
# Windows are sorted by length over this many batches, which is enough for little padding.
_LOOKAHEAD_BATCHES = 16


def padded_length(length: int) -> int:
    """The length to which a batch is padded whose longest window has `length` tokens."""
    return max(-(-length // _PADDING), 1) * _PADDING


def run_batches(
    stream: Iterable[Window],
    run: Callable[[Sequence[Window]], Sequence[Result]],
    batch_tokens: int,
    lookahead: int = _LOOKAHEAD_BATCHES,
) -> Iterator[tuple[Window, Result]]:
    """Run windows in batches of like length and give the results in the stream's order.

    Args:
        stream: Windows of any number.
        run: Called with a batch of windows; returns one result for each.
        batch_tokens: Padded tokens of a batch at most (a single longer window runs alone).
        lookahead: Batches' worth of windows that are sorted at once; their results are held.
    """
    waiting: list[Window] = []
    tokens = 0
    for window in stream:
        waiting.append(window)
        tokens += max(len(window.ids), 1)
        if tokens >= batch_tokens * lookahead:
            yield from _run_sorted(waiting, run, batch_tokens)
            waiting, tokens = [], 0
    yield from _run_sorted(waiting, run, batch_tokens)


def _run_sorted(
    waiting: list[Window],
    run: Callable[[Sequence[Window]], Sequence[Result]],
    batch_tokens: int,
) -> Iterator[tuple[Window, Result]]:
    order = sorted(range(len(waiting)), key=lambda i: len(waiting[i].ids), reverse=True)
    results: dict[int, Result] = {}
    while order:
        size = max(batch_tokens // padded_length(len(waiting[order[0]].ids)), 1)
        batch, order = order[:size], order[size:]
        results.update(zip(batch, run([waiting[i] for i in batch]), strict=True))
        trim_heap()
    for i, window in enumerate(waiting):
        yield window, results[i]
