"""Metadata filters, applied before ranking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3_retriever.errors import InputError
from s3_retriever.index import Segment
from s3_retriever.index.snapshot import Sentences

# A mapping that every document must agree with, or a function of a document's metadata.
Where = Mapping[str, Any] | Callable[[Mapping[str, Any]], bool]

_MISSING = object()


def candidates(sentences: Sentences, where: Where | None) -> NDArray[np.bool_]:
    """Which sentences a search may return: those of live documents that the filter admits.

    Raises:
        InputError: `where` is neither a mapping nor a function.
    """
    if where is None:
        return sentences.live
    matches = _predicate(where)

    def chosen(segment: Segment) -> NDArray[np.bool_]:
        flags = np.zeros(segment.n_documents, dtype=np.bool_)
        for ordinal in segment.live_documents().tolist():
            flags[ordinal] = bool(matches(segment.document(ordinal).metadata))
        return flags

    return sentences.of_documents(chosen)


def _predicate(where: Where) -> Callable[[Mapping[str, Any]], bool]:
    if callable(where):
        return where
    if not isinstance(where, Mapping):
        raise InputError(
            "where is a mapping such as {'year': 2024} or a function of a document's metadata, "
            f"not {type(where).__name__}."
        )
    wanted = dict(where)
    return lambda metadata: all(
        metadata.get(key, _MISSING) == value for key, value in wanted.items()
    )
