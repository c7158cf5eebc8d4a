"""`S3Retriever`: an S3 index as a LangChain retriever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field, field_validator

import s3_retriever
from langchain_s3_retriever.creation import new_index
from langchain_s3_retriever.documents import json_values, to_evidence, to_index
from langchain_s3_retriever.options import Mode, Order, SearchOptions, Settings, Where

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )
    from typing_extensions import Self, Unpack

    from s3_retriever import Codebook, Host, Recipe, S3Index
else:
    # Importing the class takes seconds; the validator below does it when there is an index.
    S3Index = Any


class S3Retriever(BaseRetriever):
    """Retrieves evidence spans with a transformer as its own index.

    Make one with `from_texts`, `from_documents`, `from_index` or `load`. The limits `k` and
    `token_budget` hold both where both are set. A call may say otherwise than the retriever:
    `retriever.invoke(question, k=2, where={"year": 2024})`.

    A returned document's `page_content` is the text of a span. Its metadata is a copy of that of
    the document it stands in, and:

    - `relevance_score`: higher is better; comparable within one call only,
    - `start_index`, `end_index`: where it stands in the text; where the document is a chunk whose
      splitter wrote `start_index`, in the text that was split,
    - `sources`: what found it, of `s3`, `bm25`, `hop` and `edge`,
    - `source_document_id`: id of the document that was added.

    Its `id` is the same for the same place of the same document.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    index: S3Index = Field(repr=False)
    """What is searched; it may be shared with other retrievers."""
    k: int | None = Field(default=4, ge=1)
    """Spans at most; None for no such limit, or for 5 where `token_budget` is None as well."""
    mode: Mode = "hybrid"
    """`s3` (co-activation of features), `bm25`, or `hybrid`, both fused."""
    token_budget: int | None = Field(default=None, ge=1)
    """Tokens of the host at most, all spans together; None for no such limit."""
    where: Where | None = None
    """Metadata that documents must have, or a function of a document's metadata."""
    order: Order = "score"
    """`score`, best first, or `document`, as in the documents."""
    unique: bool = True
    """Whether a sentence that stands in several places comes once."""

    @field_validator("index", mode="after")
    @classmethod
    def _is_an_index(cls, index: S3Index) -> S3Index:
        if not isinstance(index, s3_retriever.S3Index):
            raise ValueError(  # noqa: TRY004 - pydantic reports ValueErrors
                f"index must be an s3_retriever.S3Index, not {type(index).__name__}; make the "
                "retriever with from_texts, from_documents, from_index or load."
            )
        return index

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any]] | None = None,
        ids: Iterable[str] | None = None,
        *,
        host: str | Host = "minilm",
        codebook: str | Path | Codebook | None = None,
        recipe: str | Recipe = "default",
        path: str | Path | None = None,
        host_options: Mapping[str, Any] | None = None,
        progress: bool = True,
        **settings: Unpack[Settings],
    ) -> Self:
        """Index texts.

        Args:
            texts: Any texts; they need not be split.
            metadatas: Of each text.
            ids: Of each text.
            host: As in `from_documents`.
            codebook: As in `from_documents`.
            recipe: As in `from_documents`.
            path: As in `from_documents`.
            host_options: As in `from_documents`.
            progress: As in `from_documents`.
            settings: As in `from_documents`.

        Raises:
            ValueError: There are more or fewer metadatas or ids than texts.
            S3Error: As in `from_documents`.
        """
        if metadatas is None:
            documents: Iterable[Document] = (Document(text) for text in texts)
        else:
            documents = (
                Document(text, metadata=dict(metadata))
                for text, metadata in zip(texts, metadatas, strict=True)
            )
        return cls.from_documents(
            documents,
            ids,
            host=host,
            codebook=codebook,
            recipe=recipe,
            path=path,
            host_options=host_options,
            progress=progress,
            **settings,
        )

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        ids: Iterable[str] | None = None,
        *,
        host: str | Host = "minilm",
        codebook: str | Path | Codebook | None = None,
        recipe: str | Recipe = "default",
        path: str | Path | None = None,
        host_options: Mapping[str, Any] | None = None,
        progress: bool = True,
        **settings: Unpack[Settings],
    ) -> Self:
        """Index documents; with an error, what is at `path` is as it was.

        Args:
            documents: Any number, also from an iterator. They need not be split.
            ids: As in `add_documents`.
            host: `minilm`, a local folder, a model id on the Hugging Face Hub, or a loaded host.
            codebook: The host's codebook, or where it is; left out, the one that belongs to it.
            recipe: `default`, `paper`, or your own.
            path: Folder of the index, empty or not there yet, to be opened with `load` later.
                Left out, the index vanishes with the retriever.
            host_options: For loading the host, such as `{"device": "cuda"}`.
            progress: Whether a bar shows rate and time left (only in a terminal).
            settings: Fields of the retriever: `k`, `mode`, `token_budget`, `where`, `order`,
                `unique`, `name`, `tags`, `metadata`.

        Raises:
            ValidationError: There is no such setting, or its value is not usable.
            S3Error: The host, the codebook, a document or the folder is not usable.
        """
        with new_index(
            path, host=host, codebook=codebook, recipe=recipe, **(host_options or {})
        ) as index:
            retriever = cls.from_index(index, **settings)
            retriever.add_documents(documents, ids=ids, progress=progress)
        return retriever

    @classmethod
    def from_index(cls, index: S3Index, **settings: Unpack[Settings]) -> Self:
        """Retrieve from an index that is there already.

        Args:
            index: The index.
            settings: As in `from_documents`.
        """
        return cls(index=index, **settings)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        host: str | Host | None = None,
        codebook: str | Path | Codebook | None = None,
        host_options: Mapping[str, Any] | None = None,
        **settings: Unpack[Settings],
    ) -> Self:
        """Open an index on disk. The index keeps documents and host, not the settings.

        Args:
            path: Folder of the index.
            host: The host, where it is to be found elsewhere than when the index was made.
            codebook: The codebook, likewise.
            host_options: For loading the host.
            settings: As in `from_documents`.

        Raises:
            S3Error: There is no usable index at `path`, or its host cannot be loaded.
        """
        index = s3_retriever.S3Index.open(path, host, codebook=codebook, **(host_options or {}))
        return cls.from_index(index, **settings)

    def add_documents(
        self,
        documents: Iterable[Document],
        *,
        ids: Iterable[str] | None = None,
        progress: bool = True,
    ) -> list[str]:
        """Add documents, all of them or, with an error, none.

        A document takes the place of the one with its id. Of equal documents without an id one
        is kept.

        Args:
            documents: Any number, also from an iterator.
            ids: Of each document; left out, the documents' own. A document without any gets one
                that is derived from its text and metadata.
            progress: Whether a bar shows rate and time left (only in a terminal).

        Returns:
            The id of each document.

        Raises:
            S3Error: A document is not usable, or the index cannot be written.
        """
        added: list[str] = []
        self.index.add(_once_each(to_index(documents, ids), added), replace=True, progress=progress)
        return added

    async def aadd_documents(
        self,
        documents: Iterable[Document],
        *,
        ids: Iterable[str] | None = None,
        progress: bool = True,
    ) -> list[str]:
        """As `add_documents`, in a thread."""
        return await run_in_executor(
            None, self.add_documents, documents, ids=ids, progress=progress
        )

    def delete(self, ids: str | Iterable[str]) -> int:
        """Delete documents; ids that are not there do no harm. Returns how many were there.

        Raises:
            S3Error: The index cannot be written.
        """
        return self.index.delete(ids, missing_ok=True)

    async def adelete(self, ids: str | Iterable[str]) -> int:
        """As `delete`, in a thread."""
        return await run_in_executor(None, self.delete, ids)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - LangChain's signature
        **options: Unpack[SearchOptions],
    ) -> list[Document]:
        return self._search(query, **options)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002 - LangChain's signature
        **options: Unpack[SearchOptions],
    ) -> list[Document]:
        return await run_in_executor(None, self._search, query, **options)

    def _search(self, query: str, **options: Unpack[SearchOptions]) -> list[Document]:
        settings: SearchOptions = {
            "k": self.k,
            "mode": self.mode,
            "token_budget": self.token_budget,
            "where": self.where,
            "order": self.order,
            "unique": self.unique,
            **options,
        }
        if isinstance(settings["where"], Mapping):
            # As the metadata was when it was added.
            settings["where"] = json_values(settings["where"])
        spans = self.index.search(query, **settings)
        return [to_evidence(span, span.metadata, span.document_id) for span in spans]

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**kwargs)
        params["ls_vector_store_provider"] = "S3Index"
        params["ls_embedding_model"] = self.index.encoder.host.name
        return params


def _once_each(
    documents: Iterable[s3_retriever.Document], ids: list[str]
) -> Iterator[s3_retriever.Document]:
    """Pass on each document once and note the ids of all; of an id's other content, complain."""
    seen: dict[str, str] = {}
    for document in documents:
        ids.append(document.id)
        content = s3_retriever.Document(document.text, metadata=document.metadata).id
        if seen.get(document.id) != content:
            # With a known id and other content it is for the index to refuse.
            seen[document.id] = content
            yield document
