"""Drawing texts from several sources evenly."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence


def interleave(sources: Sequence[Iterable[str]]) -> Iterator[str]:
    """The texts of all sources, in the order that keeps their shares even.

    The next text is drawn from the source that gave the fewest characters so far, the earlier one
    among equals, until all are exhausted.
    """
    queue = [(0, position, iter(source)) for position, source in enumerate(sources)]
    while queue:
        drawn, position, source = queue[0]
        text = next(source, None)
        if text is None:
            heapq.heappop(queue)
        else:
            heapq.heapreplace(queue, (drawn + len(text), position, source))
            yield text
