"""`S3Retriever`: evidence spans as nodes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import s3_retriever
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.schema import BaseNode, IndexNode, NodeWithScore, QueryBundle
from llama_index.core.storage.docstore.types import BaseDocumentStore
from llama_index.core.vector_stores import MetadataFilters

from llama_index.retrievers.s3_attention import persistence
from llama_index.retrievers.s3_attention.creation import new_index
from llama_index.retrievers.s3_attention.filters import predicate
from llama_index.retrievers.s3_attention.nodes import to_document, to_node
from llama_index.retrievers.s3_attention.settings import Mode, Order, Settings
from llama_index.retrievers.s3_attention.threads import in_thread

if TYPE_CHECKING:
    from llama_index.core.indices.base import BaseIndex
    from s3_retriever import Codebook, Host, Recipe, S3Index


class S3Retriever(BaseRetriever):
    """Finds the spans of nodes that answer a question.

    Make one with `S3Retriever.from_defaults`, open one with `S3Retriever.from_persist_dir`. The
    settings are attributes and may be set at any time; `with_settings` makes a retriever with
    other ones for one query. May be used from several threads at once.

    Args:
        index: An index of S3.
        similarity_top_k: Spans at most; 0 finds nothing. Where neither it nor `token_budget` is
            given, 5.
        token_budget: Tokens of the host at most, all spans together.
        mode: `s3` (co-activation of features), `bm25`, or `hybrid`, both fused.
        filters: Metadata that nodes must have, applied before ranking.
        order: `score`, best first, or `document`, as in the nodes.
        unique: Whether a sentence that stands in several places comes once.
        docstore: Where `refresh` reads.
        callback_manager: As in every retriever of LlamaIndex.
        object_map: By `index_id`, what index nodes stand for.
        objects: Index nodes, for the same.
        verbose: Whether a bar shows the progress of indexing (only in a terminal).

    Raises:
        ValueError: A setting is not usable.
    """

    def __init__(
        self,
        index: S3Index,
        *,
        similarity_top_k: int | None = None,
        token_budget: int | None = None,
        mode: Mode = "hybrid",
        filters: MetadataFilters | None = None,
        order: Order = "score",
        unique: bool = True,
        docstore: BaseDocumentStore | None = None,
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
    ) -> None:
        self.index = index
        self.similarity_top_k = similarity_top_k
        self.token_budget = token_budget
        self.mode: Mode = mode
        self.filters = filters
        self.order: Order = order
        self.unique = unique
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
        nodes: Sequence[BaseNode] | None = None,
        docstore: BaseDocumentStore | None = None,
        *,
        similarity_top_k: int | None = None,
        mode: Mode = "hybrid",
        token_budget: int | None = None,
        filters: MetadataFilters | None = None,
        order: Order = "score",
        unique: bool = True,
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
            index: An index of LlamaIndex, whose docstore is read, or one of S3, which is used as
                it is. (A `VectorStoreIndex` on a vector store that keeps the texts itself has an
                empty docstore; give its nodes.)
            nodes: Nodes to index; may be none, to be added later.
            docstore: A docstore whose nodes are indexed.
            similarity_top_k: As for the class; likewise mode, token_budget, filters, order,
                unique, callback_manager, objects and verbose.
            mode: See there.
            token_budget: See there.
            filters: See there.
            order: See there.
            unique: See there.
            host: `minilm`, a local folder, a model id on the Hugging Face Hub, or a loaded host;
                with codebook, recipe and path as in `S3Index.create`.
            codebook: The host's codebook, or where it is.
            recipe: `default`, `paper`, or your own.
            path: Folder for the index. Left out, it is temporary. With an error, what is there
                is as it was.
            callback_manager: See there.
            objects: See there.
            verbose: See there.

        Raises:
            ValueError: Not exactly one source is given, a setting is not usable, or an index of
                S3 is given together with what only a new one can be made with.
            s3_retriever.S3Error: The nodes cannot be indexed.
        """
        if sum(source is not None for source in (index, nodes, docstore)) != 1:
            raise ValueError("Give exactly one of index, nodes and docstore.")
        options: dict[str, Any] = {
            "similarity_top_k": similarity_top_k,
            "token_budget": token_budget,
            "mode": mode,
            "filters": filters,
            "order": order,
            "unique": unique,
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
        docstore = docstore if index is None else index.docstore
        if docstore is not None:
            nodes = list(docstore.docs.values())
        with new_index(path, host=host, codebook=codebook, recipe=recipe) as made:
            retriever = cls(made, docstore=docstore, **options)
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
        """Open a retriever with all settings it was persisted with.

        The index is used where it lies: nodes that are added or deleted are so on disk, at once.

        Args:
            path: The folder.
            host: The host, where it is to be found elsewhere than when the index was made.
            codebook: The codebook, likewise.
            docstore: Where `refresh` reads; like the next three it is not kept on disk.
            callback_manager: As for the class.
            objects: As for the class.
            verbose: As for the class.

        Raises:
            FileNotFoundError: There is no retriever at `path`.
            ValueError: It is damaged or was written by a newer release.
            s3_retriever.S3Error: Its index, host or codebook cannot be loaded.
        """
        folder, settings = persistence.load(Path(path))
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

        A retriever that was there before is replaced in one step.
        """
        persistence.save(Path(path), self.index, self._settings())

    def with_settings(self, **changes: Any) -> S3Retriever:
        """Make a retriever on the same index with other settings, for one query or for good.

        It costs next to nothing and leaves this one as it is, so that queries at the same time
        may differ: `retriever.with_settings(filters=...).retrieve(question)`.

        Args:
            changes: Any of similarity_top_k, token_budget, mode, filters, order and unique.

        Raises:
            ValueError: A setting is unknown or not usable.
        """
        changed = copy.copy(self)
        vars(changed).update(Settings.model_validate(dict(self._settings()) | changes))
        return changed

    def add_nodes(self, nodes: Iterable[BaseNode], *, replace: bool = False) -> list[str]:
        """Index nodes, all of them or, with an error, none.

        Args:
            nodes: The nodes.
            replace: Whether a node takes the place of the one with its id; else a known id is an
                error.

        Returns:
            Their ids.

        Raises:
            s3_retriever.InputError: An id is taken, or metadata is nothing that JSON can hold.
        """
        nodes = list(nodes)
        documents = [to_document(node) for node in nodes]
        ids = self.index.add(documents, replace=replace, progress=self._verbose)
        for node in nodes:
            self._hashes[node.node_id] = node.hash
            if isinstance(node, IndexNode) and node.obj is not None:
                self.object_map[node.index_id] = node.obj
        return ids

    def delete_nodes(self, node_ids: str | Iterable[str], *, missing_ok: bool = False) -> int:
        """Delete nodes by their ids, all of them or, with an error, none.

        Args:
            node_ids: Ids of nodes, or one.
            missing_ok: Whether ids that no node has are passed over; else they are an error.

        Returns:
            How many nodes were deleted.

        Raises:
            s3_retriever.InputError: There is no node of some id.
        """
        return self.index.delete(node_ids, missing_ok=missing_ok)

    def refresh(self) -> int:
        """Follow the docstore: add new nodes, replace changed ones, delete those that are gone.

        The docstore is read when a retriever is made and here, never during a query. A retriever
        that was opened from disk cannot tell which nodes changed and indexes all of them anew.

        Returns:
            How many nodes were added, replaced or deleted.

        Raises:
            ValueError: The retriever was not made from a docstore or an index that has one.
        """
        if self._docstore is None:
            raise ValueError(
                "There is no docstore to follow; use add_nodes and delete_nodes, or give "
                "from_persist_dir the docstore."
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
        spans = self.index.search(
            query_bundle.query_str,
            settings.similarity_top_k,
            mode=settings.mode,
            token_budget=settings.token_budget,
            where=predicate(settings.filters),
            order=settings.order,
            unique=settings.unique,
        )
        return _once_per_object(to_node(span) for span in spans)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await in_thread(self._retrieve, query_bundle)


def _once_per_object(found: Iterable[NodeWithScore]) -> list[NodeWithScore]:
    """Only the first span of an index node, so that LlamaIndex asks what it stands for once."""
    seen: set[str] = set()
    kept = []
    for item in found:
        if isinstance(item.node, IndexNode):
            if item.node.index_id in seen:
                continue
            seen.add(item.node.index_id)
        kept.append(item)
    return kept
