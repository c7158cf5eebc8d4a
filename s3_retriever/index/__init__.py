"""The index: immutable segments of postings on disk, opened by memory map."""

from s3_retriever.index.segment import Segment
from s3_retriever.index.snapshot import Snapshot
from s3_retriever.index.store import Store
from s3_retriever.index.tables import DocumentRow
from s3_retriever.index.verification import Verification
from s3_retriever.index.writer import SegmentWriter, TokenChunk

__all__ = [
    "DocumentRow",
    "Segment",
    "SegmentWriter",
    "Snapshot",
    "Store",
    "TokenChunk",
    "Verification",
]
