"""Files of an index on disk: plain errors, checksums, and writes that survive a crash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from s3_retriever.errors import IndexStoreError
from s3_retriever.paths import begin_draft

_CHUNK_BYTES = 1 << 20


@contextmanager
def writing(path: PurePath) -> Iterator[None]:
    """Turn the operating system's errors on writing into readable ones.

    Raises:
        IndexStoreError: Disk full, permission denied, and the like.
    """
    try:
        yield
    except OSError as error:
        raise IndexStoreError(
            f"Writing {path} failed ({error.strerror or error}); the index keeps its last state: "
            "check free space and permissions, then try again."
        ) from error


@contextmanager
def reading(path: PurePath) -> Iterator[None]:
    """Turn the operating system's errors on reading into readable ones.

    Raises:
        IndexStoreError: The file is missing, permission denied, and the like.
    """
    try:
        yield
    except FileNotFoundError:
        raise damaged(path, "missing") from None
    except OSError as error:
        raise IndexStoreError(
            f"Reading {path} failed ({error.strerror or error}); check its permissions and the "
            "number of files this process may open."
        ) from error


def damaged(path: PurePath, reason: object) -> IndexStoreError:
    """The error for a file that does not hold what it should."""
    return IndexStoreError(
        f"{path} is damaged ({reason}); restore the index from a copy or build it again."
    )


def checksum(path: Path, advance: Callable[[int], object] | None = None) -> str:
    """SHA-256 of a file, in hexadecimal.

    Args:
        path: The file.
        advance: Called with the number of bytes whenever some have been read.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if advance is not None:
                advance(len(chunk))
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Wait until the disk has a file's content, or the names in a folder.

    Raises:
        OSError: The disk refuses.
    """
    windows = os.name == "nt"
    if windows and path.is_dir():  # it cannot open folders and does not need to
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes, *, first: Iterable[Path] = (), durable: bool) -> None:
    """Replace a file atomically: a reader sees the old content or the new.

    Args:
        path: The file.
        content: Its new content.
        first: Files and folders that the disk must have before the new content is seen.
        durable: Whether all that also holds after a crash of the machine.

    Raises:
        OSError: The content cannot be written; the old file is unchanged.
    """
    draft = path.with_name(path.name + ".tmp")
    with begin_draft(draft) as file:
        file.write(content)
    if durable:
        # What was written before the first of these calls mostly reaches the disk with it.
        for each in (*first, draft):
            sync(each)
    draft.replace(path)
    if durable:
        sync(path.parent)
