"""Running windows in length-sorted batches, in bounded memory and in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from s3_retriever.errors import HostError
from s3_retriever.host.device import free_device_memory, is_out_of_memory, trim_heap
from s3_retriever.host.windows import Window

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# Lengths are padded to multiples of this. Every new shape of a batch costs the matrix library time,
# and memory that it keeps, so few shapes may occur.
_PADDING = 32
# Rows above this many are padded to its multiples, fewer to powers of two.
_PADDING_ROWS = 8
# Smaller batches, such as a question, leave too little memory behind to be worth returning.
_TRIM_TOKENS = 1_024
# Windows are sorted by length over this many batches, enough to keep padding low.
LOOKAHEAD_BATCHES = 16


def padded_length(length: int) -> int:
    """Compute the length to which a batch is padded if its longest window has `length` tokens."""
    return max(-(-length // _PADDING), 1) * _PADDING


def padded_rows(rows: int, step: int = _PADDING_ROWS) -> int:
    """Compute the number of rows, at least one, to which `rows` are padded.

    Few numbers occur: powers of two up to `step`, itself a power of two, then its multiples. The
    default step is that of a batch of windows.
    """
    if rows <= step:
        return 1 << max(rows - 1, 0).bit_length()
    return -(-rows // step) * step


def full_rows(rows: int) -> int:
    """Find the largest number of windows up to `rows`, at least one, without rows of padding."""
    if rows < _PADDING_ROWS:
        return 1 << (max(rows, 1).bit_length() - 1)
    return rows // _PADDING_ROWS * _PADDING_ROWS


@dataclass(slots=True)
class _Limit:
    """Most padded tokens of a batch; halved when the device runs out of memory."""

    tokens: int


def run_batches(
    stream: Iterable[Window],
    run: Callable[[Sequence[Window]], Sequence[Result]],
    batch_tokens: int,
    lookahead: int = LOOKAHEAD_BATCHES,
) -> Iterator[tuple[Window, Result]]:
    """Run windows in batches of similar length and yield the results in the stream's order.

    If the device has no memory for a batch, that batch and all later ones run in halves.

    Args:
        stream: Any number of windows.
        run: Called with a batch of windows; returns one result for each.
        batch_tokens: Most padded tokens of a batch (a single longer window runs alone).
        lookahead: How many batches' worth of windows are sorted at once, whose results may have
            to be held.

    Raises:
        HostError: The device has no memory for a single window.
    """
    limit = _Limit(batch_tokens)
    waiting: list[Window] = []
    tokens = 0
    for window in stream:
        waiting.append(window)
        tokens += max(len(window.ids), 1)
        if tokens >= batch_tokens * lookahead:
            yield from _run_sorted(waiting, run, limit)
            waiting, tokens = [], 0
    yield from _run_sorted(waiting, run, limit)


def _run_sorted(
    waiting: list[Window], run: Callable[[Sequence[Window]], Sequence[Result]], limit: _Limit
) -> Iterator[tuple[Window, Result]]:
    order = sorted(range(len(waiting)), key=lambda i: len(waiting[i].ids), reverse=True)
    results: dict[int, Result] = {}
    given = 0
    while order:
        padded = padded_length(len(waiting[order[0]].ids))
        batch = order[: full_rows(limit.tokens // padded)]
        batch_results = _attempt(run, [waiting[i] for i in batch])
        # What earlier batches gave is handed on now, while a GPU still computes this one.
        while given in results:
            yield waiting[given], results.pop(given)
            given += 1
        if batch_results is None:
            limit.tokens = padded * len(batch) // 2
            logger.warning(
                "The device has no memory for a batch of %d windows of %d tokens; going on with "
                "half of that.",
                len(batch),
                padded,
            )
        else:
            results.update(zip(batch, batch_results, strict=True))
            order = order[len(batch) :]
        if padded * len(batch) >= _TRIM_TOKENS:
            trim_heap()
    for i in range(given, len(waiting)):
        yield waiting[i], results[i]


def _attempt(
    run: Callable[[Sequence[Window]], Sequence[Result]], batch: Sequence[Window]
) -> Sequence[Result] | None:
    """Run a batch; returns None if the device has no memory for it."""
    try:
        return run(batch)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if len(batch) == 1:
            raise HostError(
                f"The device has no memory for a single window of {len(batch[0].ids)} tokens; "
                "load the host with a smaller window=, or on another device."
            ) from error
    # Only now is the error gone, and with it the tensors of the run that it held.
    free_device_memory()
    return None
