"""One generation of an index, as searches read it."""

from __future__ import annotations

from functools import cached_property

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
