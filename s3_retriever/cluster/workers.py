"""Workers: the processes that shards are in, as the process sees them that leads searches."""

from __future__ import annotations

import math
import pickle
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    RayActorError,
    RayError,
    RayTaskError,
)

from s3_retriever.cluster.lines import Line, Place, connect
from s3_retriever.cluster.shard import Begin, End, Shard, Share, State, Step, packed
from s3_retriever.errors import InputError, S3Error, ServerError, brief
from s3_retriever.types import Scores

if TYPE_CHECKING:
    from s3_retriever.search.reranking import Passage, PassageReader, SecondLook

# Calls through Ray that a worker answers at once.
_AT_ONCE = 16
# Seconds that a reply has at least.
_LEAST = 0.001
# Seconds for which other replicas are asked after a worker was lost.
_AVOIDED = 10.0


class LostError(Exception):
    """A worker that died or does not answer, or whose index is not that of other workers."""

    def __init__(self, worker: Worker, reason: str) -> None:
        super().__init__(reason)
        self.worker = worker
        self.reason = reason
        worker.lose()


class Worker:
    """An actor with a shard.

    Attributes:
        name: How messages call it.
        running: How many searches it is part of.
        lost_at: When it was last lost, in seconds of the monotonic clock.
        place: Where it takes lines; None if that has to be asked.
    """

    def __init__(self, path: Path, share: Share, options: Mapping[str, Any]) -> None:
        part = f", part {share.place + 1} of {share.of}" if share.of > 1 else ""
        self.name = f"The shard {path}{part}"
        self.running = 0
        self.lost_at = -math.inf
        self.place: Place | None = None
        self._idle: list[Line] = []
        self._lock = threading.Lock()
        self._make = (path, share, options)
        self._actor = self._started()

    def _started(self) -> Any:
        path, share, options = self._make
        wanted = {"max_restarts": -1, "max_concurrency": _AT_ONCE, **options}
        try:
            return ray.remote(Shard).options(**wanted).remote(str(path), share)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"worker_options cannot be used ({brief(error)}); they are the options of Ray's "
                "actors."
            ) from error

    @property
    def avoided(self) -> bool:
        """Whether it was lost so recently that others are asked first."""
        return self.lost_at > time.monotonic() - _AVOIDED

    def send(self, method: str, *arguments: Any) -> Any:
        """Call a method of the shard through Ray; returns a reference to the result."""
        return getattr(self._actor, method).remote(*arguments)

    def line(self, deadline: float) -> Line:
        """A line that nobody uses.

        Raises:
            LostError: The worker cannot be reached.
        """
        with self._lock:
            if self._idle:
                return self._idle.pop()
            place = self.place
        try:
            if place is None:
                raise ConnectionError  # lost since it was asked
            return connect(place, max(deadline - time.monotonic(), _LEAST))
        except OSError as error:
            raise LostError(self, "it cannot be reached") from error

    def keep(self, line: Line) -> None:
        """Take back a line on which nothing is under way."""
        with self._lock:
            self._idle.append(line)

    def lose(self) -> None:
        """Avoid it for a while, and ask where it is before it is used again."""
        self.lost_at = time.monotonic()
        with self._lock:
            self.place = None
            idle, self._idle = self._idle, []
        for line in idle:
            line.close()

    def revive(self) -> None:
        """Start the actor again, which Ray does not."""
        self._actor = self._started()

    def close(self) -> None:
        """End the process."""
        self.lose()
        ray.kill(self._actor)


class Workers:
    """The workers of a shard, each with all of it."""

    def __init__(self, path: Path, share: Share, replicas: int, options: Mapping[str, Any]) -> None:
        self.workers = [Worker(path, share, options) for _ in range(replicas)]
        self._lock = threading.Lock()
        self._turn = 0

    @property
    def replicas(self) -> int:
        """How many workers there are."""
        return len(self.workers)

    def lend(self) -> Worker:
        """The worker with the fewest searches, in turn among equals; at last one just lost."""
        with self._lock:
            self._turn += 1
            n = len(self.workers)
            order = [self.workers[(self._turn + i) % n] for i in range(n)]
            worker = min(order, key=lambda each: (each.avoided, each.running))
            worker.running += 1
            return worker

    def can_replace(self, worker: Worker) -> bool:
        """Whether another worker could be asked if this one does not answer."""
        return any(each is not worker and not each.avoided for each in self.workers)

    def give_back(self, worker: Worker) -> None:
        """Note that a search of a worker is over."""
        with self._lock:
            worker.running -= 1

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()


class Session:
    """One search on all shards; `search.gathering.Parts`. To be used as a context manager.

    Args:
        workers: A worker of each shard.
        request: What is searched for, a pickled `Request`.
        deadline: When it must have ended, in seconds of the monotonic clock.

    Raises:
        LostError: A worker cannot be reached, or, from `call`, does not answer before the deadline.
    """

    def __init__(self, workers: Sequence[Worker], request: bytes, deadline: float) -> None:
        self._workers = workers
        self._request = request
        self._deadline = deadline
        self._lines: list[Line] = []
        self._begun = False

    def __enter__(self) -> Session:
        try:
            locate([each for each in self._workers if each.place is None], self._deadline)
            for worker in self._workers:
                self._lines.append(worker.line(self._deadline))
        except BaseException:
            self._hang_up()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            # Replies may be under way that nobody will read.
            self._hang_up()
            return
        ended = packed(End())
        for worker, line in zip(self._workers, self._lines, strict=True):
            with suppress(OSError):
                line.send(ended)
            worker.keep(line)

    def _hang_up(self) -> None:
        for line in self._lines:
            line.close()

    def waiting(self, look: SecondLook | None) -> SecondLook | None:
        """The same second look, during which the time that workers have stands still."""
        return None if look is None else replace(look, reader=_Waiting(look.reader, self))

    def extend(self, seconds: float) -> None:
        """Give the workers that much more time."""
        self._deadline += seconds

    def call(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Call a method of the searches on some parts, the first time `advance` of all of them."""
        if not self._begun:
            self._begun = True
            ((_, first), *_) = arguments.values()
            return self._begin(arguments, Begin(self._request, first))
        # What all get alike is pickled once.
        steps: dict[tuple[int, ...], bytes] = {}
        messages = {}
        for place, each in arguments.items():
            alike = tuple(map(id, each))
            if alike not in steps:
                steps[alike] = packed(Step(method, each))
            messages[place] = steps[alike]
        return self._replies(messages)

    def _begin(self, places: Iterable[int], begin: Begin) -> dict[int, Any]:
        replies = self._replies(dict.fromkeys(places, packed(begin)))
        states: dict[str, State] = {}
        for place, (state, _) in replies.items():
            if states.setdefault(state.index, state) != state:
                raise LostError(self._workers[place], "its index is being changed")
        return {place: reply for place, (_, reply) in replies.items()}

    def _left(self) -> float:
        """Seconds that are left; a little if there are none, for what is there already."""
        return max(self._deadline - time.monotonic(), _LEAST)

    def _replies(self, messages: Mapping[int, bytes]) -> dict[int, Any]:
        """What workers reply to messages, by their places.

        Raises:
            S3Error: The first error that one of them replies.
        """
        place, replies = 0, {}
        try:
            for place, message in messages.items():
                self._lines[place].send(message, self._left())
            for place in messages:
                replies[place] = pickle.loads(self._lines[place].receive(self._left()))  # noqa: S301
        except TimeoutError:
            raise LostError(self._workers[place], "it takes too long") from None
        except (EOFError, OSError) as error:
            raise LostError(self._workers[place], "it died") from error
        for place, reply in replies.items():
            if isinstance(reply, MemoryError):
                raise _needs_memory(self._workers[place]) from reply
            if isinstance(reply, Exception):
                raise reply
        return replies


class _Waiting:
    """A reader whose time does not count as the workers'."""

    def __init__(self, reader: PassageReader, session: Session) -> None:
        self._reader = reader
        self._session = session

    def scores(self, question: str, passages: Sequence[Passage]) -> Scores:
        began = time.monotonic()
        scores = self._reader.scores(question, passages)
        self._session.extend(time.monotonic() - began)
        return scores


def locate(workers: Sequence[Worker], deadline: float) -> None:
    """Ask workers, through Ray, where they take lines.

    Raises:
        S3Error: What one of them replies: its index is missing or damaged.
        LostError: As `gathered`.
    """
    replies = gathered(workers, [worker.send("ready") for worker in workers], deadline)
    for worker, reply in zip(workers, replies, strict=True):
        if isinstance(reply, S3Error):
            raise reply
        worker.place = reply


def gathered(workers: Sequence[Worker], refs: Sequence[Any], deadline: float) -> list[Any]:
    """The results of calls of workers through Ray.

    Raises:
        S3Error: What a call raised.
        LostError: A worker was lost, or does not answer before the deadline.
    """
    try:
        return list(ray.get(list(refs), timeout=max(deadline - time.monotonic(), 0.0)))
    except GetTimeoutError:
        done, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
        late = next((w for w, ref in zip(workers, refs, strict=True) if ref not in done), None)
        raise LostError(late or workers[0], "it takes too long") from None
    except RayTaskError as error:
        if isinstance(error.cause, MemoryError):
            raise _needs_memory(_failed(workers, refs)) from error
        if isinstance(error.cause, S3Error):
            raise error.cause from None
        raise
    except RayError as error:
        worker = _failed(workers, refs)
        if isinstance(error, ActorDiedError):
            worker.revive()
        died = isinstance(error, RayActorError)
        raise LostError(worker, "it died" if died else brief(error)) from error


def _failed(workers: Sequence[Worker], refs: Sequence[Any]) -> Worker:
    """The worker whose call failed."""
    pairs = zip(workers, refs, strict=True)
    return next((worker for worker, ref in pairs if _has_failed(ref)), workers[0])


def _has_failed(ref: Any) -> bool:
    try:
        ray.get(ref, timeout=0)
    except GetTimeoutError:
        return False
    except RayError:
        return True
    return False


def _needs_memory(worker: Worker) -> ServerError:
    return ServerError(
        f"{worker.name} needs more memory than it has; use more shards, or machines with more "
        "memory."
    )
