"""Work beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# The host runs one batch at a time, so that more threads than this would not be faster; and the
# event loop shares Python with all that are not waiting.
_TURNS = threading.BoundedSemaphore(2)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread, few at a time over all callers, without blocking the loop."""

    def in_turn() -> T:
        with _TURNS:
            return function(*args, **kwargs)

    return await asyncio.to_thread(in_turn)
