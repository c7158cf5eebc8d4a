"""`S3Retriever`: retrieves evidence spans as nodes."""

from __future__ import annotations

import asyncio
import copy
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import s3_retriever
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.schema import BaseNode, IndexNode, NodeWithScore, QueryBundle
from llama_index.core.storage.docstore.types import BaseDocumentStore
from llama_index.core.vector_stores import MetadataFilters
from s3_retriever.processes import renew_after_fork
from s3_retriever.types import DEFAULT_CONTEXT, ContextForm, Mode, Order, check_path, check_type

from llama_index.retrievers.s3_attention.filters import where_of
from llama_index.retrievers.s3_attention.merging import Merge, merge_spans
from llama_index.retrievers.s3_attention.nodes import (
    check_nodes,
    to_document,
    to_node,
    to_whole_node,
)
from llama_index.retrievers.s3_attention.settings import Settings, load, save

if TYPE_CHECKING:
    from llama_index.core.indices.base import BaseIndex
    from s3_retriever import Codebook, Host, Recipe, S3Index
    from s3_retriever.engine.s3index import SearchOptions

P = ParamSpec("P")
T = TypeVar("T")

# The host runs one batch at a time, and busy threads take Python away from the event loop: more
# threads than these would not be faster.
_TURNS = threading.BoundedSemaphore(2)


def _renew() -> None:
    """In a forked child, forget the threads that only the parent has."""
    global _TURNS
    _TURNS = threading.BoundedSemaphore(2)


renew_after_fork(_renew)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread without blocking the event loop; few run at a time."""

    def in_turn() -> T:
        with _TURNS:
            return function(*args, **kwargs)

    return await asyncio.to_thread(in_turn)


class S3Retriever(BaseRetriever):
    """Finds the spans of nodes that answer a question.

    Make one with `S3Retriever.from_defaults`, open one with `S3Retriever.from_persist_dir`. The
    settings are attributes and may be changed at any time; `with_settings` makes a retriever with
    other settings for one query. Several threads may share a retriever.

    Args:
        index: The `s3_retriever.S3Index` to search.
        similarity_top_k: Maximum number of spans; 0 finds nothing. By default there is no limit.
        token_budget: Maximum tokens of all spans together, as the host counts them; 512 if
            `similarity_top_k` is not set either.
        min_relevance: Spans of a lower relevance, 0 to 1, are left out; by default, without
            `similarity_top_k`, what is not likely to be evidence.
        mode: `s3` (co-activation of features), `bm25`, or `hybrid`, which fuses both.
        filters: Metadata that nodes must have, applied before ranking.
        order: `score`, best first, or `document`, as in the nodes.
        unique: Whether a sentence that occurs in several places is returned once.
        merge: `node` or `document` makes one node of all spans of an indexed node or of a
            document, in document order and with its id; None leaves spans as they are.
        group_by: `node` returns whole nodes, ranked by all of their evidence; `similarity_top_k`
            is then the maximum number of nodes. `s3_evidence` in their metadata has their best
            spans.
        spans_per_node: Maximum number of spans of a node; no limit by default, or 3 with
            `group_by`.
        context: What a span takes along of the text around it: `sentence`, `passage`, `neighbours`
            or `section`, as in `S3Index.search`.
        rerank: How many of the best sentences a language model reads again, together with the
            question, and ranks by its attention; None for none.
        rerank_host: Name of that model; by default the index's own host.
        docstore: The docstore that `refresh` reads.
        callback_manager: As for every retriever of LlamaIndex.
        object_map: Objects that index nodes refer to, by `index_id`.
        objects: Index nodes with their objects.
        verbose: Whether a terminal shows a bar while indexing.

    Raises:
        ValueError: A setting has a wrong value.
    """

    def __init__(
        self,
        index: S3Index,
        *,
        similarity_top_k: int | None = None,
        token_budget: int | None = None,
        min_relevance: float | None = None,
        mode: Mode = "hybrid",
        filters: MetadataFilters | None = None,
        order: Order = "score",
        unique: bool = True,
        merge: Merge | None = None,
        group_by: Literal["node"] | None = None,
        spans_per_node: int | None = None,
        context: ContextForm = DEFAULT_CONTEXT,
        rerank: int | None = None,
        rerank_host: str | None = None,
        docstore: BaseDocumentStore | None = None,
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
    ) -> None:
        check_type(index, s3_retriever.S3Index, "index")
        self.index = index
        self.similarity_top_k = similarity_top_k
        self.token_budget = token_budget
        self.min_relevance = min_relevance
        self.mode: Mode = mode
        self.filters = filters
        self.order: Order = order
        self.unique = unique
        self.merge: Merge | None = merge
        self.group_by: Literal["node"] | None = group_by
        self.spans_per_node = spans_per_node
        self.context: ContextForm = context
        self.rerank = rerank
        self.rerank_host = rerank_host
        self._docstore = docstore
        self._hashes: dict[str, str] = {}
        self._settings()
        super().__init__(
            callback_manager=callback_manager,
            object_map=object_map,
            objects=objects,
            verbose=verbose,
        )

    @classmethod
    def from_defaults(
        cls,
        index: BaseIndex[Any] | S3Index | None = None,
        nodes: Sequence[BaseNode] | BaseNode | None = None,
        docstore: BaseDocumentStore | None = None,
        *,
        similarity_top_k: int | None = None,
        mode: Mode = "hybrid",
        token_budget: int | None = None,
        min_relevance: float | None = None,
        filters: MetadataFilters | None = None,
        order: Order = "score",
        unique: bool = True,
        merge: Merge | None = None,
        group_by: Literal["node"] | None = None,
        spans_per_node: int | None = None,
        context: ContextForm = DEFAULT_CONTEXT,
        rerank: int | None = None,
        rerank_host: str | None = None,
        host: str | Host = "minilm",
        codebook: str | Path | Codebook | None = None,
        recipe: str | Recipe = "default",
        path: str | Path | None = None,
        callback_manager: CallbackManager | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
    ) -> S3Retriever:
        """Make a retriever from exactly one of index, nodes and docstore.

        Args:
            index: A LlamaIndex index, whose docstore is read, or an `S3Index`, which is used as
                it is. (A `VectorStoreIndex` whose vector store keeps the texts has an empty
                docstore; pass its nodes instead.)
            nodes: Nodes to index, or a single one; may be empty, to add nodes later.
            docstore: A docstore whose nodes are indexed.
            similarity_top_k: As for the class.
            mode: As for the class.
            token_budget: As for the class.
            min_relevance: As for the class.
            filters: As for the class.
            order: As for the class.
            unique: As for the class.
            merge: As for the class.
            group_by: As for the class.
            spans_per_node: As for the class.
            context: As for the class.
            rerank: As for the class.
            rerank_host: As for the class.
            host: `minilm`, a local folder, a model id on the Hugging Face Hub, or a loaded host.
            codebook: The host's codebook, or its name; defaults to the one that belongs to it.
            recipe: `default`, `paper`, or your own.
            path: New or empty folder for the index; without it, the index lives in memory. After
                an error, `path` is as it was before.
            callback_manager: As for the class.
            objects: As for the class.
            verbose: As for the class.

        Raises:
            ValueError: Not exactly one source is given, a setting has a wrong value, or an
                `S3Index` is given together with a host, codebook, recipe or path.
            s3_retriever.S3Error: The nodes cannot be indexed.
        """
        if sum(source is not None for source in (index, nodes, docstore)) != 1:
            raise ValueError("Give exactly one of index, nodes and docstore.")
        options: dict[str, Any] = {
            "similarity_top_k": similarity_top_k,
            "token_budget": token_budget,
            "min_relevance": min_relevance,
            "mode": mode,
            "filters": filters,
            "order": order,
            "unique": unique,
            "merge": merge,
            "group_by": group_by,
            "spans_per_node": spans_per_node,
            "context": context,
            "rerank": rerank,
            "rerank_host": rerank_host,
            "callback_manager": callback_manager,
            "objects": objects,
            "verbose": verbose,
        }
        if isinstance(index, s3_retriever.S3Index):
            if (host, codebook, recipe, path) != ("minilm", None, "default", None):
                raise ValueError(
                    "An S3Index has its host, codebook, recipe and path; do not give them."
                )
            return cls(index, **options)
        if index is not None:
            docstore = _docstore_of(index)
        if docstore is not None:
            check_type(docstore, BaseDocumentStore, "docstore")
            nodes = list(docstore.docs.values())
            if not nodes:
                warnings.warn(
                    "The docstore is empty, so the retriever is too. A VectorStoreIndex whose "
                    "vector store keeps the texts has an empty docstore: pass nodes= instead.",
                    stacklevel=2,
                )
        with s3_retriever.new_index(path, host=host, codebook=codebook, recipe=recipe) as new:
            retriever = cls(new, docstore=docstore, **options)
            retriever.add_nodes(nodes or [])
        return retriever

    @classmethod
    def from_persist_dir(
        cls,
        path: str | Path,
        *,
        host: str | Host | None = None,
        codebook: str | Path | Codebook | None = None,
        docstore: BaseDocumentStore | None = None,
        callback_manager: CallbackManager | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
    ) -> S3Retriever:
        """Open a retriever with all the settings it was persisted with.

        The index is used in place: added and deleted nodes change it on disk at once.

        Args:
            path: The folder given to `persist`.
            host: The host, if it has moved since the index was made.
            codebook: The codebook, if it has moved since the index was made.
            docstore: The docstore that `refresh` reads; like the next three, not kept on disk.
            callback_manager: As for the class.
            objects: As for the class.
            verbose: As for the class.

        Raises:
            FileNotFoundError: `path` holds no retriever.
            ValueError: It is damaged or was written by a newer release.
            s3_retriever.S3Error: Its index, host or codebook cannot be loaded.
        """
        folder, settings = load(check_path(path))
        return cls(
            s3_retriever.S3Index.open(folder, host, codebook=codebook),
            **dict(settings),
            docstore=docstore,
            callback_manager=callback_manager,
            objects=objects,
            verbose=verbose,
        )

    def persist(self, path: str | Path) -> None:
        """Write a copy of the index, and the settings as JSON, to a folder.

        A retriever that the folder held before is replaced in one step. An index that was opened
        in this folder is not copied.

        Args:
            path: The folder.

        Raises:
            s3_retriever.IndexStoreError: The index is damaged, or the folder cannot be written.
        """
        save(check_path(path), self.index, self._settings())

    def with_settings(self, **changes: Any) -> S3Retriever:
        """Make a retriever on the same index with other settings.

        It is cheap and leaves this retriever unchanged, which lets concurrent queries differ:
        `retriever.with_settings(filters=...).retrieve(question)`.

        Args:
            changes: Any of similarity_top_k, token_budget, min_relevance, mode, filters, order,
                unique, merge, group_by, spans_per_node, context, rerank and rerank_host.

        Raises:
            ValueError: A setting is unknown or has a wrong value.
        """
        changed = copy.copy(self)
        vars(changed).update(Settings.model_validate(dict(self._settings()) | changes))
        return changed

    def add_nodes(
        self, nodes: Iterable[BaseNode] | BaseNode, *, replace: bool = False
    ) -> list[str]:
        """Index nodes, all of them or, after an error, none.

        Args:
            nodes: The nodes, or a single one.
            replace: Whether a node replaces the one with its id; otherwise a known id is an
                error.

        Returns:
            Their ids.

        Raises:
            s3_retriever.InputError: An id is taken, or metadata cannot be stored as JSON.
        """
        nodes = check_nodes(nodes)
        documents = [to_document(node) for node in nodes]
        ids = self.index.add(documents, replace=replace, progress=self._verbose)
        for node in nodes:
            self._hashes[node.node_id] = node.hash
            if isinstance(node, IndexNode) and node.obj is not None:
                self.object_map[node.index_id] = node.obj
        return ids

    def delete_nodes(self, node_ids: str | Iterable[str], *, missing_ok: bool = False) -> int:
        """Delete nodes, all of them or, after an error, none.

        Args:
            node_ids: Ids of nodes, or a single id.
            missing_ok: Whether unknown ids are ignored; otherwise they are an error.

        Returns:
            How many nodes were deleted.

        Raises:
            s3_retriever.InputError: There is no node with some id.
        """
        return self.index.delete(node_ids, missing_ok=missing_ok)

    def refresh(self) -> int:
        """Update from the docstore: add new nodes, replace changed ones, delete missing ones.

        Queries never read the docstore. A retriever opened from disk does not know which nodes
        changed and indexes all of them again.

        Returns:
            How many nodes were added, replaced or deleted.

        Raises:
            ValueError: The retriever was not made from a docstore or an index that has one.
        """
        if self._docstore is None:
            raise ValueError(
                "There is no docstore to follow; use add_nodes and delete_nodes, or pass the "
                "docstore to from_persist_dir."
            )
        nodes = self._docstore.docs
        indexed = set(self.index.ids())
        changed = [
            node
            for name, node in nodes.items()
            if name not in indexed or self._hashes.get(name) != node.hash
        ]
        self.add_nodes(changed, replace=True)
        return len(changed) + self.delete_nodes(indexed - nodes.keys(), missing_ok=True)

    def _settings(self) -> Settings:
        return Settings.model_validate(
            {name: getattr(self, name) for name in Settings.model_fields}
        )

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        settings = self._settings()
        if settings.similarity_top_k == 0:
            return []
        options: SearchOptions = {
            "mode": settings.mode,
            "token_budget": settings.token_budget,
            "min_relevance": settings.min_relevance,
            "where": where_of(settings.filters),
            "order": "document" if settings.merge else settings.order,
            "unique": settings.unique,
            "spans_per_document": settings.spans_per_node,
            "context": settings.context,
            "rerank": settings.rerank,
            "rerank_host": settings.rerank_host,
        }
        question, k = query_bundle.query_str, settings.similarity_top_k
        if settings.group_by is not None:
            results = self.index.search(question, k, group_by="document", **options)
            nodes = map(to_whole_node, results, self.index.get(results))
            return _once_per_object(nodes)
        spans = self.index.search(question, k, **options)
        if settings.merge is None:
            return _once_per_object(to_node(span) for span in spans)
        items = merge_spans(spans, settings.merge)
        if settings.order == "score":
            items.sort(key=lambda item: item.get_score(), reverse=True)
        return _once_per_object(items)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await in_thread(self._retrieve, query_bundle)


def _docstore_of(index: Any) -> BaseDocumentStore:
    docstore = getattr(index, "docstore", None)
    if not isinstance(docstore, BaseDocumentStore):
        raise s3_retriever.InputError(
            f"index must be an S3Index or an index of LlamaIndex, not {type(index).__name__}."
        )
    return docstore


def _once_per_object(items: Iterable[NodeWithScore]) -> list[NodeWithScore]:
    """Keep only the first span of each index node, whose object LlamaIndex then queries once."""
    seen: set[str] = set()
    kept = []
    for item in items:
        if isinstance(item.node, IndexNode):
            if item.node.index_id in seen:
                continue
            seen.add(item.node.index_id)
        kept.append(item)
    return kept
