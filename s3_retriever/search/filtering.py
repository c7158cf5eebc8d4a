"""Metadata filters, applied before ranking."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from s3_retriever.errors import InputError
from s3_retriever.index import Segment, Snapshot
from s3_retriever.types import Where


def admitted(snapshot: Snapshot, where: Where | None) -> NDArray[np.bool_]:
    """Which sentences a search may return: those of live documents that the filter admits.

    Args:
        snapshot: What is searched.
        where: Metadata that documents must have, or a function of a document's metadata; None
            admits all.

    Returns:
        bool [n].

    Raises:
        InputError: `where` is neither a mapping nor a function.
    """
    if where is None:
        return snapshot.live
    if isinstance(where, Mapping):
        conditions = dict(where)
        return snapshot.live & snapshot.of_documents(lambda segment: segment.where(conditions))
    if not callable(where):
        raise InputError(
            "where must be a mapping such as {'year': 2024} or a function of a document's "
            f"metadata, not {type(where).__name__}."
        )

    def chosen(segment: Segment) -> NDArray[np.bool_]:
        flags = np.zeros(segment.n_documents, dtype=np.bool_)
        for ordinal in segment.live_documents().tolist():
            flags[ordinal] = bool(where(segment.document(ordinal).metadata))
        return flags

    return snapshot.of_documents(chosen)
