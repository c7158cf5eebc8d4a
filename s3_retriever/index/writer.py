"""A segment under construction."""

from __future__ import annotations

import json
import shutil
import zlib
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s3_retriever.document import Document
from s3_retriever.errors import IndexStoreError, InputError
from s3_retriever.index import postings as postings_writer
from s3_retriever.index import tables
from s3_retriever.index.arrays import ArrayWriter
from s3_retriever.index.files import FileWriter, writing
from s3_retriever.index.lexical import LexicalWriter
from s3_retriever.index.manifest import FileEntry, SegmentEntry
from s3_retriever.index.postings import PostingsWriter
from s3_retriever.index.vectors import CodesWriter
from s3_retriever.text.sentences import Sentence, SentenceCutter
from s3_retriever.text.terms import analyze, term_hash

_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """Consecutive tokens of one document.

    Attributes:
        starts: Character start of each token [n], in ascending order over the whole document.
        features: For every tap, the features [n, k] of each token, -1 where fewer than k fire.
        codes: For every tap of sentences, the codes [m, size] of further sentences of the
            document, which are those that the document is cut into here.
    """

    starts: NDArray[np.uint32]
    features: Mapping[str, NDArray[np.int32]]
    codes: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


class SegmentWriter:
    """Writes a segment, in memory bounded by one block of postings.

    After an error the segment cannot be finished, only aborted.

    Args:
        folder: The segment's folder, which must not exist yet.
        features: Size of the dictionary of every tap of tokens.
        taken: Ids that no document may have.
        codes: Bytes of a sentence's code, for every tap of sentences.

    Raises:
        IndexStoreError: From every method: a file cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        features: Mapping[str, int],
        taken: Container[str] = (),
        codes: Mapping[str, int] | None = None,
    ) -> None:
        self._folder = folder
        self._features = dict(features)
        self._code_sizes = dict(codes or {})
        self._taken = taken
        self._ids: dict[str, None] = {}
        self._complete = True
        self._n_tokens = 0
        with writing(folder):
            folder.mkdir(parents=True)
        self._tokens = ArrayWriter(folder / tables.TOKENS_FILE, tables.TOKEN)
        self._sentences = tables.TableWriter(folder / tables.SENTENCES_FILE, tables.SENTENCE)
        self._documents = tables.TableWriter(folder / tables.DOCUMENTS_FILE, tables.DOCUMENT)
        self._rows = FileWriter(folder / tables.ROWS_FILE)
        self._text = FileWriter(folder / tables.TEXT_FILE)
        self._lexical = LexicalWriter(folder)
        self._blocks = ArrayWriter(folder / tables.BLOCKS_FILE, tables.BLOCK)
        self._blocks.append(0)
        self._lengths: list[int] = []  # of the sentences of the current block
        self._block_tokens = 0
        self._taps = [PostingsWriter(folder, tap, n) for tap, n in self._features.items()]
        self._codes = [CodesWriter(folder, tap, size) for tap, size in self._code_sizes.items()]

    @property
    def ids(self) -> list[str]:
        """Ids of the documents so far, in order."""
        return list(self._ids)

    def add(self, document: Document, chunks: Iterable[TokenChunk]) -> None:
        """Add a document.

        Args:
            document: The document.
            chunks: Its tokens, taken one chunk at a time. A document without tokens, or of white
                space alone, has no sentences and can be found by its id only.

        Raises:
            InputError: An id that is taken, or tokens that do not fit the text or the taps.
            IndexStoreError: The document before this one was not finished.
        """
        self._check_complete()
        if document.id in self._taken or document.id in self._ids:
            raise InputError(
                f"Document {document.id!r} is there already; give it another id, or replace it."
            )
        self._complete = False
        self._ids[document.id] = None
        first_sentence, first_token = self._sentences.count, self._n_tokens
        row_start, text = self._rows.size, _TextWriter(document.text, self._text)
        self._add_tokens(document, text, chunks)
        row = {
            "id": document.id,
            "metadata": dict(document.metadata),
            "characters": len(document.text),
        }
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        self._rows.write(line)
        self._documents.add(
            first_sentence,
            self._sentences.count - first_sentence,
            first_token,
            self._n_tokens - first_token,
            text.byte_start,
            text.advance(len(document.text)) - text.byte_start,
            row_start,
            len(line),
            text.crc32,
            zlib.crc32(line),
        )
        self._complete = True

    def close(self) -> SegmentEntry:
        """Finish the segment.

        Returns:
            The segment's entry for the manifest.

        Raises:
            IndexStoreError: A document was not finished.
        """
        self._check_complete()
        self._flush()
        for file in self._files():
            file.close()
        with writing(self._folder):
            files = {path.name: FileEntry.of(path) for path in sorted(self._folder.iterdir())}
        return SegmentEntry(
            name=self._folder.name,
            documents=self._documents.count,
            sentences=self._sentences.count,
            tokens=self._n_tokens,
            features=self._features,
            codes=self._code_sizes,
            files=files,
        )

    def abort(self) -> None:
        """Give the segment up and remove its folder."""
        for file in self._files():
            file.abort()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _check_complete(self) -> None:
        if not self._complete:
            raise IndexStoreError("A document was interrupted by an error; add the documents anew.")

    def _files(self) -> list[FileWriter | LexicalWriter | PostingsWriter | CodesWriter]:
        return [
            *self._taps,
            *self._codes,
            self._blocks,
            self._lexical,
            self._text,
            self._rows,
            self._documents,
            self._sentences,
            self._tokens,
        ]

    def _add_tokens(
        self, document: Document, text: _TextWriter, chunks: Iterable[TokenChunk]
    ) -> None:
        if not document.text or document.text.isspace():
            return
        cutter = SentenceCutter(document.text)
        title = Counter(map(term_hash, analyze(document.title)))
        token = self._n_tokens
        last = 0
        for chunk in chunks:
            _check(document, chunk, self._features, last)
            _check_codes(document, chunk, self._code_sizes)
            for tap in self._taps:
                tap.append(chunk.features[tap.tap])
            for codes in self._codes:
                codes.append(chunk.codes[codes.tap])
            self._tokens.append(chunk.starts)
            self._n_tokens += len(chunk.starts)
            last = int(chunk.starts[-1]) if len(chunk.starts) else last
            for sentence in cutter.push(chunk.starts):
                token = self._add_sentence(sentence, token, text, title)
        for sentence in cutter.finish():
            token = self._add_sentence(sentence, token, text, title)
        for codes in self._codes:
            if codes.count != self._sentences.count:
                raise InputError(
                    f"Document {document.id!r} has another number of sentences than tap "
                    f"{codes.tap} has codes; give one for each sentence."
                )

    def _add_sentence(
        self, sentence: Sentence, token: int, text: _TextWriter, title: Counter[int]
    ) -> int:
        """Write a sentence that begins at a token; returns the token after it."""
        self._put_in_block(sentence.n_tokens)
        terms = title.copy()
        terms.update(map(term_hash, analyze(text.text[sentence.start : sentence.end])))
        byte_start = text.advance(sentence.start)
        self._lexical.append(self._sentences.count, terms)
        self._sentences.add(
            token,
            byte_start,
            text.advance(sentence.end) - byte_start,
            sentence.n_tokens,
            self._documents.count,
            sentence.start,
            sentence.end,
            terms.total(),
            text.crc32,
        )
        return token + sentence.n_tokens

    def _put_in_block(self, n_tokens: int) -> None:
        """Count a sentence to the current block, or to a new one where it does not fit."""
        if self._block_tokens + n_tokens > postings_writer.BLOCK_TOKENS:
            self._flush()
        self._lengths.append(n_tokens)
        self._block_tokens += n_tokens

    def _flush(self) -> None:
        if not self._lengths:
            return
        for tap in self._taps:
            tap.flush(self._lengths)
        self._blocks.append(self._sentences.count)
        self._lengths, self._block_tokens = [], 0


class _TextWriter:
    """Writes one document's text from front to back, turning characters into bytes.

    Attributes:
        text: The text.
        byte_start: Where in the file it begins.
        crc32: CRC-32 of the bytes written so far.
    """

    def __init__(self, text: str, file: FileWriter) -> None:
        self.text = text
        self.byte_start = file.size
        self.crc32 = 0
        self._file = file
        self._written = 0

    def advance(self, character: int) -> int:
        """Write the text up to a character; returns where in the file that character begins."""
        while self._written < character:
            end = min(character, self._written + _CHARACTERS)
            content = self.text[self._written : end].encode()
            self._file.write(content)
            self.crc32 = zlib.crc32(content, self.crc32)
            self._written = end
        return self._file.size


def _check(document: Document, chunk: TokenChunk, features: Mapping[str, int], last: int) -> None:
    """Refuse tokens that would make a segment that cannot be read."""
    starts = chunk.starts.astype(np.int64)
    ascending = np.diff(starts, prepend=last) >= 0
    if not ascending.all() or (starts > len(document.text)).any():
        raise InputError(
            f"Tokens of document {document.id!r} are out of order or beyond its end; their starts "
            "must be ascending character positions of the text."
        )
    for tap in features:
        rows = chunk.features.get(tap)
        if rows is None or rows.ndim != 2 or len(rows) != len(starts):
            raise InputError(
                f"Tap {tap} has no row of features for each of {len(starts)} tokens of document "
                f"{document.id!r}; give features of shape [tokens, k]."
            )


def _check_codes(document: Document, chunk: TokenChunk, taps: Mapping[str, int]) -> None:
    for tap in taps:
        if tap not in chunk.codes:
            raise InputError(
                f"Tap {tap} has no codes for the sentences of document {document.id!r}; give codes "
                "with every chunk, of no sentences where none is complete."
            )
