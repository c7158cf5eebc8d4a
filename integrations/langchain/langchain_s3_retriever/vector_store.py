"""`S3VectorStore`: an S3 index where LangChain wants a vector store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

import s3_retriever
from langchain_s3_retriever.documents import add_documents, texts_to_documents
from langchain_s3_retriever.settings import is_blank
from s3_retriever import InputError
from s3_retriever.types import (
    Mode,
    Where,
    check_choice,
    check_count,
    check_items,
    check_string,
    check_type,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from s3_retriever import Codebook, Host, Recipe, S3Index, Span


class S3VectorStore(VectorStore):
    """An S3 index with the interface of a vector store.

    For what takes nothing else: `langchain_core.indexing.index` with a record manager,
    `ParentDocumentRetriever`, example selectors. As these expect, a search returns whole documents
    as they were added, ranked by the best of their spans. `S3Retriever.from_index(store.index)`
    finds evidence in the same index. There is no search by vector and no MMR.

    Args:
        index: The index; retrievers and stores may share it.
        mode: `s3` (co-activation of features), `bm25`, or `hybrid`, which fuses both.
    """

    def __init__(self, index: S3Index, *, mode: Mode = "hybrid") -> None:
        check_type(index, s3_retriever.S3Index, "index")
        check_choice(mode, "mode", Mode)
        self.index = index
        self._mode: Mode = mode

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str] | str,
        embedding: Embeddings | None = None,
        metadatas: Iterable[Mapping[str, Any] | None] | Mapping[str, Any] | None = None,
        *,
        ids: Iterable[str | None] | str | None = None,
        **options: Any,
    ) -> Self:
        """Index texts.

        Args:
            texts: Texts, or a single one.
            embedding: Ignored; the host needs no embeddings.
            metadatas: Metadata of each text.
            ids: Id of each text.
            options: As in `from_documents`.

        Raises:
            S3Error: As in `from_documents`.
        """
        documents = texts_to_documents(texts, metadatas)
        return cls.from_documents(documents, embedding, ids=ids, **options)

    @classmethod
    def from_documents(  # type: ignore[override]
        cls,
        documents: Iterable[Document] | Document,
        embedding: Embeddings | None = None,  # noqa: ARG003 - LangChain's signature
        *,
        ids: Iterable[str | None] | str | None = None,
        host: str | Host = "minilm",
        codebook: str | Path | Codebook | None = None,
        recipe: str | Recipe = "default",
        path: str | Path | None = None,
        host_options: Mapping[str, Any] | None = None,
        mode: Mode = "hybrid",
        progress: bool = True,
    ) -> Self:
        """Index documents; after an error, `path` is as it was before.

        Args:
            documents: Documents, or a single one.
            embedding: Ignored; the host needs no embeddings.
            ids: Id of each document; defaults to its own, or to a hash of its text and metadata.
            host: `minilm`, a local folder, a model id on the Hugging Face Hub, or a loaded host.
            codebook: The host's codebook, or its name; defaults to the one that belongs to it.
            recipe: `default`, `paper`, or your own.
            path: New or empty folder for the index; without it, the index lives in memory.
            host_options: Options for loading the host, such as `{"device": "cuda"}`.
            mode: As for the class.
            progress: Whether a terminal shows a bar with rate and time left.

        Raises:
            S3Error: The host, the codebook, a document or the folder cannot be used.
        """
        with s3_retriever.new_index(
            path, host, codebook=codebook, recipe=recipe, **(host_options or {})
        ) as index:
            store = cls(index, mode=mode)
            store.add_documents(documents, ids=ids, progress=progress)
        return store

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        host: str | Host | None = None,
        codebook: str | Path | Codebook | None = None,
        host_options: Mapping[str, Any] | None = None,
        mode: Mode = "hybrid",
    ) -> Self:
        """Open an index on disk.

        Args:
            path: Folder of the index.
            host: The host, if it has moved since the index was made.
            codebook: The codebook, if it has moved since the index was made.
            host_options: Options for loading the host.
            mode: As for the class.

        Raises:
            S3Error: There is no usable index at `path`, or there is no codebook for its host.
        """
        index = s3_retriever.S3Index.open(path, host, codebook=codebook, **(host_options or {}))
        return cls(index, mode=mode)

    def add_documents(  # type: ignore[override]
        self,
        documents: Iterable[Document] | Document,
        *,
        ids: Iterable[str | None] | str | None = None,
        progress: bool = True,
        batch_size: int | None = None,  # noqa: ARG002 - from LangChain's `index`
    ) -> list[str]:
        """Add documents, all of them or, after an error, none; known ids are replaced.

        Args:
            documents: Documents, or a single one.
            ids: Id of each document; defaults to its own, or to a hash of its text and metadata.
            progress: Whether a terminal shows a bar with rate and time left.
            batch_size: Ignored.

        Returns:
            The id of each document.

        Raises:
            S3Error: A document cannot be used, or the index cannot be written.
        """
        return add_documents(self.index, documents, ids, progress=progress)

    def add_texts(
        self,
        texts: Iterable[str] | str,
        metadatas: Iterable[Mapping[str, Any] | None] | Mapping[str, Any] | None = None,
        *,
        ids: Iterable[str | None] | str | None = None,
        **options: Any,
    ) -> list[str]:
        """Add texts; as `add_documents`.

        Args:
            texts: Texts, or a single one.
            metadatas: Metadata of each text.
            ids: Id of each text.
            options: As in `add_documents`.
        """
        return self.add_documents(texts_to_documents(texts, metadatas), ids=ids, **options)

    def delete(  # type: ignore[override]
        self, ids: Iterable[str] | str | None = None
    ) -> bool:
        """Delete documents; unknown ids are ignored.

        Args:
            ids: Ids, or a single one; None deletes all documents.

        Returns:
            True.

        Raises:
            S3Error: An id is not a string, or the index cannot be written.
        """
        self.index.delete(self.index.ids() if ids is None else ids, missing_ok=True)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with some ids, as they were added; unknown ids are ignored.

        Args:
            ids: Ids, or a single one.
        """
        found = []
        for name in check_items(ids, "ids"):
            check_string(name, "id")
            with suppress(InputError):
                stored = self.index.get(name)
                found.append(Document(stored.text, id=stored.id, metadata=dict(stored.metadata)))
        return found

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """Find the documents that hold the best evidence.

        Args:
            query: Any text; a blank one finds nothing.
            k: Most documents.
            options: `filter` (LangChain's word) or `where`, as for `S3Retriever`, and `mode`.

        Returns:
            Documents as they were added, best first.
        """
        return [document for document, _ in self._ranked(query, k, **options)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search`, with the relevance of each document's best span, 0 to 1.

        Args:
            query: As in `similarity_search`.
            k: As in `similarity_search`.
            options: As in `similarity_search`.
        """
        return self._ranked(query, k, **options)

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return self._ranked(query, k, **kwargs)

    def max_marginal_relevance_search(self, query: str, *args: Any, **options: Any) -> Any:
        """Not available: the index has no vectors to compare documents by.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "S3VectorStore has no search_type='mmr'; use 'similarity', which already leaves out "
            "repeated sentences."
        )

    def _ranked(
        self,
        query: str,
        k: int,
        *,
        filter: Where | None = None,  # noqa: A002 - LangChain's word
        where: Where | None = None,
        mode: Mode | None = None,
    ) -> list[tuple[Document, float]]:
        """Documents by their best span, with its relevance."""
        if filter is not None and where is not None:
            raise InputError("filter and where mean the same; give one of them.")
        limit = k = check_count(k, "k")
        if is_blank(query):
            return []
        while True:
            spans = self.index.search(
                query,
                limit,
                mode=self._mode if mode is None else mode,
                where=filter if where is None else where,
                unique=False,  # a copy of a document is a document
            )
            best: dict[str, Span] = {}
            for span in spans:
                best.setdefault(span.document_id, span)
            if len(best) >= k or len(spans) < limit:
                break
            # Many spans are of the same documents.
            limit *= 4
        documents = {document.id: document for document in self.get_by_ids(list(best)[:k])}
        # A document may have been deleted since the search.
        return [
            (documents[name], span.relevance) for name, span in best.items() if name in documents
        ]
