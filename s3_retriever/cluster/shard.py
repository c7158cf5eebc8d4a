"""`Shard`: a part of a collection in a worker's process, which answers searches step by step."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from s3_retriever.cluster.lines import Line, Place, listen
from s3_retriever.document import Document
from s3_retriever.errors import IndexStoreError, S3Error, ServerError, brief
from s3_retriever.index import Snapshot, Store
from s3_retriever.index.manifest import SegmentEntry
from s3_retriever.search.part import PartSearch, Ranked
from s3_retriever.search.parts import Ask, Sizes


def packed(value: Any) -> bytes:
    """A value as processes of a cluster hand it on.

    Ray's own pickler, which can also send functions, takes several times as long.
    """
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


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


class Begin(NamedTuple):
    """A message: begin a search. The reply is the `State` that is searched, and the first step's.

    Attributes:
        request: What is searched for, a pickled `Request`.
        first: As in `PartSearch.advance`.
    """

    request: bytes
    first: int


class Step(NamedTuple):
    """A message: call a method of the search that was begun. The reply is its result.

    Attributes:
        method: A method of `PartSearch`.
        arguments: Its arguments.
    """

    method: str
    arguments: tuple[Any, ...]


class End(NamedTuple):
    """A message: forget the search. There is no reply."""


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
        self._place: Place | None = None

    def ready(self) -> Place | S3Error:
        """Open the index and load what a search needs; gives where the shard takes lines."""
        from s3_retriever.index import kernels as _  # noqa: F401
        from s3_retriever.search import kernels as __  # noqa: F401

        try:
            self.sizes()
            with self._opening:
                self._place = self._place or listen(self._serve)
        except S3Error as error:
            return error
        except OSError as error:
            return ServerError(f"A worker cannot listen for searches: {brief(error)}.")
        return self._place

    def pid(self) -> int:
        """The process that the shard is in."""
        return os.getpid()

    def _serve(self, line: Line) -> None:
        """Reply to the messages on a line, on which there is one search at a time.

        A reply may be an error, which is raised where the search is led.
        """
        search: PartSearch | None = None
        while True:
            message = pickle.loads(line.receive())  # noqa: S301
            reply: Any
            if isinstance(message, End):
                search = None
                continue
            try:
                if isinstance(message, Begin):
                    search = None
                    search, reply = self._begun(message)
                else:
                    reply = getattr(search, message.method)(*message.arguments)
            except (S3Error, MemoryError) as error:
                reply = error
            except Exception:
                reply = RuntimeError(f"A worker failed.\n{traceback.format_exc()}")
            line.send(packed(reply))

    def _begun(self, begin: Begin) -> tuple[PartSearch, tuple[State, Ask | Ranked]]:
        snapshot = self._snapshot
        state = State(self._store.manifest.uuid, snapshot.generation)
        search = PartSearch(snapshot, pickle.loads(begin.request))  # noqa: S301
        return search, (state, search.advance(None, begin.first))

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
