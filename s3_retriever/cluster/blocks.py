"""Blocks: the runs of documents that workers scan, and the folder where finished ones wait."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from s3_retriever.document import Document
from s3_retriever.engine.origin import Origin
from s3_retriever.errors import IndexLockedError, IndexStoreError
from s3_retriever.index import Snapshot, Store
from s3_retriever.index.backends import BLOCKS
from s3_retriever.index.files import sync, writing
from s3_retriever.index.manifest import MANIFEST_NAME
from s3_retriever.text import TEXT_ANALYSIS

_LOCK = "build.lock"
_WITNESS = "shared-*"
# A file may take that long to be seen from another machine.
_VISIBLE_SECONDS = 10.0


class Block(NamedTuple):
    """A run of documents.

    Attributes:
        number: Counts the blocks.
        documents: The documents.
        characters: Length of their texts together.
        name: Digest of the documents and of how they are scanned; the block's name on disk.
    """

    number: int
    documents: tuple[Document, ...]
    characters: int
    name: str


def cut(documents: Iterable[Document], characters: int, origin: Origin) -> Iterator[Block]:
    """Cut a stream of documents into blocks.

    Where one ends depends on the documents alone, never on how many workers there are: a build
    that is resumed elsewhere finds the blocks that are finished.

    Args:
        documents: The documents.
        characters: Size of a block, which ends with the document that reaches it.
        origin: How they are scanned.
    """
    run: list[Document] = []
    size = number = 0
    for document in documents:
        run.append(document)
        size += len(document.text)
        if size >= characters:
            yield Block(number, tuple(run), size, digest(run, origin))
            run, size, number = [], 0, number + 1
    if run:
        yield Block(number, tuple(run), size, digest(run, origin))


def digest(documents: Sequence[Document], origin: Origin) -> str:
    """What makes a block the same: its documents and how they are scanned."""
    made = origin.model_dump(mode="json", exclude={"host", "codebook_source"})
    state = hashlib.blake2b(digest_size=16)
    state.update(json.dumps([made, TEXT_ANALYSIS], sort_keys=True).encode())
    for document in documents:
        row = [document.id, document.unit, document.metadata, len(document.text)]
        state.update(json.dumps(row).encode())
        state.update(document.text.encode())
    return state.hexdigest()


class BlockFolder:
    """The folder of an index in which finished blocks wait to be copied into it.

    A block is a small index of its own, which appears under its name when it is complete, checked
    and on the disk. Readers of the index do not look into this folder.

    Args:
        path: Folder of the index, or of the one to be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / BLOCKS

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Keep other builds away from the index.

        Raises:
            IndexLockedError: There is another.
            IndexStoreError: The folder cannot be written.
        """
        new = not self.path.parent.exists()
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / _LOCK, thread_local=False)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise IndexLockedError(
                    f"Another build is adding to {self.path.parent}; wait for it, or choose "
                    "another path."
                ) from None
            # What workers left that were killed.
            for draft in self.path.glob("*.draft"):
                shutil.rmtree(draft, ignore_errors=True)
        try:
            yield
        finally:
            lock.release(force=True)
            if not any(item.is_dir() for item in self.path.glob("*")):
                self.remove()
                if new:
                    with suppress(OSError):  # it is not empty: it is an index now
                        self.path.parent.rmdir()

    @contextmanager
    def witness(self) -> Iterator[str]:
        """A file by which workers see that they share this folder with their driver."""
        name = _WITNESS.replace("*", uuid.uuid4().hex)
        with writing(self.path):
            (self.path / name).touch(exist_ok=False)
        try:
            yield name
        finally:
            (self.path / name).unlink(missing_ok=True)

    def check_shared(self, witness: str, machine: str) -> None:
        """Refuse to work where the driver's folder is not seen.

        Args:
            witness: A file that the driver made.
            machine: The machine that this is.

        Raises:
            IndexStoreError: It is not there.
        """
        if not (self.path / witness).is_file():
            raise IndexStoreError(
                f"The machine {machine} does not see the files of {self.path.parent} that the "
                "driver wrote; give a path that all machines of the cluster share."
            )

    def finished(self, name: str) -> Store | None:
        """The block of that name if it is complete."""
        try:
            return Store.open(self.path / name)
        except IndexStoreError:
            return None

    @contextmanager
    def draft(self, name: str, origin: Origin) -> Iterator[Store]:
        """Write a block: a context that gives an empty index and, at its end, finishes the block.

        Raises:
            IndexStoreError: It cannot be written, or reads back damaged.
        """
        # After a broken connection, a worker and its successor may be at the same block.
        folder = self.path / f"{name}.{uuid.uuid4().hex}.draft"
        try:
            store = Store.create(folder, origin.model_dump(), TEXT_ANALYSIS)
            yield store
            store.verify()
            with writing(self.path):
                if self.finished(name) is None:
                    self.drop(name)
                    with suppress(OSError):  # the other was a moment faster
                        folder.rename(self.path / name)
                sync(self.path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def check_visible(self, name: str) -> None:
        """Refuse to go on if a block that a worker has finished is not to be seen here.

        Raises:
            IndexStoreError: It is not there.
        """
        until = time.monotonic() + _VISIBLE_SECONDS
        while not (self.path / name / MANIFEST_NAME).is_file():
            if time.monotonic() > until:
                raise IndexStoreError(
                    f"A worker has written a block to {self.path.parent} that this machine does "
                    "not see; give a path that all machines of the cluster share."
                )
            time.sleep(_VISIBLE_SECONDS / 100)

    def intact(self, name: str) -> Snapshot:
        """A finished block, all of its files compared with their checksums.

        Raises:
            IndexStoreError: It is damaged; then it is removed.
        """
        try:
            return Store.open(self.path / name).intact()
        except IndexStoreError as error:
            self.drop(name)
            raise IndexStoreError(
                f"A finished block was damaged and is removed ({error}); the same call scans it "
                "again and keeps the others."
            ) from error

    def drop(self, name: str) -> None:
        """Remove a block, which will be scanned again."""
        shutil.rmtree(self.path / name, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder with all blocks."""
        shutil.rmtree(self.path, ignore_errors=True)
