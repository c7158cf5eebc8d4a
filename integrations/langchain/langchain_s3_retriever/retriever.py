"""`S3Retriever`: an S3 index as a LangChain retriever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field, field_validator, model_validator

import s3_retriever
from langchain_s3_retriever.documents import (
    add_documents,
    texts_to_documents,
    to_evidence,
    to_parent,
)
from langchain_s3_retriever.settings import Count, Share, is_blank
from s3_retriever.types import (
    DEFAULT_CONTEXT,
    ContextForm,
    GroupBy,
    Mode,
    Order,
    Where,
    refuse_arguments,
)

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )
    from typing_extensions import Self, Unpack

    from s3_retriever import Codebook, DocumentResult, Host, Recipe, S3Index, Span
else:
    # Importing the classes takes long; the validator below does so once there is an index.
    Host = S3Index = Any


class SearchOptions(TypedDict, total=False):
    """Options of one search; each defaults to the retriever's own setting.

    Attributes:
        k: Maximum number of spans; None for no limit.
        mode: `s3` (co-activation of features), `bm25`, or `hybrid`, which fuses both.
        token_budget: Maximum tokens of all spans together, as the host counts them; 512 if `k` is
            None as well.
        min_relevance: Spans of a lower relevance, 0 to 1, are left out; None leaves out what is
            not likely to be evidence, unless `k` is set.
        where: Metadata that documents must have, such as `{"year": 2024}`, or a function of a
            document's metadata. Applied before ranking.
        order: `score`, best first, or `document`, as in the documents.
        unique: Whether a sentence that occurs in several places is returned once.
        group_by: `document` returns whole documents, ranked by all of their evidence.
        spans_per_document: Maximum number of spans of a document; None for no limit, or 3 with
            `group_by`.
        context: What a span takes along of the text around it: `sentence`, `passage`, `neighbours`
            or `section`, as in `S3Index.search`.
        rerank: How many of the best sentences a language model reads again, together with the
            question; None for none.
        rerank_host: That model; by default the index's own host.
    """

    k: int | None
    mode: Mode
    token_budget: int | None
    min_relevance: float | None
    where: Where | None
    order: Order
    unique: bool
    group_by: GroupBy | None
    spans_per_document: int | None
    context: ContextForm
    rerank: int | None
    rerank_host: str | Host | None


class Settings(SearchOptions, total=False):
    """Settings of a new retriever.

    Attributes:
        name: Name of the retriever in traces.
        tags: Tags of every call in traces.
        metadata: Metadata of every call in traces.
    """

    name: str | None
    tags: list[str] | None
    metadata: dict[str, Any] | None


class S3Retriever(BaseRetriever):
    """Retrieves evidence spans with a transformer as its own index.

    Make one with `from_texts`, `from_documents`, `from_index` or `load`. If both `k` and
    `token_budget` are set, both limits apply. A call may override any setting:
    `retriever.invoke(question, k=2, where={"year": 2024})`.

    Each returned document is a span: `page_content` is its text, and `id` is the same whenever the
    same place of the same document is found. Its metadata is a copy of its document's, plus:

    - `s3_document_id`: id of the document that was added,
    - `s3_start`, `s3_end`: offsets in the text of the document; in the text that was split, if the
      document is a chunk whose splitter wrote `start_index`,
    - `s3_relevance`: from 0 to 1, comparable between questions,
    - `s3_sources`: what found it: any of `s3`, `sentence`, `bm25`, `edge` and `hop`,
    - `relevance_score` and `start_index`, LangChain's words for relevance and start. A
      `relevance_score` of the document's own stays, and so does a `start_index` that is not a
      number.

    With `group_by="document"` it returns whole documents, as LangChain's `ParentDocumentRetriever`
    does: `page_content` is a document's text and `id` its id. They are ranked by all of their
    evidence, and `s3_evidence` in the metadata has their best spans, a line each.

    A blank question finds nothing.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    index: S3Index = Field(repr=False)
    """The index to search; several retrievers may share it."""
    k: Count = None
    """Maximum number of spans; None for no limit."""
    mode: Mode = "hybrid"
    """`s3` (co-activation of features), `bm25`, or `hybrid`, which fuses both."""
    token_budget: Count = None
    """Maximum tokens of all spans together, as the host counts them; 512 if `k` is None too."""
    min_relevance: Share = None
    """Spans of a lower relevance are left out; by default, without `k`, what is not likely to be
    evidence."""
    where: Where | None = None
    """Metadata that documents must have, or a function of a document's metadata."""
    order: Order = "score"
    """`score`, best first, or `document`, as in the documents."""
    unique: bool = True
    """Whether a sentence that occurs in several places is returned once."""
    group_by: GroupBy | None = None
    """`document` returns whole documents, ranked by all of their evidence."""
    spans_per_document: Count = None
    """Maximum number of spans of a document; None for no limit, or 3 with `group_by`."""
    context: ContextForm = DEFAULT_CONTEXT
    """What a span takes along of the text around it, as in `S3Index.search`."""
    rerank: Count = None
    """How many of the best sentences a language model reads again, together with the question, and
    ranks by its attention; None for none."""
    rerank_host: str | Host | None = None
    """That model: `smollm2`, a local folder, a model id on the Hugging Face Hub, or a loaded host;
    by default the index's own."""

    @model_validator(mode="before")
    @classmethod
    def _filter_is_where(cls, settings: Any) -> Any:
        if isinstance(settings, Mapping) and "filter" in settings:
            refuse_arguments(cls.__name__, {"filter": settings["filter"]})
        return settings

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
        texts: Iterable[str] | str,
        metadatas: Iterable[Mapping[str, Any] | None] | Mapping[str, Any] | None = None,
        ids: Iterable[str | None] | str | None = None,
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
            texts: Texts of any length, or a single one; there is no need to split them.
            metadatas: Metadata of each text.
            ids: Id of each text.
            host: As in `from_documents`.
            codebook: As in `from_documents`.
            recipe: As in `from_documents`.
            path: As in `from_documents`.
            host_options: As in `from_documents`.
            progress: As in `from_documents`.
            settings: As in `from_documents`.

        Raises:
            InputError: There are more or fewer metadatas or ids than texts.
            S3Error: As in `from_documents`.
        """
        return cls.from_documents(
            texts_to_documents(texts, metadatas),
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
        documents: Iterable[Document] | Document,
        ids: Iterable[str | None] | str | None = None,
        *,
        host: str | Host = "minilm",
        codebook: str | Path | Codebook | None = None,
        recipe: str | Recipe = "default",
        path: str | Path | None = None,
        host_options: Mapping[str, Any] | None = None,
        progress: bool = True,
        **settings: Unpack[Settings],
    ) -> Self:
        """Index documents; after an error, `path` is as it was before.

        Args:
            documents: Documents of any length and number, also from an iterator; there is no need
                to split them.
            ids: As in `add_documents`.
            host: `minilm`, a local folder, a model id on the Hugging Face Hub, or a loaded host.
            codebook: The host's codebook, or its name; defaults to the one that belongs to it.
            recipe: `default`, `paper`, or your own.
            path: New or empty folder for the index, which `load` opens later. Without it, the
                index lives in memory.
            host_options: Options for loading the host, such as `{"device": "cuda"}`.
            progress: Whether a terminal shows a bar with rate and time left.
            settings: Fields of the retriever: `k`, `mode`, `token_budget`, `min_relevance`,
                `where`, `order`, `unique`, `group_by`, `spans_per_document`, `context`, `rerank`,
                `rerank_host`, `name`, `tags`, `metadata`.

        Raises:
            ValidationError: A setting is unknown or has a wrong value.
            S3Error: The host, the codebook, a document or the folder cannot be used.
        """
        with s3_retriever.new_index(
            path, host=host, codebook=codebook, recipe=recipe, **(host_options or {})
        ) as index:
            retriever = cls.from_index(index, **settings)
            retriever.add_documents(documents, ids=ids, progress=progress)
        return retriever

    @classmethod
    def from_index(cls, index: S3Index, **settings: Unpack[Settings]) -> Self:
        """Retrieve from an existing index.

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
        """Open an index on disk, which keeps documents and host but not the settings.

        Args:
            path: Folder of the index.
            host: The host, if it has moved since the index was made.
            codebook: The codebook, if it has moved since the index was made.
            host_options: Options for loading the host.
            settings: As in `from_documents`.

        Raises:
            S3Error: There is no usable index at `path`, or there is no codebook for its host.
        """
        index = s3_retriever.S3Index.open(path, host, codebook=codebook, **(host_options or {}))
        return cls.from_index(index, **settings)

    def add_documents(
        self,
        documents: Iterable[Document] | Document,
        *,
        ids: Iterable[str | None] | str | None = None,
        progress: bool = True,
    ) -> list[str]:
        """Add documents, all of them or, after an error, none.

        A document replaces the one with its id. Equal documents without ids are added once.

        Args:
            documents: Any number of documents, also from an iterator.
            ids: Id of each document; defaults to the document's own, or to a hash of its text and
                metadata.
            progress: Whether a terminal shows a bar with rate and time left.

        Returns:
            The id of each document.

        Raises:
            S3Error: A document cannot be used, or the index cannot be written.
        """
        return add_documents(self.index, documents, ids, progress=progress)

    async def aadd_documents(
        self,
        documents: Iterable[Document] | Document,
        *,
        ids: Iterable[str | None] | str | None = None,
        progress: bool = True,
    ) -> list[str]:
        """Run `add_documents` in a thread."""
        return await run_in_executor(
            None, self.add_documents, documents, ids=ids, progress=progress
        )

    def delete(self, ids: str | Iterable[str]) -> int:
        """Delete documents.

        Args:
            ids: Ids of documents; unknown ones are ignored.

        Returns:
            How many documents were deleted.

        Raises:
            S3Error: The index cannot be written.
        """
        return self.index.delete(ids, missing_ok=True)

    async def adelete(self, ids: str | Iterable[str]) -> int:
        """Run `delete` in a thread."""
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
        unknown = options.keys() - SearchOptions.__annotations__.keys()
        refuse_arguments(type(self).__name__, dict.fromkeys(unknown))
        settings: dict[str, Any] = {
            "k": self.k,
            "mode": self.mode,
            "token_budget": self.token_budget,
            "min_relevance": self.min_relevance,
            "where": self.where,
            "order": self.order,
            "unique": self.unique,
            "group_by": self.group_by,
            "spans_per_document": self.spans_per_document,
            "context": self.context,
            "rerank": self.rerank,
            "rerank_host": self.rerank_host,
            **options,
        }
        if is_blank(query):
            return []
        if settings["group_by"] is not None:
            results: list[DocumentResult] = self.index.search(query, **settings)
            return [
                to_parent(result, document)
                for result, document in zip(results, self.index.get(results), strict=True)
            ]
        spans: list[Span] = self.index.search(query, **settings)
        return [to_evidence(span, span.metadata, span.document_id) for span in spans]

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**kwargs)
        params["ls_vector_store_provider"] = "S3Index"
        params["ls_embedding_model"] = self.index.stats()["host"]
        return params
