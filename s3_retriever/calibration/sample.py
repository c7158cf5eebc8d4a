"""What a calibration asks: questions whose evidence is known, and the documents that hold it."""

from __future__ import annotations

from dataclasses import dataclass

from s3_retriever.document import Document
from s3_retriever.errors import InputError


@dataclass(frozen=True, slots=True)
class Evidence:
    """A range of a document that answers a question.

    Attributes:
        document_id: The document's id.
        start: Offset of the first character.
        end: Offset after the last one.
        any_part: Whether any part of it counts as found: a paragraph, a section or a turn is
            labelled, and a sentence of it may answer. Else it must be covered.
    """

    document_id: str
    start: int
    end: int
    any_part: bool = False


@dataclass(frozen=True, slots=True)
class LabelledQuestion:
    """A question and all evidence that a search should find.

    Attributes:
        text: What is asked.
        evidence: Where the documents answer it.

    Raises:
        InputError: The question is empty or has no evidence.
    """

    text: str
    evidence: tuple[Evidence, ...]

    def __post_init__(self) -> None:
        """Check the fields."""
        if not self.text.strip():
            raise InputError("A question is empty; leave it out.")
        if not self.evidence:
            raise InputError(f"The question {self.text!r} has no evidence; leave it out.")


@dataclass(frozen=True, slots=True)
class Sample:
    """Documents that are searched together, and the questions asked of them.

    Raises:
        InputError: Evidence lies outside the documents.
    """

    documents: tuple[Document, ...]
    questions: tuple[LabelledQuestion, ...]

    def __post_init__(self) -> None:
        """Check that the evidence can be found."""
        sizes = {document.id: len(document.text) for document in self.documents}
        for question in self.questions:
            for part in question.evidence:
                if not 0 <= part.start < part.end <= sizes.get(part.document_id, 0):
                    raise InputError(
                        f"The question {question.text!r} has its evidence at {part.start}:"
                        f"{part.end} of document {part.document_id!r}, which is not in the "
                        "documents; correct the label."
                    )
