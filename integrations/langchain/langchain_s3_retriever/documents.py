"""LangChain's documents to S3's, and S3's spans to LangChain's documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from pydantic_core import to_jsonable_python

import s3_retriever
from s3_retriever import InputError

if TYPE_CHECKING:
    from s3_retriever import Span


def to_index(
    documents: Iterable[Document], ids: Iterable[str] | None = None
) -> Iterator[s3_retriever.Document]:
    """Convert documents, one at a time.

    Args:
        documents: LangChain's documents; they are not changed.
        ids: Their ids, where they are not the documents' own. A document without any gets one
            that is derived from its text and metadata.

    Raises:
        InputError: A text, an id or metadata that an index cannot hold.
        ValueError: There are more or fewer ids than documents.
    """
    own: Iterable[tuple[Document, str | None]] = ((document, document.id) for document in documents)
    pairs = own if ids is None else zip(documents, ids, strict=True)
    for document, name in pairs:
        yield s3_retriever.Document(
            document.page_content,
            id=name or "",
            metadata=json_values(document.metadata),
        )


def json_values(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with values that JSON can hold: dates as ISO 8601, UUIDs and paths as strings.

    Raises:
        InputError: A value has no such form.
    """
    try:
        return dict(to_jsonable_python(dict(metadata)))
    except ValueError as error:
        raise InputError(f"Metadata that an index cannot hold: {error}.") from None


def to_evidence(span: Span, metadata: Mapping[str, Any], source_document_id: str) -> Document:
    """A span as a LangChain document.

    Offsets count from the start of the text that a splitter cut: where the metadata of the
    searched document says `start_index`, that is added.

    Args:
        span: The span.
        metadata: Of the document it was found in; the new document takes it over.
        source_document_id: Id of the document that offsets count in.
    """
    shift = metadata.get("start_index")
    shift = shift if type(shift) is int else 0
    start, end = shift + span.start, shift + span.end
    return Document(
        page_content=span.text,
        id=f"{source_document_id}:{start}-{end}",
        metadata={
            **metadata,
            "relevance_score": span.score,
            "start_index": start,
            "end_index": end,
            "sources": list(span.sources),
            "source_document_id": source_document_id,
        },
    )
