"""The files of a segment: those that never change, opened once, and the tombstones beside them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3_retriever.index import tables
from s3_retriever.index.documents import Documents
from s3_retriever.index.files import damaged
from s3_retriever.index.lexical import Lexical
from s3_retriever.index.manifest import SegmentEntry
from s3_retriever.index.postings import Postings
from s3_retriever.index.storage import ArrayWriter, Folder

TOMBSTONE_FILES = "tombstones.*.npy"


def write_tombstones(
    folder: Folder, entry: SegmentEntry, dead: Iterable[int], generation: int
) -> SegmentEntry | None:
    """Write the file that deletes documents of a segment.

    Args:
        folder: The segment's folder.
        entry: Its entry in the manifest.
        dead: Ordinals of all its deleted documents, those deleted before included.
        generation: The generation that the next commit makes.

    Returns:
        The segment's new entry; None if no live document is left.

    Raises:
        IndexStoreError: The file cannot be written.
    """
    ordinals = sorted(set(dead))
    if len(ordinals) == entry.documents:
        return None
    name = TOMBSTONE_FILES.replace("*", f"{generation:06d}")
    file = ArrayWriter(folder, name, tables.TOMBSTONE)
    file.append(ordinals)
    file.close()
    before = entry.without_tombstones()
    return before.model_copy(
        update={
            "files": {**before.files, name: folder.entry(name)},
            "deleted": len(ordinals),
            "tombstones": name,
        }
    )


def read_live(folder: Folder, entry: SegmentEntry) -> NDArray[np.bool_] | None:
    """For every document of a segment whether it is live; None if all are.

    Raises:
        IndexStoreError: The file of tombstones is missing or damaged.
    """
    if entry.tombstones is None:
        return None
    dead = folder.array(entry.tombstones, tables.TOMBSTONE, (entry.deleted,)).astype(np.int64)
    if (np.diff(dead) <= 0).any() or dead[-1] >= entry.documents:
        raise damaged(folder.path(entry.tombstones), "not documents of the segment, in order")
    live = np.ones(entry.documents, dtype=np.bool_)
    live[dead] = False
    return live


class SegmentFiles:
    """The files of a segment that never change, opened, and what is derived from them.

    Args:
        folder: The segment's folder.
        entry: Its entry in the manifest.

    Raises:
        IndexStoreError: A file is missing or damaged.
    """

    def __init__(self, folder: Folder, entry: SegmentEntry) -> None:
        self.folder = folder
        self.documents = Documents(folder, entry.documents)
        self.sentences = folder.array(tables.SENTENCES_FILE, tables.SENTENCE, (entry.sentences,))
        self.tokens = folder.array(tables.TOKENS_FILE, tables.TOKEN, (entry.tokens,))
        self.lexical = Lexical(folder, entry.sentences)
        self.blocks = folder.array(tables.BLOCKS_FILE, tables.BLOCK, (None,)).astype(np.int64)
        self.first_token = np.append(self.sentences["first_token"], entry.tokens).astype(np.int64)
        self._check_order(entry)
        self.taps = {
            tap: Postings(folder, tap, n, self.blocks, self.first_token)
            for tap, n in entry.features.items()
        }
        self.keys = {
            head: folder.array(tables.keys_file(head), np.uint8, (entry.tokens, size))
            for head, size in entry.key_bytes.items()
        }
        self.vectors = (
            folder.array(tables.VECTORS_FILE, np.uint8, (entry.sentences, entry.vector_bytes))
            if entry.vector_bytes
            else None
        )

    @cached_property
    def sentence_tokens(self) -> NDArray[np.int64]:
        """Number of tokens of each sentence."""
        return np.diff(self.first_token)

    @cached_property
    def document_tokens(self) -> NDArray[np.int64]:
        """Number of tokens of each document."""
        return self.documents.table["n_tokens"].astype(np.int64)

    def _check_order(self, entry: SegmentEntry) -> None:
        """Check that the tables, through which everything is found, stay within the files."""
        documents, sentences = self.documents.table, self.sentences
        if (
            self.blocks.size == 0
            or self.blocks[0] != 0
            or self.blocks[-1] != entry.sentences
            or (np.diff(self.blocks) <= 0).any()
        ):
            raise damaged(self.folder.path(tables.BLOCKS_FILE), "not in order")
        if not (
            _share_out(documents, "first_sentence", "n_sentences", entry.sentences)
            and _share_out(documents, "first_token", "n_tokens", entry.tokens)
        ):
            raise damaged(self.folder.path(tables.DOCUMENTS_FILE), "not in order")
        owners = np.repeat(np.arange(len(documents)), documents["n_sentences"].astype(np.int64))
        if (
            not _share_out(sentences, "first_token", "n_tokens", entry.tokens)
            or (sentences["n_tokens"] == 0).any()
            or (sentences["document"] != owners).any()
        ):
            raise damaged(self.folder.path(tables.SENTENCES_FILE), "not in order")


def _share_out(table: NDArray[Any], first: str, size: str, total: int) -> bool:
    """Whether the ranges of a table's rows follow each other from 0 to a total."""
    sizes = table[size]
    if sizes.size and sizes.max() > total:
        return False
    ends = np.cumsum(sizes.astype(np.int64))
    return bool(
        (ends[-1] if ends.size else 0) == total
        and (table[first][1:] == ends[:-1]).all()
        and (table[first][:1] == 0).all()
    )
