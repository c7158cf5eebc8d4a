"""`S3Compressor`: what other retrievers returned, reduced to the evidence."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import Runnable, RunnableLambda, run_in_executor
from pydantic import ConfigDict, Field, PrivateAttr

import s3_retriever
from langchain_s3_retriever.documents import to_evidence
from langchain_s3_retriever.options import Mode, Order

if TYPE_CHECKING:
    from langchain_core.callbacks import Callbacks

    from s3_retriever import Codebook, Compressor, Host, Recipe, Span
else:
    # Importing the classes takes seconds; `s3_retriever.Compressor` checks what it is given.
    Codebook = Host = Recipe = Any

_LOADING = threading.Lock()


class Retrieved(TypedDict):
    """What the runnable takes.

    Attributes:
        query: The question.
        documents: What was retrieved for it.
    """

    query: str
    documents: Sequence[Document]


class S3Compressor(BaseDocumentCompressor):
    """Reduces retrieved documents to the spans that answer the question.

    The host is loaded at the first use, once per process; documents that come again are not
    scanned again. Nothing is returned twice: of documents with the same text the first counts, of
    a document and a part of it the whole, and a sentence that stands in several comes once.

    What is returned is as with `S3Retriever`, with the metadata of the document that a span
    stands in, whatever it holds; `source_document_id` is that document's id, or one derived from
    its text. Spans of an `S3Retriever` keep the id of the document they come from.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    k: int | None = Field(default=None, ge=1)
    """Spans at most; None for no such limit."""
    token_budget: int | None = Field(default=None, ge=1)
    """Tokens of the host at most, all spans together; 1,024 where `k` is None as well."""
    mode: Mode = "hybrid"
    """`s3` (co-activation of features), `bm25`, or `hybrid`, both fused."""
    order: Order = "score"
    """`score`, best first, or `document`, as in the documents."""
    host: str | Host = "minilm"
    """`minilm`, a local folder, a model id on the Hugging Face Hub, or a loaded host."""
    codebook: str | Path | Codebook | None = None
    """The host's codebook, or where it is; left out, the one that belongs to it."""
    recipe: str | Recipe = "default"
    """`default`, `paper`, or your own."""
    host_options: Mapping[str, Any] = Field(default_factory=dict)
    """For loading the host, such as `{"device": "cuda"}`."""
    cache_tokens: int = Field(default=1_000_000, ge=0)
    """Tokens whose features are remembered at most."""

    _compressor: Compressor | None = PrivateAttr(default=None)

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - LangChain's signature
    ) -> list[Document]:
        """Find the spans of the documents that answer a question.

        Args:
            documents: What was retrieved; not changed.
            query: The question.
            callbacks: Not used; nothing here has events of its own.

        Raises:
            InputError: The question is empty, or a text is not usable.
            HostError: The host cannot be loaded.
            CodebookError: There is no codebook for the host, or it does not fit.
        """
        kept = _distinct(documents)
        if not kept:
            return []
        # Numbers, because ids may be missing or not unique.
        sources = {str(number): document for number, document in enumerate(kept)}
        spans = self._loaded().compress(
            query,
            [_to_scan(document, number) for number, document in sources.items()],
            k=self.k,
            token_budget=self.token_budget,
            mode=self.mode,
            order=self.order,
        )
        return [_evidence(span, sources[span.document_id]) for span in spans]

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
    ) -> list[Document]:
        """As `compress_documents`, in a thread."""
        return await run_in_executor(None, self.compress_documents, documents, query, callbacks)

    def as_runnable(self) -> Runnable[Retrieved, list[Document]]:
        """The compressor as a step of a chain; takes `{"query": ..., "documents": ...}`."""

        def compress(retrieved: Retrieved) -> list[Document]:
            return self.compress_documents(retrieved["documents"], retrieved["query"])

        async def acompress(retrieved: Retrieved) -> list[Document]:
            return await self.acompress_documents(retrieved["documents"], retrieved["query"])

        return RunnableLambda(compress, acompress, name=type(self).__name__)

    def _loaded(self) -> Compressor:
        if self._compressor is None:
            with _LOADING:
                if self._compressor is None:
                    self._compressor = s3_retriever.Compressor(
                        self.host,
                        codebook=self.codebook,
                        recipe=self.recipe,
                        cache_tokens=self.cache_tokens,
                        **self.host_options,
                    )
        return self._compressor


def _distinct(documents: Sequence[Document]) -> list[Document]:
    """Without those whose text is, or is part of, the text of another one."""
    first: dict[str, Document] = {}
    for document in documents:
        first.setdefault(document.page_content, document)
    return [
        document
        for text, document in first.items()
        if not any(text in other for other in first if other != text)
    ]


def _to_scan(document: Document, number: str) -> s3_retriever.Document:
    """Text and title; the other metadata, which JSON need not be able to hold, stays here."""
    title = document.metadata.get("title")
    metadata = {"title": title} if isinstance(title, str) else {}
    return s3_retriever.Document(document.page_content, id=number, metadata=metadata)


def _evidence(span: Span, source: Document) -> Document:
    """A span with the metadata of its document and the id of the one that offsets count in."""
    name = source.metadata.get("source_document_id")
    if not isinstance(name, str):
        name = source.id or s3_retriever.Document(source.page_content).id
    return to_evidence(span, deepcopy(source.metadata), name)
