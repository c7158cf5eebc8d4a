"""Copying the live documents of segments into a new one, without the host."""

from __future__ import annotations

from collections.abc import Iterator

from s3_retriever.document import Document
from s3_retriever.index.segment import Segment
from s3_retriever.index.writer import SegmentWriter, TokenChunk


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
