"""One generation of an index, as searches read it, and its sentences numbered through."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from s3_retriever.index.segment import Segment


class Snapshot:
    """The segments of one generation. Later commits do not touch it.

    Args:
        generation: Number of the commit.
        segments: Its segments, oldest first.
    """

    def __init__(self, generation: int, segments: list[Segment]) -> None:
        self.generation = generation
        self.segments = segments

    def find(self, document_id: str) -> tuple[Segment, int] | None:
        """Where the live document of that id is: its segment and its ordinal there."""
        return self._locations.get(document_id)

    def ids(self) -> list[str]:
        """Ids of the live documents, in the order they were added."""
        return list(self._locations)

    @cached_property
    def n_documents(self) -> int:
        """Number of live documents."""
        return sum(len(segment.live_documents()) for segment in self.segments)

    @cached_property
    def n_sentences(self) -> int:
        """Number of sentences of live documents."""
        return self._total("n_sentences")

    @cached_property
    def n_tokens(self) -> int:
        """Number of tokens of live documents."""
        return self._total("n_tokens")

    def _total(self, field: str) -> int:
        return sum(
            int(segment.documents[field][segment.live_documents()].sum())
            for segment in self.segments
        )

    @cached_property
    def _locations(self) -> dict[str, tuple[Segment, int]]:
        return {
            ids[ordinal]: (segment, ordinal)
            for segment in self.segments
            for ids in [segment.ids()]
            for ordinal in segment.live_documents().tolist()
        }


class Sentences:
    """The sentences of a snapshot as one row of numbers.

    Args:
        snapshot: What to number.

    Attributes:
        segments: The snapshot's segments.
        bounds: Number of each segment's first sentence, and the total, int64 [segments + 1].
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.segments = snapshot.segments
        counts = [segment.n_sentences for segment in self.segments]
        self.bounds = np.cumsum([0, *counts])
        self._columns: dict[str, NDArray[Any]] = {}

    @staticmethod
    def of(snapshot: Snapshot) -> Sentences:
        """The sentences of a snapshot, numbered once for all searches in it."""
        found = _NUMBERED.get(snapshot)
        if found is None:
            found = _NUMBERED[snapshot] = Sentences(snapshot)
        return found

    def __len__(self) -> int:
        return int(self.bounds[-1])

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """Which sentences are of documents that are not deleted [n]."""
        live = self.of_documents(lambda segment: segment.live)
        live.flags.writeable = False
        return live

    @cached_property
    def document_starts(self) -> NDArray[np.int64]:
        """Number of the first sentence of each document that has any, ascending [documents]."""
        documents = self.column("document")
        starts = np.ones(len(self), dtype=np.bool_)
        starts[1:] = documents[1:] != documents[:-1]
        firsts = self.bounds[:-1]
        starts[firsts[firsts < len(self)]] = True
        return np.flatnonzero(starts)

    @cached_property
    def n_live(self) -> int:
        """How many these are."""
        return int(np.count_nonzero(self.live))

    @cached_property
    def mean_terms(self) -> float:
        """Their mean length in terms, 0 where there are none."""
        return float(self.column("n_terms")[self.live].mean()) if self.n_live else 0.0

    def locate(self, number: int) -> tuple[int, Segment, int]:
        """The segment's place in the snapshot, the segment, and the sentence's ordinal there."""
        place = int(np.searchsorted(self.bounds, number, side="right")) - 1
        return place, self.segments[place], number - int(self.bounds[place])

    def of_documents(
        self, chosen: Callable[[Segment], NDArray[np.bool_] | None]
    ) -> NDArray[np.bool_]:
        """Which sentences belong to chosen documents.

        Args:
            chosen: For a segment, a flag for each of its documents, or None for all of them.

        Returns:
            A flag for each sentence [n].
        """
        parts = []
        for segment in self.segments:
            flags = chosen(segment)
            if flags is None:
                parts.append(np.ones(segment.n_sentences, dtype=np.bool_))
            else:
                parts.append(np.repeat(flags, segment.documents["n_sentences"].astype(np.int64)))
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.bool_)

    def column(self, field: str) -> NDArray[Any]:
        """One field of the sentence tables [n], copied out of the records once."""
        if field not in self._columns:
            parts = [segment.sentences[field] for segment in self.segments]
            self._columns[field] = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return self._columns[field]


_NUMBERED: WeakKeyDictionary[Snapshot, Sentences] = WeakKeyDictionary()
