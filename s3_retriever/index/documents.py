"""The documents of a segment: their texts, ids and metadata."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from s3_retriever.document import Document
from s3_retriever.errors import brief
from s3_retriever.index.columns import MISSING, Column
from s3_retriever.index.files import damaged
from s3_retriever.index.storage import FileWriter, Folder
from s3_retriever.index.tables import (
    DOCUMENT,
    DOCUMENTS_FILE,
    ROWS_FILE,
    TEXT_FILE,
    TableWriter,
)
from s3_retriever.metadata import key_paths, value_at
from s3_retriever.paths import refuse_constant

_T = TypeVar("_T", bound=np.generic)

# Texts are encoded and copied in pieces of this size, which bounds the memory that it takes.
_PIECE = 1 << 20


def id_hash(document_id: str) -> int:
    """The unsigned 64-bit number by which a document is looked up."""
    digest = blake2b(document_id.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


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


class DocumentsWriter:
    """Writes documents: the table, a line of JSON for each, and the texts.

    Args:
        folder: The segment's folder.

    Raises:
        IndexStoreError: From every method: a file cannot be written.
    """

    def __init__(self, folder: Folder) -> None:
        self._table = TableWriter(folder, DOCUMENTS_FILE, DOCUMENT)
        self._rows = FileWriter(folder, ROWS_FILE)
        self._text = FileWriter(folder, TEXT_FILE)

    @property
    def count(self) -> int:
        """Number of documents so far."""
        return self._table.count

    def text(self, document: Document) -> TextWriter:
        """Begin the text of the next document."""
        return TextWriter(document.text, self._text)

    def add(self, document: Document, text: TextWriter, sentences: range, tokens: range) -> None:
        """Add a document.

        Args:
            document: The document.
            text: Its text, of which the rest is written now.
            sentences: Its sentences, by ordinal.
            tokens: Its tokens, by position.
        """
        end = text.advance(len(document.text))
        row = {
            "id": document.id,
            "metadata": dict(document.metadata),
            "characters": len(document.text),
        }
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        self._table.add(
            sentences.start,
            len(sentences),
            tokens.start,
            len(tokens),
            text.byte_start,
            end - text.byte_start,
            self._rows.size,
            len(line),
            id_hash(document.id),
            text.crc32,
            zlib.crc32(line),
        )
        self._rows.write(line)

    def copy(
        self, source: Documents, ordinals: NDArray[np.int64], sentence: int, token: int
    ) -> NDArray[Any]:
        """Copy documents of another segment.

        Args:
            source: The other segment's documents.
            ordinals: Those to copy, ascending [n].
            sentence: Ordinal of their first sentence here.
            token: Position of their first token here.

        Returns:
            Their rows here [n].
        """
        rows = source.table[ordinals]
        for field, size, first in (
            ("first_sentence", "n_sentences", sentence),
            ("first_token", "n_tokens", token),
            ("byte_start", "n_bytes", self._text.size),
            ("row_start", "row_bytes", self._rows.size),
        ):
            sizes = rows[size].astype(np.int64)
            rows[field] = np.cumsum(sizes) - sizes + first
        for ordinal in ordinals.tolist():
            begin, end = source.text_range(ordinal)
            for start in range(begin, end, _PIECE):
                self._text.write(source.content(start, min(start + _PIECE, end)).tobytes())
            self._rows.write(source.line(ordinal).tobytes())
        self._table.extend(rows)
        return rows

    def close(self) -> None:
        """Finish the files."""
        for file in self._files():
            file.close()

    def abort(self) -> None:
        """Close the files unfinished."""
        for file in self._files():
            file.abort()

    def _files(self) -> tuple[FileWriter, ...]:
        return self._table, self._rows, self._text


class TextWriter:
    """Writes one document's text from front to back, turning characters into bytes.

    Args:
        text: The text.
        file: Where it goes.

    Attributes:
        byte_start: Where in the file it begins.
        crc32: CRC-32 of the bytes written so far.
    """

    def __init__(self, text: str, file: FileWriter) -> None:
        self.byte_start = file.size
        self.crc32 = 0
        self._text = text
        self._file = file
        self._written = 0

    def advance(self, character: int) -> int:
        """Write the text up to a character; returns where in the file that character begins."""
        while self._written < character:
            end = min(character, self._written + _PIECE)
            content = self._text[self._written : end].encode()
            self._file.write(content)
            self.crc32 = zlib.crc32(content, self.crc32)
            self._written = end
        return self._file.size


class Documents:
    """The documents of a segment, opened for reading.

    Ids and metadata are parsed when they are first asked for, all at once, and kept. A segment
    shares them with what it becomes when documents are deleted.

    Args:
        folder: The segment's folder.
        n_documents: Number of documents.

    Attributes:
        table: Fields as in `tables.DOCUMENT` [n_documents].

    Raises:
        IndexStoreError: A file is missing or damaged; also from the methods.
    """

    def __init__(self, folder: Folder, n_documents: int) -> None:
        self.table = folder.array(DOCUMENTS_FILE, DOCUMENT, (n_documents,))
        self._folder = folder
        self._rows = folder.bytes(ROWS_FILE)
        self._text = folder.bytes(TEXT_FILE)
        self._columns: dict[str, Column] = {}

    def find(self, document_id: str) -> int | None:
        """Ordinal of the document with this id, deleted or not, or None."""
        wanted = np.uint64(id_hash(document_id))
        order, hashes = self._by_hash
        first, end = (int(np.searchsorted(hashes, wanted, side)) for side in _SIDES)
        for ordinal in order[first:end].tolist():
            if self.row(ordinal).id == document_id:
                return int(ordinal)
        return None

    def row(self, ordinal: int) -> DocumentRow:
        """Id, metadata and length of a document."""
        return self._parse(self.line(ordinal))

    def line(self, ordinal: int) -> NDArray[np.uint8]:
        """The line of JSON of a document."""
        record = self.table[ordinal]
        start, size, crc32 = (int(record[field]) for field in _LINE)
        return self._line(start, size, crc32)

    def text(self, ordinal: int) -> str:
        """The whole text of a document."""
        return self.read_text(*self.text_range(ordinal), int(self.table[ordinal]["text_crc32"]))

    def text_range(self, ordinal: int) -> tuple[int, int]:
        """Where in the file the text of a document begins and ends."""
        record = self.table[ordinal]
        start = int(record["byte_start"])
        return start, start + int(record["n_bytes"])

    def read_text(self, start: int, end: int, crc32: int, *, before: int = 0, skip: int = 0) -> str:
        """Text of a byte range of the file, checked against its checksum.

        Args:
            start: The first byte.
            end: The byte after the last one.
            crc32: Checksum of these bytes.
            before: Checksum of the bytes before them, which theirs continues.
            skip: Number of bytes to drop at the start.
        """
        content = self.content(start, end)
        self._compare(TEXT_FILE, content, crc32, before)
        try:
            return content[skip:].tobytes().decode()
        except UnicodeDecodeError as error:
            raise damaged(self._folder.path(TEXT_FILE), brief(error)) from None

    def content(self, start: int, end: int) -> NDArray[np.uint8]:
        """A byte range of the file of texts, unchecked."""
        return self._cut(self._text, TEXT_FILE, start, end)

    def ids(self) -> list[str]:
        """Ids of all documents."""
        return self._parsed[0]

    def metadata(self, ordinal: int) -> Mapping[str, Any]:
        """Metadata of a document, read only."""
        return MappingProxyType(self._parsed[1][ordinal])

    def column(self, key: str) -> Column | None:
        """The values of a metadata key, `author.name` also in a mapping; None without any."""
        try:
            if key not in self._columns and key in self.metadata_keys:
                values = (value_at(metadata, key, MISSING) for metadata in self._parsed[1])
                self._columns[key] = Column(values)
        except RecursionError as error:
            raise damaged(self._folder.path(ROWS_FILE), error) from None
        return self._columns.get(key)

    @cached_property
    def metadata_keys(self) -> frozenset[str]:
        """Keys that the metadata of any document has; those within mappings with a dot."""
        return frozenset(key for metadata in self._parsed[1] for key in key_paths(metadata))

    @cached_property
    def _by_hash(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Ordinals of the documents by ascending hash of their ids, and these hashes."""
        hashes = np.ascontiguousarray(self.table["id_hash"])
        order = np.argsort(hashes)
        return order, hashes[order]

    @cached_property
    def _parsed(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Ids and metadata of all documents."""
        columns = [self.table[field].tolist() for field in _LINE]
        rows = [self._parse(self._line(*place)) for place in zip(*columns, strict=True)]
        return [row.id for row in rows], [row.metadata for row in rows]

    def _line(self, start: int, size: int, crc32: int) -> NDArray[np.uint8]:
        line = self._cut(self._rows, ROWS_FILE, start, start + size)
        self._compare(ROWS_FILE, line, crc32)
        return line

    def _parse(self, line: NDArray[np.uint8]) -> DocumentRow:
        try:
            return _row(_JSON.decode(line.tobytes().decode()))
        except (ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
            raise damaged(self._folder.path(ROWS_FILE), brief(error)) from None

    def _cut(self, content: NDArray[_T], name: str, start: int, end: int) -> NDArray[_T]:
        """A range of a file as the table gives it; refuses one beyond the end of the file."""
        if not start <= end <= len(content):
            raise damaged(self._folder.path(name), "a range beyond its end")
        return content[start:end].copy()

    def _compare(self, name: str, content: NDArray[np.uint8], crc32: int, before: int = 0) -> None:
        """Refuse bytes that do not match their checksum, which continues `before`."""
        if zlib.crc32(content.data, before) != crc32:
            raise damaged(self._folder.path(name), "its content does not match its checksum")


def _row(row: Any) -> DocumentRow:
    """The row that a line of JSON describes.

    Raises:
        ValueError: It is not the line of a document; also TypeError and KeyError.
    """
    name, metadata, characters = row["id"], row["metadata"], row["characters"]
    if not (isinstance(name, str) and isinstance(metadata, dict) and isinstance(characters, int)):
        raise TypeError("a field of another type")
    name.encode()  # refuses lone surrogates
    return DocumentRow(name, metadata, characters)


_JSON = json.JSONDecoder(parse_constant=refuse_constant)
# Where a document's line is, and its checksum.
_LINE = ("row_start", "row_bytes", "row_crc32")
_SIDES: tuple[Any, Any] = ("left", "right")
