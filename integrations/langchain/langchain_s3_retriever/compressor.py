"""`S3Compressor`: reduces the documents of any retriever to the evidence."""

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
from s3_retriever.processes import renew_after_fork
from s3_retriever.types import Mode, Order

if TYPE_CHECKING:
    from langchain_core.callbacks import Callbacks

    from s3_retriever import Codebook, Compressor, Host, Recipe, Span
else:
    # Importing the classes takes seconds; `s3_retriever.Compressor` checks its arguments itself.
    Codebook = Host = Recipe = Any

_LOADING = threading.Lock()


def _renew() -> None:
    """In a forked child, free the lock that another thread may have held."""
    global _LOADING
    _LOADING = threading.Lock()


renew_after_fork(_renew)


class Retrieved(TypedDict):
    """Input of the runnable.

    Attributes:
        query: The question.
        documents: The documents retrieved for it.
    """

    query: str
    documents: Sequence[Document]


class S3Compressor(BaseDocumentCompressor):
    """Reduces retrieved documents to the spans that answer the question.

    The host is loaded on first use, once per process; recent scans are remembered. Nothing is
    returned twice: of documents with the same text the first counts, of a document and its parts
    the whole, and a sentence that occurs in several documents is returned once.

    Returned documents are as described for `S3Retriever`, with the metadata of the document that
    contains the span, JSON or not; `source_document_id` is that document's id, or a hash of its
    text. Spans that come from an `S3Retriever` keep the id of their original document.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    k: int | None = Field(default=None, ge=1)
    """Maximum number of spans; None for no limit."""
    token_budget: int | None = Field(default=None, ge=1)
    """Maximum tokens of all spans together, as the host counts them; 1,024 if `k` is None too."""
    mode: Mode = "hybrid"
    """`s3` (co-activation of features), `bm25`, or `hybrid`, which fuses both."""
    order: Order = "score"
    """`score`, best first, or `document`, as in the documents."""
    host: str | Host = "minilm"
    """`minilm`, a local folder, a model id on the Hugging Face Hub, or a loaded host."""
    codebook: str | Path | Codebook | None = None
    """The host's codebook, or its name; defaults to the one that belongs to the host."""
    recipe: str | Recipe = "default"
    """`default`, `paper`, or your own."""
    host_options: Mapping[str, Any] = Field(default_factory=dict)
    """Options for loading the host, such as `{"device": "cuda"}`."""
    cache_tokens: int = Field(default=1_000_000, ge=0)
    """Maximum number of tokens whose features are remembered."""

    _compressor: Compressor | None = PrivateAttr(default=None)

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - LangChain's signature
    ) -> list[Document]:
        """Find the spans of the documents that answer a question.

        Args:
            documents: The retrieved documents; not modified.
            query: The question.
            callbacks: Ignored; compressing has no events of its own.

        Raises:
            InputError: The question is empty, or a text cannot be used.
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
        """Run `compress_documents` in a thread."""
        return await run_in_executor(None, self.compress_documents, documents, query, callbacks)

    def as_runnable(self) -> Runnable[Retrieved, list[Document]]:
        """Make a step of a chain, which takes `{"query": ..., "documents": ...}`."""

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
    """Drop documents whose text equals, or is part of, that of another."""
    first: dict[str, Document] = {}
    for document in documents:
        first.setdefault(document.page_content, document)
    return [
        document
        for text, document in first.items()
        if not any(text in other for other in first if other != text)
    ]


def _to_scan(document: Document, number: str) -> s3_retriever.Document:
    """Convert text and title; other metadata may not be JSON and is not needed."""
    title = document.metadata.get("title")
    metadata = {"title": title} if isinstance(title, str) else {}
    return s3_retriever.Document(document.page_content, id=number, metadata=metadata)


def _evidence(span: Span, source: Document) -> Document:
    """A span with the metadata of its document, and the id of the document its offsets refer to."""
    name = source.metadata.get("source_document_id")
    if not isinstance(name, str):
        name = source.id or s3_retriever.Document(source.page_content).id
    return to_evidence(span, deepcopy(source.metadata), name)
