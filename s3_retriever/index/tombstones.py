"""Tombstones: the deleted documents of a segment, in a file of their own that never changes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s3_retriever.index.arrays import ArrayWriter, open_array
from s3_retriever.index.files import damaged, writing
from s3_retriever.index.manifest import FileEntry, SegmentEntry
from s3_retriever.index.tables import TOMBSTONE

TOMBSTONE_FILES = "tombstones.*.npy"


def read_live(path: Path, n_documents: int) -> NDArray[np.bool_]:
    """For every document of a segment whether it is not deleted [n_documents].

    Raises:
        IndexStoreError: The file is missing or damaged.
    """
    dead = open_array(path, TOMBSTONE, (None,))
    if dead.size and dead.max() >= n_documents:
        raise damaged(path, "tombstones beyond the last document")
    live = np.ones(n_documents, dtype=np.bool_)
    live[dead] = False
    return live


def bury(
    folder: Path, entry: SegmentEntry, dead: Iterable[int], generation: int
) -> SegmentEntry | None:
    """Delete documents of a segment for the commit of a generation.

    Args:
        folder: The segment's folder.
        entry: Its entry in the manifest.
        dead: Ordinals of all its deleted documents, those deleted before included.
        generation: The generation to be.

    Returns:
        The segment's new entry; None where no live document is left.

    Raises:
        IndexStoreError: The file cannot be written.
    """
    ordinals = sorted(set(dead))
    if len(ordinals) == entry.documents:
        return None
    path = folder / f"tombstones.{generation:06d}.npy"
    file = ArrayWriter(path, TOMBSTONE)
    file.append(ordinals)
    file.close()
    with writing(path):
        files = {**entry.files, path.name: FileEntry.of(path)}
    files.pop(entry.tombstones or "", None)
    return entry.model_copy(update={"files": files, "tombstones": path.name})
