"""Conversion: LangChain's documents to those of S3, and spans to LangChain's documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from numbers import Integral
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document

import s3_retriever
from s3_retriever import InputError
from s3_retriever.types import check_items

if TYPE_CHECKING:
    from s3_retriever import DocumentResult, S3Index, Span

# Keys of a span's metadata that belong to this package. They are flat and their values are texts
# and numbers, which every vector store takes.
DOCUMENT_ID = "s3_document_id"
START = "s3_start"
END = "s3_end"
RELEVANCE = "s3_relevance"
SOURCES = "s3_sources"
EVIDENCE = "s3_evidence"

_MISSING: Any = object()


def texts_to_documents(
    texts: Iterable[str] | str,
    metadatas: Iterable[Mapping[str, Any] | None] | Mapping[str, Any] | None,
) -> Iterator[Document]:
    """Make LangChain's documents of texts, one at a time; a single text need not be in a list.

    Raises:
        InputError: A text or metadata is of another type, or their numbers differ.
    """
    if isinstance(metadatas, Mapping):
        metadatas = [metadatas]
    for text, metadata in _pairs(check_items(texts, "texts"), metadatas, "texts", "metadatas"):
        if not isinstance(text, str):
            raise InputError(f"A text must be a string, not {type(text).__name__}.")
        if metadata is not None and not isinstance(metadata, Mapping):
            raise InputError(f"Metadata must be a dict, not {type(metadata).__name__}.")
        yield Document(text, metadata=dict(metadata or {}))


def add_documents(
    index: S3Index,
    documents: Iterable[Document] | Document,
    ids: Iterable[str | None] | str | None,
    *,
    progress: bool,
) -> list[str]:
    """Add documents to an index, one at a time; a single one need not be in a list.

    Args:
        index: The index; documents with known ids are replaced.
        documents: LangChain's documents; not modified.
        ids: Id of each document; defaults to the document's own, or to a hash of its text and
            metadata.
        progress: Whether a terminal shows a bar.

    Returns:
        The id of each document.

    Raises:
        InputError: `documents` are of another type, there are more or fewer ids than documents,
            or a text, an id or metadata cannot be stored in an index.
        IndexStoreError: The index cannot be written.
    """
    added: list[str] = []
    index.add(_once_each(_to_index(documents, ids), added), replace=True, progress=progress)
    return added


def check_documents(documents: Iterable[Document]) -> list[Document]:
    """List documents; a single one need not be in a list.

    Raises:
        InputError: They are of another type.
    """
    listed = list(check_items(documents, "documents", (Document,)))
    for document in listed:
        _check_document(document)
    return listed


def to_evidence(span: Span, metadata: Mapping[str, Any], document_id: str) -> Document:
    """Convert a span to a LangChain document.

    Args:
        span: The span.
        metadata: Metadata of the document it was found in; the new document takes it over.
        document_id: Id of the document that the offsets refer to.
    """
    shift = place(metadata)
    start, end = shift + span.start, shift + span.end
    merged = {
        **metadata,
        DOCUMENT_ID: document_id,
        START: start,
        END: end,
        RELEVANCE: span.relevance,
        SOURCES: ", ".join(span.sources),
    }
    # LangChain's own words for two of these; values of other origin stay.
    if "relevance_score" not in metadata or RELEVANCE in metadata:
        merged["relevance_score"] = span.relevance
    if _is_offset(metadata.get("start_index", 0)):
        merged["start_index"] = start
    return Document(page_content=span.text, id=f"{document_id}:{start}-{end}", metadata=merged)


def to_parent(result: DocumentResult, document: s3_retriever.Document) -> Document:
    """Convert a document that a search found to a LangChain document.

    Args:
        result: What the search says of it.
        document: The document itself.
    """
    metadata = {
        **document.metadata,
        DOCUMENT_ID: document.id,
        RELEVANCE: result.relevance,
        EVIDENCE: "\n".join(" ".join(span.text.split()) for span in result.spans),
    }
    if "relevance_score" not in document.metadata:
        metadata["relevance_score"] = result.relevance
    return Document(page_content=document.text, id=document.id, metadata=metadata)


def cited(documents: Iterable[Document]) -> str:
    """Texts for a model, one in a line, each after its id, or its number, in brackets."""
    return "\n".join(
        f"[{document.id or number}] {' '.join(document.page_content.split())}"
        for number, document in enumerate(documents, 1)
    )


def place(metadata: Mapping[str, Any]) -> int:
    """Where a document starts in the text it was cut from, by S3 or by a text splitter; or 0."""
    for key in (START, "start_index"):
        if _is_offset(metadata.get(key)):
            return int(metadata[key])
    return 0


def _to_index(
    documents: Iterable[Document] | Document, ids: Iterable[str | None] | str | None
) -> Iterator[s3_retriever.Document]:
    listed = check_items(documents, "documents", (Document,))
    for document, given in _pairs(listed, ids, "documents", "ids"):
        _check_document(document)
        yield s3_retriever.Document(
            document.page_content,
            id=document.id or "" if given is None else given,
            metadata=document.metadata,
        )


def _once_each(
    documents: Iterable[s3_retriever.Document], ids: list[str]
) -> Iterator[s3_retriever.Document]:
    """Yield each distinct document once and append the ids of all to `ids`."""
    seen: dict[str, str] = {}
    for document in documents:
        ids.append(document.id)
        content = s3_retriever.Document(document.text, metadata=document.metadata).id
        if seen.get(document.id) != content:
            # The index refuses two different documents with the same id.
            seen[document.id] = content
            yield document


def _is_offset(value: Any) -> bool:
    """Whether a value is a place; text splitters write -1 for one that they did not find."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _check_document(document: object) -> None:
    if not isinstance(document, Document):
        hint = "; use from_texts for plain texts" if isinstance(document, str) else ""
        raise InputError(
            f"A document must be a LangChain Document, not {type(document).__name__}{hint}."
        )


def _pairs(
    values: Iterable[Any], others: Iterable[Any] | str | None, name: str, other_name: str
) -> Iterator[tuple[Any, Any]]:
    """Pair values with as many others, or each with None if there are no others."""
    if others is None:
        yield from ((value, None) for value in values)
        return
    for value, other in zip_longest(values, check_items(others, other_name), fillvalue=_MISSING):
        if value is _MISSING or other is _MISSING:
            more, fewer = (other_name, name) if value is _MISSING else (name, other_name)
            raise InputError(f"There are more {more} than {fewer}; give as many of each.")
        yield value, other
