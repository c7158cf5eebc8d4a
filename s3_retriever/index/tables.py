"""The tables of a segment: rows of documents and sentences, and what a document's line says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s3_retriever.index.arrays import ArrayWriter

# Ranges of documents, counted from the start of the segment's tables and files.
DOCUMENT = np.dtype(
    [
        ("first_sentence", "<u8"),
        ("n_sentences", "<u8"),
        ("first_token", "<u8"),
        ("n_tokens", "<u8"),
        ("byte_start", "<u8"),  # of the text, in text.bin
        ("n_bytes", "<u8"),
        ("row_start", "<u8"),  # of the line, in documents.jsonl
        ("row_bytes", "<u8"),
        ("text_crc32", "<u4"),  # CRC-32 of the text
        ("row_crc32", "<u4"),  # and of the line
    ]
)

SENTENCE = np.dtype(
    [
        ("first_token", "<u8"),
        ("byte_start", "<u8"),  # of the text, in text.bin
        ("n_bytes", "<u4"),
        ("n_tokens", "<u4"),
        ("document", "<u4"),  # ordinal in the segment
        ("start", "<u4"),  # characters of the document
        ("end", "<u4"),
        ("n_terms", "<u4"),  # the length that BM25 sees, the title's terms included
        ("crc32", "<u4"),  # CRC-32 of the document's text up to the sentence's end
    ]
)

# Character start of a token in its document.
TOKEN = np.dtype("<u4")
# Ordinal of the first sentence of a block of feature postings; the last entry is their end.
BLOCK = np.dtype("<u8")
# Ordinal of a deleted document.
TOMBSTONE = np.dtype("<u4")

DOCUMENTS_FILE = "documents.npy"
SENTENCES_FILE = "sentences.npy"
TOKENS_FILE = "tokens.npy"
ROWS_FILE = "documents.jsonl"
TEXT_FILE = "text.bin"
BLOCKS_FILE = "blocks.npy"

_PENDING_RECORDS = 512


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """What an index knows of a document besides its text.

    Attributes:
        id: The document's id.
        metadata: The document's metadata, as JSON gives it back.
        characters: Length of the text.
    """

    id: str
    metadata: dict[str, Any]
    characters: int


class TableWriter(ArrayWriter):
    """Writes a table one record at a time.

    Args:
        path: A file that does not exist yet.
        dtype: Fields of a record.

    Raises:
        IndexStoreError: From every method: the file cannot be written.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        super().__init__(path, dtype)
        self._record = dtype
        self._pending: list[tuple[int, ...]] = []

    @property
    def count(self) -> int:
        """Number of records so far."""
        return self.rows + len(self._pending)

    def add(self, *record: int) -> None:
        """Append one record."""
        self._pending.append(record)
        if len(self._pending) == _PENDING_RECORDS:
            self._flush()

    def close(self) -> None:
        """Write what is left and close the file."""
        self._flush()
        super().close()

    def _flush(self) -> None:
        self.append(np.array(self._pending, dtype=self._record))
        self._pending.clear()
