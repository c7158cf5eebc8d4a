"""Merging: which segments become one after a commit.

Sizes fall into levels, each eight times the one below. Eight neighbours of one level become one
segment, and smaller ones that lie between them go with them; lower levels come first. That leaves
at most seven segments of each level, O(log n) in all, and copies a token O(log n) times. Only
neighbours are merged, which keeps documents in the order in which they were added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# Neighbours of one level that become one segment.
WIDTH = 8
# Segments up to this size are of the lowest level: merging them costs next to nothing.
SMALL = 1024


class Size(NamedTuple):
    """Number of tokens plus documents of a segment: all of them, and those not deleted."""

    total: int
    live: int


def next_merge(sizes: Sequence[Size]) -> slice | None:
    """Choose the segments that are to become one.

    Args:
        sizes: Of all segments, oldest first.

    Returns:
        Neighbours that are each more than half deleted (a single segment is rewritten), or enough
        neighbours of one level to merge; None if there is nothing to do.
    """
    return _wasteful(sizes) or _crowded([_level(size.live) for size in sizes])


def _wasteful(sizes: Sequence[Size]) -> slice | None:
    wasteful = [2 * size.live < size.total for size in sizes]
    if not any(wasteful):
        return None
    first = wasteful.index(True)
    end = next((i for i in range(first, len(sizes)) if not wasteful[i]), len(sizes))
    return slice(first, end)


def _crowded(levels: Sequence[int]) -> slice | None:
    run = None
    first = 0
    while first < len(levels):
        # All that follow the last segment of the highest level are of lower ones.
        top = max(levels[first:])
        end = max(i for i in range(first, len(levels)) if levels[i] == top) + 1
        if end - first >= WIDTH:
            run = slice(first, end)
        first = end
    return run


def _level(size: int) -> int:
    level = 0
    while size > SMALL:
        size //= WIDTH
        level += 1
    return level
