"""`write_index`: a new index of documents that others have, copied row by row without a host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from s3_retriever.index.backends import DiskBackend, new_manifest
from s3_retriever.index.manifest import SegmentEntry
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
    path: Path,
    origin: Mapping[str, Any],
    text_analysis: Mapping[str, str],
    parts: Iterable[Part],
    *,
    progress: bool = False,
) -> None:
    """Write documents to a new index on disk, as one segment; all of it or nothing.

    Args:
        path: A folder that is empty or does not exist.
        origin: What the documents were made with, as for `Store.create`.
        text_analysis: What cut them into sentences and terms, as there.
        parts: The documents, in order; of segments with the same layout that are intact. One is
            opened at a time if they come from an iterator.
        progress: Whether a bar shows how far it is (only in a terminal).

    Raises:
        IndexStoreError: `path` is in use or cannot be written, or a segment is damaged.
    """
    filled = (part for part in parts if part.n_documents)
    first = next(filled, None)

    def fill(folder: DiskFolder) -> SegmentEntry:
        assert first is not None
        writer = SegmentWriter(folder, first.segment.entry.layout)
        try:
            copy_parts(writer, chain([first], filled), progress=progress)
            return writer.close()
        finally:
            writer.abort()

    manifest = new_manifest(origin, text_analysis)
    DiskBackend.create(path, manifest, None if first is None else fill)


def copy_parts(writer: SegmentWriter, parts: Iterable[Part], *, progress: bool = False) -> None:
    """Copy documents into a segment that is being written.

    Args:
        writer: Takes them.
        parts: The documents, in order.
        progress: Whether a bar shows how far it is (only in a terminal).

    Raises:
        IndexStoreError: A segment is damaged, or the copy cannot be written.
    """
    with progress_bar(progress, unit="token", unit_scale=True, desc="Copying") as bar:
        for segment, chosen in parts:
            writer.copy_live(segment, bar, chosen)
