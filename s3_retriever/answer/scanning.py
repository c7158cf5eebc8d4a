"""Scanning a context into an index: at once, or commit by commit into one that is kept."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from s3_retriever.answer.pieces import is_last
from s3_retriever.answer.reader import Reader
from s3_retriever.document import Document
from s3_retriever.engine.identity import Identity
from s3_retriever.errors import IndexStoreError, InputError
from s3_retriever.index import Store
from s3_retriever.index.manifest import MANIFEST_NAME

# Committed at once, about half a million characters; an interruption loses no more than that.
_COMMITTED_PIECES = 512


def scan_pieces(pieces: Iterator[Document], reader: Reader, *, progress: bool) -> Store:
    """Scan pieces into a temporary index.

    Raises:
        InputError: There are none.
    """
    pieces = _not_empty(pieces)
    store = Store.create(None, {})
    reader.index(store).add(pieces, progress=progress)
    return store


def keep_pieces(pieces: Iterator[Document], reader: Reader, path: Path, *, progress: bool) -> Store:
    """Scan pieces into an index on disk, or go on where that ended.

    Raises:
        InputError: There are none.
        IndexStoreError: There is something else at `path`, or a scan of another context or with
            another host, codebook or recipe; or it cannot be written.
    """
    pieces = _not_empty(pieces)
    if (path / MANIFEST_NAME).exists():
        store = open_kept(reader, path)
        _pass_over(pieces, store, path)
    else:
        store = Store.create(path, reader.identity.model_dump())
    index = reader.index(store)
    while batch := list(islice(pieces, _COMMITTED_PIECES)):
        index.add(batch, progress=progress)
    return store


def open_kept(reader: Reader, path: Path) -> Store:
    """Open a kept scan, whole or not.

    Raises:
        IndexStoreError: There is none, or it was made with another host, codebook or recipe.
    """
    store = Store.open(path)
    found, wanted = Identity.read(store), reader.identity
    for name in ("fingerprint", "codebook", "window", "overlap", "recipe"):
        if getattr(found, name) != getattr(wanted, name):
            what = "host" if name == "fingerprint" else name
            raise IndexStoreError(
                f"The scan at {path} was made with another {what}; use that one, or scan to "
                "another path."
            )
    return store


def check_whole(store: Store) -> None:
    """Refuse a kept scan that was interrupted.

    Raises:
        IndexStoreError: It was.
    """
    segments = store.snapshot().segments
    last = segments[-1].document(segments[-1].n_documents - 1) if segments else None
    if last is None or not is_last(last.metadata):
        raise IndexStoreError(
            f"The scan at {store.path} is no whole context: it was interrupted, or is another "
            "kind of index; scan the context with that path again, which goes on from there."
        )


def _pass_over(pieces: Iterator[Document], store: Store, path: Path) -> None:
    """Take the pieces that are in a store already."""
    for known in store.snapshot().ids():
        piece = next(pieces, None)
        if piece is None or piece.id != known:
            raise IndexStoreError(
                f"The scan at {path} is of another context; give the context that it was begun "
                "with, or another path."
            )


def _not_empty(pieces: Iterator[Document]) -> Iterator[Document]:
    first = next(pieces, None)
    if first is None:
        raise InputError("The context is empty; give a text to answer from.")
    return chain([first], pieces)
