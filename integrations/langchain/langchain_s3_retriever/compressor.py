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
from langchain_s3_retriever.documents import (
    DOCUMENT_ID,
    check_documents,
    place,
    to_evidence,
)
from langchain_s3_retriever.settings import Count, Share, is_blank
from s3_retriever import InputError
from s3_retriever.processes import renew_after_fork
from s3_retriever.types import DEFAULT_CONTEXT, ContextForm, Mode, Order

if TYPE_CHECKING:
    from langchain_core.callbacks import Callbacks

    from s3_retriever import Codebook, Compressor, Host, Recipe
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

    The host is loaded on first use, once per process; recent scans are remembered. A sentence that
    occurs in several documents is returned once. A blank question finds nothing.

    Returned documents are as described for `S3Retriever`, with the metadata of the document that
    contains the span, JSON or not; `s3_document_id` is that document's id, or a hash of its text
    and metadata. Spans that come from an `S3Retriever` keep the id of their original document.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    k: Count = None
    """Maximum number of spans; None for no limit."""
    token_budget: Count = None
    """Maximum tokens of all spans together, as the host counts them; 1,024 if `k` is None too."""
    min_relevance: Share = None
    """Spans of a lower relevance, 0 to 1, are left out; None leaves out, without `k`, what is
    unlikely to be evidence."""
    mode: Mode = "hybrid"
    """`s3` (co-activation of features), `bm25`, or `hybrid`, which fuses both."""
    order: Order = "score"
    """`score`, best first, or `document`, as in the documents."""
    context: ContextForm = DEFAULT_CONTEXT
    """What a span takes along of the text around it, as in `S3Index.search`."""
    rerank: Count = None
    """How many of the best sentences a language model reads again, together with the question, and
    ranks by its attention; None for none."""
    rerank_host: str | Host | None = None
    """That model; by default `host`, if it is one."""
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
            InputError: The question or a document is of another type, or a text cannot be used.
            HostError: The host cannot be loaded.
            CodebookError: There is no codebook for the host, or it does not fit.
        """
        documents = check_documents(documents)
        if not documents or is_blank(query):
            return []
        # Numbers, because ids may be missing or not unique.
        sources = {str(number): document for number, document in enumerate(documents)}
        names = dict(zip(sources, _names(documents), strict=True))
        spans = self._loaded().compress(
            query,
            [_to_scan(document, number) for number, document in sources.items()],
            k=self.k,
            token_budget=self.token_budget,
            min_relevance=self.min_relevance,
            mode=self.mode,
            order=self.order,
            context=self.context,
            rerank=self.rerank,
            rerank_host=self.rerank_host,
        )
        return [
            to_evidence(span, deepcopy(sources[span.document_id].metadata), names[span.document_id])
            for span in spans
        ]

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
    ) -> list[Document]:
        """Run `compress_documents` in a thread."""
        return await run_in_executor(None, self.compress_documents, documents, query, callbacks)

    def as_runnable(self) -> Runnable[Retrieved, list[Document]]:
        """Make a step of a chain, which takes `{"query": ..., "documents": ...}`.

        The step raises `InputError` for anything else.
        """

        def compress(retrieved: Retrieved) -> list[Document]:
            return self.compress_documents(*_parts(retrieved))

        async def acompress(retrieved: Retrieved) -> list[Document]:
            return await self.acompress_documents(*_parts(retrieved))

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


def _parts(retrieved: Retrieved) -> tuple[Sequence[Document], str]:
    """Documents and query of the runnable's input."""
    if (
        not isinstance(retrieved, Mapping)
        or not Retrieved.__annotations__.keys() <= retrieved.keys()
    ):
        raise InputError("The compressor takes a mapping of 'query' and 'documents'.")
    return retrieved["documents"], retrieved["query"]


def _to_scan(document: Document, number: str) -> s3_retriever.Document:
    """Convert text and title; other metadata may not be JSON and is not needed."""
    title = document.metadata.get("title")
    metadata = {"title": title} if isinstance(title, str) else {}
    return s3_retriever.Document(document.page_content, id=number, metadata=metadata)


def _names(documents: Sequence[Document]) -> list[str]:
    """Ids of the documents that spans refer to, such that no two places have the same.

    A span of S3 keeps the id of its document. Documents without an id, and different ones with the
    same id, are named by a hash of text and metadata.
    """
    texts: dict[tuple[str | None, int], set[str]] = {}
    known = [(_known_name(document), place(document.metadata)) for document in documents]
    for key, document in zip(known, documents, strict=True):
        texts.setdefault(key, set()).add(document.page_content)
    return [
        _content_name(document) if key[0] is None or len(texts[key]) > 1 else key[0]
        for key, document in zip(known, documents, strict=True)
    ]


def _known_name(document: Document) -> str | None:
    name = document.metadata.get(DOCUMENT_ID)
    return name if isinstance(name, str) else document.id


def _content_name(document: Document) -> str:
    metadata = {k: v for k, v in document.metadata.items() if k != "relevance_score"}
    try:
        return s3_retriever.Document(document.page_content, metadata=metadata).id
    except InputError:
        return s3_retriever.Document(document.page_content).id
