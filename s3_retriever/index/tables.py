"""The tables of a segment: the fields of their rows and the names of their files."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3_retriever.index.storage import ArrayWriter, Folder

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
        ("id_hash", "<u8"),  # as `documents.id_hash` gives it
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

# Bits of a delta, the byte that leads from one posting of a feature to the next: whether a sentence
# begins, and how many tokens to advance.
NEW_SENTENCE = 0x80
STEP = 0x7F

DOCUMENTS_FILE = "documents.npy"
SENTENCES_FILE = "sentences.npy"
TOKENS_FILE = "tokens.npy"
ROWS_FILE = "documents.jsonl"
TEXT_FILE = "text.bin"
BLOCKS_FILE = "blocks.npy"
# Quantized sentence vectors, uint8 [sentences, bytes].
VECTORS_FILE = "vectors.npy"


def keys_file(head: str) -> str:
    """Name of the file with the quantized keys of a key head, uint8 [tokens, bytes]."""
    return f"keys.{head}.npy"


_PENDING_ROWS = 512


class TableWriter(ArrayWriter):
    """Writes a table one row at a time, or many.

    Args:
        folder: The segment's folder.
        name: A `.npy` file that does not exist yet.
        dtype: Fields of a row.

    Raises:
        IndexStoreError: From every method: the file cannot be written.
    """

    def __init__(self, folder: Folder, name: str, dtype: np.dtype[Any]) -> None:
        super().__init__(folder, name, dtype)
        self._row_type = dtype
        self._pending: list[tuple[int, ...]] = []

    @property
    def count(self) -> int:
        """Number of rows so far."""
        return self.rows + len(self._pending)

    def add(self, *row: int) -> None:
        """Append one row."""
        self._pending.append(row)
        if len(self._pending) == _PENDING_ROWS:
            self._flush()

    def extend(self, rows: NDArray[Any]) -> None:
        """Append rows [n]."""
        self._flush()
        self.append(rows)

    def close(self) -> None:
        """Write the rows that are left and close the file."""
        self._flush()
        super().close()

    def _flush(self) -> None:
        self.append(np.array(self._pending, dtype=self._row_type))
        self._pending.clear()
