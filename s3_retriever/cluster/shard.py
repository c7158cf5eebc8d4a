"""`Shard`: a part of a collection in a worker's process, which answers searches step by step."""

from __future__ import annotations

import os
import pickle
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3_retriever.document import Document
from s3_retriever.errors import IndexStoreError, S3Error
from s3_retriever.index import Snapshot, Store
from s3_retriever.index.manifest import SegmentEntry
from s3_retriever.search.part import PartSearch, Ranked, Request
from s3_retriever.search.parts import Ask, Sizes

# Searches that a shard remembers; whoever leads more has forgotten to end some.
_MOST_SEARCHES = 64


def packed(value: Any) -> bytes:
    """A value as processes of a cluster hand it on.

    Ray's own pickler, which can also send functions, takes several times as long.
    """
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


class SearchGoneError(Exception):
    """A search that a shard does not know: the shard was restarted, or too many are running."""


@dataclass(frozen=True, slots=True)
class Share:
    """Which segments of an index a shard has: one run out of several with about as many tokens.

    Attributes:
        place: Number of the run, from 0.
        of: Number of runs.
    """

    place: int
    of: int

    def __call__(self, segments: Sequence[SegmentEntry]) -> list[SegmentEntry]:
        """The segments of this run; the same in every process."""
        total = sum(segment.tokens + 1 for segment in segments)
        chosen, before = [], 0
        for segment in segments:
            middle = 2 * before + segment.tokens + 1
            if middle * self.of // (2 * total) == self.place:
                chosen.append(segment)
            before += segment.tokens + 1
        return chosen


@dataclass(frozen=True, slots=True)
class State:
    """What a snapshot of a shard is of.

    Attributes:
        index: Identity of the index.
        generation: Number of its last commit.
    """

    index: str
    generation: int


class Shard:
    """A part of a collection. Its index is opened when it is first asked, and never a host.

    Args:
        path: Folder of the index.
        share: Which of its segments are this shard's.

    Raises:
        IndexStoreError: From the methods: the index is missing or damaged.
    """

    def __init__(self, path: str, share: Share) -> None:
        self._path = Path(path)
        self._share = share
        self._opened: Store | None = None
        self._opening = threading.Lock()
        self._searches: dict[str, PartSearch] = {}

    def ready(self) -> S3Error | None:
        """Open the index and load what a search needs; gives the error that there is."""
        from s3_retriever.index import kernels as _  # noqa: F401
        from s3_retriever.search import kernels as __  # noqa: F401

        try:
            self.sizes()
        except S3Error as error:
            return error
        return None

    def pid(self) -> int:
        """The process that the shard is in."""
        return os.getpid()

    def begin(self, name: str, request: bytes, first: int, ended: Sequence[str] = ()) -> bytes:
        """Begin a search.

        Args:
            name: What later calls call it.
            request: What is searched for, a pickled `Request`.
            first: As in `PartSearch.advance`.
            ended: Searches that are over, which need no call of their own then.

        Returns:
            Pickled, the `State` that is searched, and what `PartSearch.advance` returns; or the
            error that it raises, which Ray would log if another shard's is raised.
        """
        try:
            return packed(self._begun(name, pickle.loads(request), first, ended))  # noqa: S301
        except S3Error as error:
            return packed(error)

    def _begun(
        self, name: str, request: Request, first: int, ended: Sequence[str]
    ) -> tuple[State, Ask | Ranked]:
        for each in ended:
            self._searches.pop(each, None)
        snapshot = self._snapshot
        state = State(self._store.manifest.uuid, snapshot.generation)
        search = PartSearch(snapshot, request)
        reply = search.advance(None, first)
        while len(self._searches) >= _MOST_SEARCHES:
            self._searches.pop(next(iter(self._searches)), None)
        self._searches[name] = search
        return state, reply

    def step(self, name: str, method: str, arguments: bytes) -> bytes:
        """Call a method of a search that was begun.

        Args:
            name: The search.
            method: The method.
            arguments: Its arguments, pickled.

        Returns:
            Its result, pickled; or the error that it raises, `SearchGoneError` if there is no such
            search.
        """
        search = self._searches.get(name)
        if search is None:
            return packed(SearchGoneError(name))
        try:
            return packed(getattr(search, method)(*pickle.loads(arguments)))  # noqa: S301
        except S3Error as error:
            return packed(error)

    def sizes(self) -> Sizes:
        """How much the shard has."""
        return Sizes.of(self._snapshot)

    def ids(self) -> list[str]:
        """Ids of its documents, in the order they were added."""
        return self._snapshot.ids()

    def rows(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Ids and metadata of its documents, in the order they were added."""
        return list(self._snapshot.rows())

    def named(self, names: Sequence[str]) -> list[str | None]:
        """Ids of its documents that have these ids or spans with these ids; None where none has."""
        snapshot = self._snapshot
        return [snapshot.named(name) for name in names]

    def documents(self, names: Sequence[str]) -> list[Document | None]:
        """Its documents with these ids; None where there is none."""
        snapshot = self._snapshot
        return [snapshot.document(name) if name in snapshot else None for name in names]

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents of its index, other shards' too; returns how many there were."""
        return Store.open(self._path).delete(ids, missing_ok=True)

    @property
    def _snapshot(self) -> Snapshot:
        return self._store.snapshot()

    @property
    def _store(self) -> Store:
        with self._opening:
            if self._opened is None:
                if not self._path.exists():
                    raise IndexStoreError(
                        f"There is no index at {self._path} on {socket.gethostname()}, where a "
                        "worker runs; put it on storage that all machines share."
                    )
                self._opened = Store.open(self._path, self._share)
            return self._opened
