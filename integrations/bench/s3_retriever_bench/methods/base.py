"""What a method of retrieval is to the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from s3_retriever.calibration.question_sets import Piece
from s3_retriever.document import Document


class Searcher(Protocol):
    """Prepared documents that can be searched."""

    def search(self, question: str, budget: int) -> Sequence[Piece]:
        """Pieces of the documents, best first, of `budget` tokens of the host at most."""

    def size(self) -> int:
        """Bytes that are kept of the documents, about."""

    def close(self) -> None:
        """Let go of files."""


class Method(Protocol):
    """A way to retrieve evidence."""

    def prepare(self, documents: Sequence[Document]) -> Searcher:
        """Read documents, so that questions can be asked of them."""
