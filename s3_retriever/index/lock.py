"""The lock of an index on disk: one writer at a time, each in its turn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from s3_retriever.errors import IndexLockedError
from s3_retriever.index.files import writing

LOCK_NAME = "write.lock"
# Whoever is next waits for the lock, the others wait here: a writer that comes back at once cannot
# overtake them.
QUEUE_NAME = "queue.lock"
LOCK_NAMES = (LOCK_NAME, QUEUE_NAME)
LOCK_SECONDS = 5.0
_POLL_SECONDS = 0.005


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of an index, waiting up to `LOCK_SECONDS` for it.

    It ends with the process that holds it. A process forked meanwhile does not hold it.

    Args:
        folder: Folder of the index.

    Raises:
        IndexLockedError: Another writer holds it.
        IndexStoreError: The folder cannot be written.
    """
    until = time.monotonic() + LOCK_SECONDS
    # New ones each time: after an interrupt or a fork nothing is left of them but what the
    # operating system has, which ends here.
    queue, lock = (FileLock(folder / name, thread_local=False) for name in (QUEUE_NAME, LOCK_NAME))
    try:
        with writing(folder):
            for each in (queue, lock):
                _acquire(each, until)
            queue.release(force=True)
        yield
    finally:
        try:
            lock.release(force=True)
        finally:
            queue.release(force=True)


def _acquire(lock: FileLock, until: float) -> None:
    try:
        lock.acquire(timeout=max(until - time.monotonic(), 0.0), poll_interval=_POLL_SECONDS)
    # A thread that holds the lock itself would wait for ever, which is a RuntimeError.
    except (Timeout, RuntimeError):
        raise IndexLockedError(
            f"Another writer is changing the index at {Path(lock.lock_file).parent}; try again "
            "when it is done."
        ) from None
