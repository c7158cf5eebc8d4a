"""What is measured: documents, the questions asked of them, and where their evidence lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from s3_retriever.calibration.recall import Located
from s3_retriever.calibration.sample import Evidence
from s3_retriever.document import Document


class Piece(Located, Protocol):
    """A piece of a document with its text and size; `Span` is one."""

    @property
    def text(self) -> str:
        """The document's text from `start` to `end`."""

    @property
    def tokens(self) -> int:
        """Length in tokens of the host."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question with labelled evidence.

    Attributes:
        id: The data set's id.
        text: What is asked.
        answers: Strings that answer it; may be empty.
        evidence: Where the documents answer it.
        group: Questions of one group are not independent (they ask the same document); dev and
            test share no group, and intervals come from resampling groups.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    group: str


@dataclass(frozen=True, slots=True)
class Context:
    """Documents, indexed once by every method, and the questions asked of them."""

    documents: tuple[Document, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """A named list of contexts."""

    name: str
    contexts: Sequence[Context]

    def questions(self) -> Iterator[Question]:
        """All questions, in the order they are asked."""
        for context in self.contexts:
            yield from context.questions

    def digest(self) -> str:
        """Identifies documents and questions, so that results are never mixed up."""
        digest = hashlib.blake2b(digest_size=8)
        for context in self.contexts:
            for document in context.documents:
                digest.update(f"{document.id}\0{document.title}\0{document.text}\0".encode())
            for question in context.questions:
                digest.update(f"{question.id}\0{question.text}\0{question.evidence}\0".encode())
        return digest.hexdigest()
