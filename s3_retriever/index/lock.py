"""The right to write to an index: one holder at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from s3_retriever.errors import IndexStoreError
from s3_retriever.index.files import writing

LOCK_NAME = "write.lock"
LOCK_SECONDS = 5.0


def write_lock(path: Path) -> FileLock:
    """The lock of the index at `path`; it ends with the process that holds it."""
    return FileLock(path / LOCK_NAME)


@contextmanager
def hold(lock: FileLock) -> Iterator[None]:
    """Hold a lock, waiting up to `LOCK_SECONDS` for it.

    Raises:
        IndexStoreError: Someone else holds it, this thread does so already, or the folder cannot
            be written.
    """
    folder = Path(lock.lock_file).parent
    busy = IndexStoreError(
        f"Another process is writing to the index at {folder}; try again when it is done."
    )
    # The lock would let its holder in once more, and one writer would sweep away the other's work.
    if lock.is_locked:
        raise busy
    with writing(folder):
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except (Timeout, RuntimeError):
            raise busy from None
    try:
        yield
    finally:
        lock.release()
