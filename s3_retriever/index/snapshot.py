"""`Snapshot`: one generation of an index, as searches read it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3_retriever.document import Document
from s3_retriever.features import Layout
from s3_retriever.index.segment import Segment

_SPAN_ID = re.compile(r"(.*):[0-9]+-[0-9]+", re.DOTALL)


class Snapshot:
    """The segments of one generation. Later commits do not touch it.

    All sentences, those of deleted documents included, are numbered from 0 through all segments.

    Args:
        generation: Number of the commit.
        segments: Its segments, oldest first.

    Attributes:
        generation: Number of the commit.
        segments: Its segments, oldest first.
        bounds: Number of each segment's first sentence, and the total, int64 [segments + 1].
    """

    def __init__(self, generation: int, segments: list[Segment]) -> None:
        self.generation = generation
        self.segments = segments
        self.bounds = np.cumsum([0, *(segment.n_sentences for segment in segments)])
        self._bounds = self.bounds.tolist()
        self._columns: dict[str, NDArray[Any]] = {}

    def check_layout(self, layout: Layout) -> None:
        """Refuse the layout of a codebook or a recipe that the index was not made with.

        Raises:
            IndexStoreError: The segments have another layout.
        """
        for segment in self.segments:
            segment.entry.check_layout(layout)

    def __len__(self) -> int:
        """Number of sentences, those of deleted documents included."""
        return int(self.bounds[-1])

    def __contains__(self, document_id: str) -> bool:
        """Whether there is a live document with this id."""
        return self.find(document_id) is not None

    def find(self, document_id: str) -> tuple[Segment, int] | None:
        """The segment and ordinal of the live document with this id, or None."""
        for segment in self.segments:
            ordinal = segment.find(document_id)
            if ordinal is not None:
                return segment, ordinal
        return None

    def named(self, name: str) -> str | None:
        """Id of the live document that has this id or a span with this id, or None.

        A span's id is `document_id:start-end`.
        """
        if name in self:
            return name
        span = _SPAN_ID.fullmatch(name)
        return span[1] if span and span[1] in self else None

    def document(self, name: str) -> Document:
        """The live document that has this id or a span with this id.

        Raises:
            KeyError: There is none.
        """
        place = self.find(self.named(name) or name)
        if place is None:
            raise KeyError(name)
        return _document(*place)

    def metadata(self, document_id: str) -> Mapping[str, Any]:
        """The metadata of the live document with this id.

        Raises:
            KeyError: There is none.
        """
        place = self.find(document_id)
        if place is None:
            raise KeyError(document_id)
        segment, ordinal = place
        return segment.document(ordinal).metadata

    def documents(self) -> Iterator[Document]:
        """The live documents, in the order they were added; each is read when it is due."""
        return (
            _document(segment, ordinal)
            for segment in self.segments
            for ordinal in segment.live_documents().tolist()
        )

    def ids(self) -> list[str]:
        """Ids of the live documents, in the order they were added."""
        return [
            segment.ids()[ordinal]
            for segment in self.segments
            for ordinal in segment.live_documents().tolist()
        ]

    def rows(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Ids and metadata of the live documents, in the order they were added."""
        for segment in self.segments:
            for ordinal in segment.live_documents().tolist():
                row = segment.document(ordinal)
                yield row.id, row.metadata

    @cached_property
    def languages(self) -> frozenset[str]:
        """Languages in which documents were analysed."""
        return frozenset(each for segment in self.segments for each in segment.entry.languages)

    @cached_property
    def n_documents(self) -> int:
        """Number of live documents."""
        return sum(segment.n_live_documents for segment in self.segments)

    @cached_property
    def n_tokens(self) -> int:
        """Number of tokens of live documents."""
        return sum(segment.n_live_tokens for segment in self.segments)

    @cached_property
    def n_sentences(self) -> int:
        """Number of sentences of live documents."""
        return int(np.count_nonzero(self.live))

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """Which sentences are of documents that are not deleted, bool [n]."""
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

    def document_of(self, number: int) -> slice:
        """Numbers of all sentences of the document that a sentence belongs to."""
        _, segment, ordinal = self.locate(number)
        row = segment.documents[int(segment.sentences[ordinal]["document"])]
        start = number - ordinal + int(row["first_sentence"])
        return slice(start, start + int(row["n_sentences"]))

    @cached_property
    def n_terms(self) -> int:
        """Number of terms of the live sentences."""
        return int(self.column("n_terms")[self.live].sum(dtype=np.int64))

    def locate(self, number: int) -> tuple[int, Segment, int]:
        """A sentence's segment, as its index in the snapshot and itself, and the ordinal there."""
        place = bisect_right(self._bounds, number) - 1
        return place, self.segments[place], number - self._bounds[place]

    def located(
        self, numbers: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.bool_], Segment, NDArray[np.int64]]]:
        """Segments that have some sentences [n], with a flag for each of those [n] and ordinals."""
        places = np.searchsorted(self.bounds, numbers, side="right") - 1
        for place in np.unique(places).tolist():
            here = places == place
            yield here, self.segments[place], numbers[here] - self.bounds[place]

    def of_documents(
        self, chosen: Callable[[Segment], NDArray[np.bool_] | None]
    ) -> NDArray[np.bool_]:
        """Which sentences belong to chosen documents.

        Args:
            chosen: For a segment, a flag for each of its documents, or None for all of them.

        Returns:
            A flag for each sentence, bool [n].
        """
        parts = [np.zeros(0, dtype=np.bool_)]
        for segment in self.segments:
            flags = chosen(segment)
            if flags is None:
                parts.append(np.ones(segment.n_sentences, dtype=np.bool_))
            else:
                parts.append(np.repeat(flags, segment.documents["n_sentences"].astype(np.int64)))
        return np.concatenate(parts)

    def column(self, field: str) -> NDArray[Any]:
        """One field of the sentence tables [n], copied out of the rows once."""
        if field not in self._columns:
            parts = [segment.sentences[field] for segment in self.segments]
            self._columns[field] = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return self._columns[field]


def _document(segment: Segment, ordinal: int) -> Document:
    row = segment.document(ordinal)
    return Document(segment.document_text(ordinal), row.id, row.metadata)
