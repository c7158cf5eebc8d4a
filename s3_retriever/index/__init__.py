"""The index: immutable segments of postings, on disk or in memory, and the snapshot of a moment."""

from s3_retriever.index.backends import DiskBackend
from s3_retriever.index.columns import Column
from s3_retriever.index.documents import DocumentRow
from s3_retriever.index.segment import Segment
from s3_retriever.index.snapshot import Snapshot
from s3_retriever.index.store import Store, unknown_ids
from s3_retriever.index.verification import Verification
from s3_retriever.index.writer import SegmentWriter

__all__ = [
    "Column",
    "DiskBackend",
    "DocumentRow",
    "Segment",
    "SegmentWriter",
    "Snapshot",
    "Store",
    "Verification",
    "unknown_ids",
]
