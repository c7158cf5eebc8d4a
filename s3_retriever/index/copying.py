"""`write_index`: a new index of documents that others have, copied row by row without a host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from s3_retriever.index.backends import DiskBackend, new_manifest
from s3_retriever.index.manifest import Manifest, SegmentEntry
from s3_retriever.index.segment import Segment
from s3_retriever.index.storage import DiskFolder
from s3_retriever.index.writer import SegmentWriter
from s3_retriever.progress import progress_bar


class Part(NamedTuple):
    """Documents of a segment.

    Attributes:
        segment: The segment.
        chosen: Which of its documents, bool [n_documents]; None for all. Deleted ones never count.
    """

    segment: Segment
    chosen: NDArray[np.bool_] | None = None

    @property
    def n_documents(self) -> int:
        """Number of live documents."""
        live = self.segment.live_documents()
        return len(live) if self.chosen is None else int(self.chosen[live].sum())


def write_index(
    path: Path, like: Manifest, parts: Sequence[Part], *, progress: bool = False
) -> None:
    """Write documents to a new index on disk, as one segment; all of it or nothing.

    Args:
        path: A folder that is empty or does not exist.
        like: Says how the documents were made.
        parts: The documents, in order; of segments with the same layout that are intact.
        progress: Whether a bar shows how far it is (only in a terminal).

    Raises:
        IndexStoreError: `path` is in use or cannot be written, or a segment is damaged.
    """
    parts = [part for part in parts if part.n_documents]

    def fill(folder: DiskFolder) -> SegmentEntry:
        writer = SegmentWriter(folder, parts[0].segment.entry.layout)
        total = sum(part.segment.n_tokens for part in parts)
        try:
            with progress_bar(
                progress, total=total, unit="token", unit_scale=True, desc="Copying"
            ) as bar:
                for segment, chosen in parts:
                    writer.copy_live(segment, bar, chosen)
            return writer.close()
        finally:
            writer.abort()

    manifest = new_manifest(like.origin, like.text_analysis)
    DiskBackend.create(path, manifest, fill if parts else None)
