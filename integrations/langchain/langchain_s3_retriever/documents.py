"""Conversion: LangChain's documents to those of S3, and spans to LangChain's documents."""

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
        documents: LangChain's documents; not modified.
        ids: Id of each document; defaults to the document's own, or to a hash of its text and
            metadata.

    Raises:
        InputError: A text, an id or metadata cannot be stored in an index.
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
    """Copy metadata as JSON values: dates as ISO 8601, UUIDs and paths as strings.

    Raises:
        InputError: A value has no JSON form.
    """
    try:
        return dict(to_jsonable_python(dict(metadata)))
    except ValueError as error:
        raise InputError(f"Metadata cannot be stored as JSON: {error}.") from None


def to_evidence(span: Span, metadata: Mapping[str, Any], source_document_id: str) -> Document:
    """Convert a span to a LangChain document.

    Offsets refer to the text that a splitter cut: `start_index` in the metadata of the searched
    document is added to them.

    Args:
        span: The span.
        metadata: Metadata of the document it was found in; the new document takes it over.
        source_document_id: Id of the document that the offsets refer to.
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
