"""Merging: which segments become one after a commit, and copying their live documents.

Sizes fall into levels, each eight times the one below. Eight neighbours of one level become one
segment, and smaller ones that lie between them go with them; lower levels come first. That leaves
at most seven segments of each level, O(log n) in all, and copies a token O(log n) times. Only
neighbours are merged, so that documents stay in the order in which they were added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from s3_retriever.document import Document
from s3_retriever.index.segment import Segment
from s3_retriever.index.writer import SegmentWriter, TokenChunk

# Neighbours of one level that become one segment.
WIDTH = 8
# Segments up to this size are of the lowest level: merging them costs next to nothing.
SMALL = 1024


class Size(NamedTuple):
    """Tokens and documents of a segment, one as much as the other: all, and those not deleted."""

    total: int
    live: int


def next_merge(sizes: Sequence[Size]) -> slice | None:
    """Choose the segments that are to become one.

    Args:
        sizes: Of all segments, oldest first.

    Returns:
        Neighbours more than half of each of which is deleted (it may be one alone, which is then
        rewritten), or so many of one level that they are to be merged; None where nothing is to
        be done.
    """
    return _wasteful(sizes) or _crowded([_level(size.live) for size in sizes])


def most_segments(size: int) -> int:
    """How many segments an index of that size may have at most, once nothing is to be done."""
    return (WIDTH - 1) * (_level(size) + 1)


def _wasteful(sizes: Sequence[Size]) -> slice | None:
    wasteful = [2 * size.live < size.total for size in sizes]
    if not any(wasteful):
        return None
    first = wasteful.index(True)
    end = next((i for i in range(first, len(sizes)) if not wasteful[i]), len(sizes))
    return slice(first, end)


def _crowded(levels: Sequence[int]) -> slice | None:
    found = None
    first = 0
    while first < len(levels):
        # All that follow the last segment of the highest level are of lower ones.
        top = max(levels[first:])
        end = max(i for i in range(first, len(levels)) if levels[i] == top) + 1
        if end - first >= WIDTH:
            found = slice(first, end)
        first = end
    return found


def _level(size: int) -> int:
    level = 0
    while size > SMALL:
        size //= WIDTH
        level += 1
    return level


def copy_live(segment: Segment, writer: SegmentWriter) -> None:
    """Add the live documents of a segment to a writer, holding one block of features at a time.

    Raises:
        IndexStoreError: The segment is damaged, or the new one cannot be written.
    """
    reader = _TokenReader(segment)
    for ordinal in segment.live_documents().tolist():
        row = segment.document(ordinal)
        document = Document(segment.document_text(ordinal), id=row.id, metadata=row.metadata)
        writer.add(document, reader.chunks(ordinal))


class _TokenReader:
    """Gives a segment's documents back as the chunks they were written from."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._block = -1

    def chunks(self, ordinal: int) -> Iterator[TokenChunk]:
        """The tokens of a document, cut where a block of postings ends."""
        starts = self._segment.document_tokens(ordinal)
        codes = self._segment.document_codes(ordinal)
        token = int(self._segment.documents[ordinal]["first_token"])
        while len(starts):
            block, first, end = self._segment.block_at(token)
            self._load(block)
            n = min(len(starts), end - token)
            part = slice(token - first, token - first + n)
            features = {tap: rows[part] for tap, rows in self._features.items()}
            yield TokenChunk(starts[:n], features, codes)
            codes = {tap: some[:0] for tap, some in codes.items()}
            starts = starts[n:]
            token += n

    def _load(self, block: int) -> None:
        if block != self._block:
            segment = self._segment
            self._features = {tap: segment.block_features(tap, block) for tap in segment.taps}
            self._block = block
