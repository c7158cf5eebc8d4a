"""`ShardedIndex`: an index whose documents are searched by many workers, with one result."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

import ray

from s3_retriever.cluster.session import start_ray
from s3_retriever.cluster.shard import Share
from s3_retriever.cluster.workers import LostError, Session, Worker, Workers, gathered, locate
from s3_retriever.document import Document, as_documents
from s3_retriever.engine.combining import check_alike
from s3_retriever.engine.reranking import second_look
from s3_retriever.engine.s3index import Found, S3Index, document_ids, opened
from s3_retriever.errors import IndexStoreError, InputError, ServerError, brief
from s3_retriever.index import DiskBackend, Store, unknown_ids
from s3_retriever.index.store import described
from s3_retriever.recipe import Recipe
from s3_retriever.remote import local_path
from s3_retriever.search import DocumentResult, Explanation, Firings, Heat, Limits, Span
from s3_retriever.search.gathering import explain_parts, heat_parts, search_parts
from s3_retriever.search.part import Request
from s3_retriever.search.parts import Sizes, add_up
from s3_retriever.search.pipeline import Query
from s3_retriever.types import (
    GroupBy,
    Mode,
    Where,
    check_count,
    check_flag,
    check_items,
    check_positive,
    check_string,
    check_text,
    check_type,
    shown,
)

if TYPE_CHECKING:
    from s3_retriever.codebook import Codebook
    from s3_retriever.host import Host
    from s3_retriever.search.reranking import SecondLook

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

# Seconds that workers have to start, if `timeout` is not longer.
_STARTING = 120.0
# Seconds before a search whose worker was lost is tried again, at first and at most.
_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
# Documents that are read, or whose ids are looked up, at once.
_PAGE = 256


class ShardedIndex(S3Index):
    """An index of which every worker of a Ray cluster has a part.

    Its methods, and what they return, are those of `S3Index`; `compact`, `save`, `verify` and
    `firings` are for the indexes that it is made of. Its documents are in the order of the shards
    and, within each, in the order they were added: the ids, their order and the scores of a search
    are those of one index with these documents in this order; only the last digits of a score may
    differ, by less than 1e-9.

    The folders must be readable under the same paths on every machine. This process loads the
    host, which reads questions and new documents; workers never do. Added documents go to the last
    folder, so they are last in order. A worker that dies is started again, and searches that it
    was part of are repeated. Several threads may search at once.

    Make one with `ShardedIndex.open`; it can be used as a context manager.

    Attributes:
        paths: Folders of the indexes that it is made of.
        timeout: Seconds that a search, or another request, may take.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        shards: int,
        replicas: int,
        timeout: float,
        worker_options: Mapping[str, Any],
        *opening: Any,
    ) -> None:
        """Use `open`.

        Args:
            stores: The indexes, of which nothing but the manifest is read here.
            shards: Shards of a single index.
            replicas: As in `open`.
            timeout: As in `open`.
            worker_options: As in `open`.
            opening: What `S3Index` takes besides the store.
        """
        super().__init__(stores[0], *opening)
        self._stores = stores
        self.paths = tuple(store.path for store in stores if store.path is not None)
        self.timeout = timeout
        parts = shards if len(stores) == 1 else 1
        self._shards = [
            Workers(path, Share(place, parts), replicas, worker_options)
            for path in self.paths
            for place in range(parts)
        ]

    @classmethod
    def open(
        cls,
        path: str | Path | Sequence[str | Path],
        host: str | Host | None = None,
        *,
        codebook: str | Path | Codebook | None = None,
        shards: int = 1,
        replicas: int = 1,
        timeout: float = 30.0,
        worker_options: Mapping[str, Any] | None = None,
        **host_options: Any,
    ) -> ShardedIndex:
        """Start workers on indexes that exist, and wait until they are ready.

        Args:
            path: Folder of one index, whose segments are shared out among `shards` workers, or
                folders of several, each of which becomes a shard. Several must have been made
                with the same host, codebook and recipe.
            host: As in `S3Index.open`.
            codebook: As in `S3Index.open`.
            shards: Shards of a single index; each has whole segments, so an index of few segments
                is shared out unevenly, which is logged.
            replicas: Workers of each shard; searches are shared out among them.
            timeout: Seconds that a search may take before it fails with the name of the shard
                that is missing.
            worker_options: Options of Ray's actors, such as `{"num_cpus": 1, "resources": ...}`.
            host_options: As in `S3Index.open`.

        Raises:
            IndexStoreError: There is no index at a path, also where a worker runs, or they do not
                go together, or one is damaged.
            ServerError: Ray cannot be started, or a worker cannot within two minutes.
        """
        paths = [local_path(each) for each in check_items(path, "paths", (str, Path))]
        shards = check_count(shards, "shards")
        replicas = check_count(replicas, "replicas")
        timeout = check_positive(timeout, "timeout")
        if not isinstance(worker_options, (Mapping, NoneType)):
            raise InputError(f"worker_options must be a mapping, not {shown(worker_options)}.")
        if not paths:
            raise InputError("A sharded index needs at least one folder; pass the paths of some.")
        if shards > 1 and len(paths) > 1:
            raise InputError(
                "Each of several folders is one shard; leave shards out, or pass a single folder."
            )
        stores = [Store(DiskBackend(each)) for each in paths]
        _check_together(stores)
        _warn_if_uneven(stores[0], shards)
        opening = opened(stores[0], host, codebook, host_options)
        start_ray()
        index = cls(stores, shards, replicas, timeout, worker_options or {}, *opening)
        try:
            index._await_workers()
        except BaseException:
            index.close()
            raise
        return index

    def _await_workers(self) -> None:
        workers = [worker for shard in self._shards for worker in shard.workers]
        deadline = time.monotonic() + max(self.timeout, _STARTING)

        def attempt(_: float) -> None:
            locate(workers, deadline)

        self._repeated(attempt, deadline)

    @classmethod
    def create(cls, *_arguments: Any, **_options: Any) -> NoReturn:
        """Refused: workers search indexes that exist.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "A sharded index is opened, not created: make indexes with S3Index.create or "
            "cluster.build, and pass their folders to ShardedIndex.open."
        )

    def __copy__(self) -> ShardedIndex:
        """The index itself: its workers are shared."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refused: the workers belong to this process.

        Raises:
            IndexStoreError: Always.
        """
        raise IndexStoreError(
            "A sharded index cannot be pickled; open it with ShardedIndex.open where it is needed."
        )

    def __len__(self) -> int:
        """Number of documents."""
        return sum(
            segment.documents - segment.deleted
            for store in self._stores
            for segment in store.manifest.segments
        )

    def close(self) -> None:
        """End the workers; may be repeated."""
        for store in self._stores:
            store.close()
        for shard in self._shards:
            shard.close()

    def ids(self) -> list[str]:
        """Ids of all documents: shard after shard, in the order they were added."""
        return [name for ids in self._all("ids") for name in ids]

    def rows(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Ids and metadata of all documents, in the order of `ids`."""
        return (row for place in range(len(self._shards)) for row in self._one(place, "rows"))

    def __contains__(self, document_id: object) -> bool:
        """Whether there is a document with this id."""
        return isinstance(document_id, str) and any(
            name == document_id for (name,) in self._all("named", [document_id])
        )

    def __iter__(self) -> Iterator[Document]:
        """Read all documents, a few at a time, in the order of `ids`.

        Documents that are deleted in the meantime are left out.
        """
        names = self.ids()
        for first in range(0, len(names), _PAGE):
            yield from (each for each in self._documents(names[first : first + _PAGE]) if each)

    @overload
    def get(self, ids: Found) -> Document: ...  # type: ignore[overload-overlap]

    @overload
    def get(self, ids: Iterable[Found]) -> list[Document]: ...

    def get(self, ids: Found | Iterable[Found]) -> Document | list[Document]:
        """Read documents, as `S3Index.get`."""
        names = document_ids(ids)
        known = self._named(names)
        documents = self._documents([known[name] for name in names])
        if None in documents:  # deleted since
            raise unknown_ids(
                [name for name, each in zip(names, documents, strict=True) if not each]
            )
        read = [each for each in documents if each is not None]
        return read[0] if isinstance(ids, (str, Span, DocumentResult)) else read

    def add(
        self,
        documents: Iterable[Document | str] | Document | str,
        *,
        replace: bool = False,
        progress: bool = True,
    ) -> list[str]:
        """Scan documents here and add them to the last folder, as `S3Index.add`.

        With `replace`, a document of another folder is deleted once the new one is there.
        """
        replace = check_flag(replace, "replace")
        self._check_open()
        elsewhere = range(len(self._shards) - 1) if len(self.paths) > 1 else range(0)
        new: Any = documents
        if elsewhere and not replace:
            new = self._untaken(as_documents(documents), elsewhere)
        with S3Index(Store.open(self.paths[-1]), self.encoder, self.recipe) as last:
            ids = last.add(new, replace=replace, progress=progress)
        if replace:
            for place in elsewhere:
                self._one(place, "delete", ids)
        return ids

    def delete(
        self,
        ids: str | Span | Document | Iterable[str | Span | Document],
        *,
        missing_ok: bool = False,
    ) -> int:
        """Delete documents, as `S3Index.delete`; a commit in each folder that has some."""
        missing_ok = check_flag(missing_ok, "missing_ok")
        wanted = document_ids(ids)
        known = list({*self._named(wanted, missing_ok=missing_ok).values()})
        for place in range(0, len(self._shards), len(self._shards) // len(self.paths)):
            self._one(place, "delete", known)
        return len(known)

    def explain(
        self,
        question: str,
        span: Span,
        *,
        recipe: str | Recipe | None = None,
        rerank: int | None = None,
        rerank_host: str | Host | None = None,
    ) -> Explanation:
        """Say why a span was found, as `S3Index.explain`."""
        check_type(span, Span, "span")
        check_text(question, "question")
        look = second_look(rerank, rerank_host, lambda: self.encoder)
        request = self._request(
            question, self._chosen(recipe, "hybrid"), "hybrid", Limits(), look=look
        )
        ranges = self.encoder.host.tokenizer.split(question)
        tokens = [question[start:end] for start, end in ranges]
        return self._searched(
            request,
            lambda parts: explain_parts(
                parts, len(self._shards), request, tokens, span, parts.waiting(look)
            ),
        )

    def heat(self, question: str, document_id: str, recipe: str | Recipe | None = None) -> Heat:
        """Score every token of a document, as `S3Index.heat`."""
        check_string(document_id, "document_id")
        check_text(question, "question")
        request = self._request(question, self._chosen(recipe, "hybrid"), "hybrid", Limits())
        heat = self._searched(
            request, lambda parts: heat_parts(parts, len(self._shards), document_id)
        )
        if heat is None:
            raise unknown_ids([document_id])
        return heat

    def stats(self) -> dict[str, Any]:
        """Sizes and settings, as JSON values; the host is not needed."""
        manifests = [store.manifest for store in self._stores]
        sizes: Sizes = add_up(self._all("sizes"))
        return {
            "path": None,
            "paths": [str(path) for path in self.paths],
            "shards": len(self._shards),
            "replicas": self._shards[0].replicas,
            **described(manifests, sizes.documents, sizes.sentences, sizes.tokens),
        }

    def pids(self) -> list[int]:
        """Process ids of the first worker of each shard, on the machine that it runs on."""
        first = [shard.workers[0] for shard in self._shards]
        return self._repeated(partial(_called, "pid", (), first))

    @property
    def path(self) -> None:
        """None: see `paths`."""
        return

    def compact(self, *, progress: bool = True) -> NoReturn:  # noqa: ARG002
        """Refused, as `save`, `verify` and `firings` are.

        Raises:
            InputError: Always.
        """
        raise _refused("compact")

    def save(self, path: str | Path) -> NoReturn:  # noqa: ARG002
        """Refused; see `compact`."""
        raise _refused("save")

    def verify(self, *, progress: bool = True) -> NoReturn:  # noqa: ARG002
        """Refused; see `compact`."""
        raise _refused("verify")

    def firings(self, tap: str, feature: int, limit: int = 20) -> Firings:  # noqa: ARG002
        """Refused; see `compact`."""
        raise _refused("firings")

    def snapshot(self) -> NoReturn:
        """Refused; see `compact`."""
        raise _refused("snapshot")

    def _found(
        self,
        question: str,
        recipe: Recipe,
        limits: Limits,
        mode: Mode,
        where: Where | None,
        group_by: GroupBy | None,
        look: SecondLook | None,
    ) -> list[Span] | list[DocumentResult]:
        request = self._request(question, recipe, mode, limits, where, group_by, look)
        return self._searched(
            request,
            lambda parts: search_parts(parts, len(self._shards), request, parts.waiting(look)),
        )

    def _request(
        self,
        question: str,
        recipe: Recipe,
        mode: Mode,
        limits: Limits,
        where: Where | None = None,
        group_by: GroupBy | None = None,
        look: SecondLook | None = None,
    ) -> Request:
        """What every worker gets of a search; the host reads the question now."""
        segments = [segment for store in self._stores for segment in store.manifest.segments]
        encoded = None
        if mode != "bm25":
            layout = self.encoder.layout(self.recipe)
            for segment in segments:
                segment.check_layout(layout)
            encoded = self.encoder.question(question, recipe)
        languages = frozenset(each for segment in segments for each in segment.languages)
        query = Query(question, encoded, recipe, mode, languages)
        candidates = None if look is None else look.candidates
        return Request(query, limits, where, group_by, candidates)

    def _searched(self, request: Request, lead: Callable[[Session], _T]) -> _T:
        """Lead a search, again if a worker was lost or its index changed under way.

        Raises:
            InputError: `where` is a function that cannot be sent.
        """
        try:
            wanted: bytes = ray.cloudpickle.dumps(request)  # type: ignore[no-untyped-call]
        except (TypeError, ValueError, pickle.PicklingError) as error:
            raise InputError(
                f"The function given as where cannot be sent to workers ({brief(error)}); write "
                "where as a mapping."
            ) from error

        def search(workers: Sequence[Worker], deadline: float) -> _T:
            with Session(workers, wanted, deadline) as session:
                return lead(session)

        return self._asked(self._shards, search)

    def _asked(self, shards: Sequence[Workers], ask: Callable[[Sequence[Worker], float], _T]) -> _T:
        """Ask a worker of each of some shards, given when it must have answered.

        Where another replica could be asked, that is half of the time that is left.
        """

        def attempt(deadline: float) -> _T:
            workers = [shard.lend() for shard in shards]
            pairs = list(zip(shards, workers, strict=True))
            try:
                if any(shard.can_replace(worker) for shard, worker in pairs):
                    deadline = (time.monotonic() + deadline) / 2
                return ask(workers, deadline)
            finally:
                for shard, worker in pairs:
                    shard.give_back(worker)

        return self._repeated(attempt)

    def _check_open(self) -> None:
        """Refuse a closed index.

        Raises:
            IndexStoreError: It is closed, gone or damaged.
        """
        _ = self._stores[0].manifest

    def _repeated(self, attempt: Callable[[float], _T], deadline: float | None = None) -> _T:
        self._check_open()
        began = time.monotonic()
        deadline = began + self.timeout if deadline is None else deadline
        pause = _PAUSE
        while True:
            try:
                return attempt(deadline)
            except LostError as lost:
                if time.monotonic() + pause >= deadline:
                    raise ServerError(
                        f"{lost.worker.name} did not answer within {deadline - began:.3g} seconds "
                        f"({lost.reason}); check the machine that it runs on, or pass a longer "
                        "timeout."
                    ) from lost
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        """What a method of all shards returns."""
        return self._asked(self._shards, partial(_called, method, arguments))

    def _one(self, place: int, method: str, *arguments: Any) -> Any:
        """What a method of one shard returns."""
        (value,) = self._asked([self._shards[place]], partial(_called, method, arguments))
        return value

    def _named(self, names: Sequence[str], *, missing_ok: bool = False) -> dict[str, str]:
        """The ids of documents that have these ids, or spans with these ids.

        Raises:
            InputError: There is no such document.
        """
        known: dict[str, str] = {}
        for found in self._all("named", list(names)):
            for name, document in zip(names, found, strict=True):
                # What is an id in one shard may be the id of a span in another.
                if document is not None and known.get(name) != name:
                    known[name] = document
        unknown = {*names} - known.keys()
        if unknown and not missing_ok:
            raise unknown_ids(unknown)
        return known

    def _documents(self, ids: Sequence[str]) -> list[Document | None]:
        columns = self._all("documents", list(ids))
        return [
            next((each for each in row if each is not None), None)
            for row in zip(*columns, strict=True)
        ]

    def _untaken(self, documents: Iterable[Document], places: Sequence[int]) -> Iterator[Document]:
        """The documents; refuses one whose id a shard at one of these places has."""
        for document in documents:
            if any(self._one(place, "named", [document.id]) == [document.id] for place in places):
                raise InputError(
                    f"Document {document.id!r} was already added; give it another id, or replace "
                    "it."
                )
            yield document


def _called(
    method: str, arguments: Sequence[Any], workers: Sequence[Worker], deadline: float
) -> list[Any]:
    """What a method of shards returns that is called through Ray."""
    return gathered(workers, [worker.send(method, *arguments) for worker in workers], deadline)


def _check_together(stores: Sequence[Store]) -> None:
    """Refuse indexes that were not made alike.

    Raises:
        IndexStoreError: They differ in host, codebook, recipe or text analysis, or are the same.
    """
    seen: set[str] = set()
    for store in stores:
        uuid = store.manifest.uuid
        if uuid in seen:
            raise IndexStoreError(
                f"The index at {store.path} is given twice, or is a copy of another; give each "
                "folder once."
            )
        seen.add(uuid)
    check_alike(stores)


def _warn_if_uneven(store: Store, shards: int) -> None:
    """Log what to do if one of the shards of an index has more than twice its share."""
    segments = store.manifest.segments
    most = max(
        sum(segment.tokens for segment in Share(place, shards)(segments)) for place in range(shards)
    )
    tokens = sum(segment.tokens for segment in segments)
    if most * shards > 2 * tokens:
        logger.warning(
            "One of the %d shards has %.0f %% of the tokens: the index has few segments, which are "
            "not divided. `s3r split` makes indexes of equal size; pass their folders.",
            shards,
            100 * most / tokens,
        )


def _refused(method: str) -> InputError:
    return InputError(
        f"A sharded index has no {method}(); open one of its folders with S3Index.open for that."
    )
