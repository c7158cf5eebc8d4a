"""Metadata filters, applied before ranking."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from s3_retriever.errors import InputError
from s3_retriever.index import Snapshot
from s3_retriever.types import Where


def admitted(snapshot: Snapshot, where: Where | None) -> NDArray[np.bool_]:
    """Flag the sentences that a search may return: those of live documents that pass a filter.

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
    if not (isinstance(where, Mapping) or callable(where)):
        raise InputError(
            "where must be a mapping such as {'year': 2024} or a function of a document's "
            f"metadata, not {type(where).__name__}."
        )
    return snapshot.of_documents(lambda segment: segment.where(where))
