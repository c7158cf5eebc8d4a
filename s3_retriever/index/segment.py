"""A segment, opened for reading."""

from __future__ import annotations

import json
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from s3_retriever.index import tables
from s3_retriever.index.arrays import open_array, open_bytes
from s3_retriever.index.files import damaged, reading
from s3_retriever.index.lexical import Lexical
from s3_retriever.index.manifest import SegmentEntry, read_live
from s3_retriever.index.postings import Postings
from s3_retriever.index.tables import DocumentRow
from s3_retriever.index.vectors import SentenceCodes

_T = TypeVar("_T", bound=np.generic)


class Segment:
    """Whole documents in order: their text, sentences, tokens and postings. Never changes.

    Tokens, sentences and documents are counted from 0 within the segment, and deleted documents
    keep their numbers. The files stay open, so that a segment outlives its removal from the index.

    Args:
        folder: The segment's folder.
        entry: Its entry in the manifest.

    Attributes:
        name: Name of the segment.
        entry: Its entry in the manifest.
        sentences: Table of sentences [n_sentences], fields as in `tables.SENTENCE`. In order, their
            tokens are all tokens of the segment.
        documents: Table of documents [n_documents], fields as in `tables.DOCUMENT`.
        live: For every document whether it is not deleted [n_documents]; None where all are live.

    Raises:
        IndexStoreError: A file is missing or damaged; also from the methods.
    """

    def __init__(self, folder: Path, entry: SegmentEntry) -> None:
        self.name = entry.name
        self.entry = entry
        self._folder = folder
        for name, file in entry.files.items():
            _check_size(folder / name, file.bytes)
        self.documents = open_array(
            folder / tables.DOCUMENTS_FILE, tables.DOCUMENT, (entry.documents,)
        )
        self.sentences = open_array(
            folder / tables.SENTENCES_FILE, tables.SENTENCE, (entry.sentences,)
        )
        self._tokens = open_array(folder / tables.TOKENS_FILE, tables.TOKEN, (entry.tokens,))
        self._text = open_bytes(folder / tables.TEXT_FILE)
        self._rows = open_bytes(folder / tables.ROWS_FILE)
        self._lexical = Lexical(folder, entry.sentences)
        self._blocks = open_array(folder / tables.BLOCKS_FILE, tables.BLOCK, (None,)).astype(
            np.int64
        )
        self._first_token = np.append(self.sentences["first_token"], entry.tokens).astype(np.int64)
        self._check_order()
        self._taps = {
            tap: Postings(folder, tap, n, self._blocks, self._first_token)
            for tap, n in entry.features.items()
        }
        self._codes = {
            tap: SentenceCodes(folder, tap, (entry.sentences, size))
            for tap, size in entry.codes.items()
        }
        self._live_frequencies = {
            tap: np.full(n, -1, dtype=np.int64) for tap, n in entry.features.items()
        }
        self.live = (
            read_live(folder / entry.tombstones, entry.documents) if entry.tombstones else None
        )

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return self.entry.tokens

    @property
    def n_sentences(self) -> int:
        """Number of sentences."""
        return self.entry.sentences

    @property
    def n_documents(self) -> int:
        """Number of documents, deleted ones included."""
        return self.entry.documents

    @property
    def taps(self) -> list[str]:
        """Names of the taps."""
        return list(self._taps)

    def postings(
        self, tap: str, features: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All postings of the given features.

        Args:
            tap: Name of the tap.
            features: Features [f] of the tap.

        Returns:
            Token positions [n], ascending for each feature, and the index [n] into `features`
            that each belongs to, ascending.

        Raises:
            KeyError: The segment has no such tap.
            IndexError: The tap has no such feature.
        """
        return self._taps[tap].find(self._features(tap, features))

    def frequencies(self, tap: str, features: NDArray[np.int64]) -> NDArray[np.int64]:
        """On how many tokens of live documents each of the given features [f] fires, int64 [f].

        Raises:
            KeyError: The segment has no such tap.
            IndexError: The tap has no such feature.
        """
        features = self._features(tap, features)
        if self.live is None:
            return self._taps[tap].frequencies(features)
        # Counted once: it takes longer than the search that asks for it.
        known = self._live_frequencies[tap]
        new = features[known[features] < 0]
        if new.size:
            known[new] = self._taps[tap].live_frequencies(new, self._live_sentences)
        return known[features]

    def add_to_sentences(
        self,
        tap: str,
        features: NDArray[np.int64],
        weights: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        """Add a feature's weight to the score of every sentence in which it fires.

        Args:
            tap: Name of the tap.
            features: Features [f] of the tap.
            weights: Weight of each [f].
            scores: Of all sentences [n_sentences], those of deleted documents included; changed.

        Raises:
            KeyError: The segment has no such tap.
            IndexError: The tap has no such feature.
        """
        self._taps[tap].add_to_sentences(self._features(tap, features), weights, scores)

    def features_in(
        self, tap: str, features: NDArray[np.int64], sentences: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which of some features fire in which of some sentences.

        Args:
            tap: Name of the tap.
            features: Features [f] of the tap.
            sentences: Sentences [n], ascending.

        Returns:
            bool [n, f].

        Raises:
            KeyError: The segment has no such tap.
            IndexError: The tap has no such feature, or the segment no such sentence.
        """
        if sentences.size and not 0 <= sentences[0] <= sentences[-1] < self.n_sentences:
            raise IndexError(f"Segment {self.name} has sentences 0..{self.n_sentences - 1}.")
        return self._taps[tap].in_sentences(self._features(tap, features), sentences)

    def add_to_tokens(
        self,
        tap: str,
        features: NDArray[np.int64],
        weights: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        """The same for the scores of all tokens [n_tokens]."""
        self._taps[tap].add_to_tokens(self._features(tap, features), weights, scores)

    def sentence_features(
        self, tap: str, sentence: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The features that fire in a sentence.

        Returns:
            Features [f] of the tap, ascending, and on how many of the sentence's tokens each
            fires [f].

        Raises:
            KeyError: The segment has no such tap.
            IndexError: There is no such sentence.
        """
        self._sentence_range(sentence, sentence)
        return self._taps[tap].of_sentence(sentence)

    def block_at(self, token: int) -> tuple[int, int, int]:
        """The block of postings that a token is in, the block's first token, and its end."""
        sentence = np.searchsorted(self._first_token, token, side="right") - 1
        block = int(np.searchsorted(self._blocks, sentence, side="right")) - 1
        first, end = self._first_token[self._blocks[block : block + 2]].tolist()
        return block, first, end

    def block_features(self, tap: str, block: int) -> NDArray[np.int32]:
        """The features of a block of tokens.

        Returns:
            Features [n, k], ascending, padded with -1; k is the most that any of the tokens has.

        Raises:
            KeyError: The segment has no such tap.
        """
        return self._taps[tap].block(block)

    def where(self, conditions: Any) -> NDArray[np.bool_]:
        flags = np.zeros(self.n_documents, dtype=np.bool_)
        missing = object()
        for ordinal in self.live_documents().tolist():
            metadata = self.document(ordinal).metadata
            flags[ordinal] = all(metadata.get(k, missing) == v for k, v in conditions.items())
        return flags

    def similarity(self, direction: NDArray[np.float32]) -> NDArray[np.float64]:
        (codes,) = self._codes.values()
        return codes.likeness(direction)

    def likeness(self, tap: str, direction: NDArray[np.float32]) -> NDArray[np.float64]:
        """The cosine of each sentence's mean state and a direction, float64 [n_sentences].

        Args:
            tap: Name of a tap of sentences.
            direction: Along the axes of its codes [axes].

        Raises:
            KeyError: The segment has no such tap.
        """
        return self._codes[tap].likeness(direction)

    def document_codes(self, ordinal: int) -> dict[str, NDArray[np.uint8]]:
        """Codes of all sentences of a document, by tap.

        Raises:
            IndexError: There is no such document.
        """
        record = self._document_record(ordinal)
        first = int(record["first_sentence"])
        end = first + int(record["n_sentences"])
        return {tap: codes.rows(first, end) for tap, codes in self._codes.items()}

    def lexical(
        self, hashes: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """All postings of the given terms.

        Args:
            hashes: Hashes [t] of terms, as `lexicon.term_hash` gives them.

        Returns:
            Sentence ordinals [n], ascending for each term; the index [n] into `hashes` that each
            belongs to; and the number of occurrences [n], at most 255.
        """
        return self._lexical.find(np.asarray(hashes, dtype=np.uint64))

    def text(self, first_sentence: int, last_sentence: int) -> str:
        """The text from the start of one sentence to the end of another, of the same document.

        Raises:
            IndexError: There are no such sentences.
            IndexStoreError: The text is not the one that was written.
        """
        first, last = self._sentence_range(first_sentence, last_sentence)
        # A sentence's checksum goes on from that of the one before, so that one look covers all.
        begin, crc = self._before(first_sentence)
        content = self._cut(self._text, tables.TEXT_FILE, begin, _byte_end(last))
        self._compare(tables.TEXT_FILE, content, int(last["crc32"]), crc)
        return self._decode(content[int(first["byte_start"]) - begin :], tables.TEXT_FILE)

    def token_starts(self, first_sentence: int, last_sentence: int) -> NDArray[np.uint32]:
        """Character starts [n] of the tokens from one sentence to another, of the same document.

        Raises:
            IndexError: There are no such sentences.
        """
        first, last = self._sentence_range(first_sentence, last_sentence)
        end = int(last["first_token"]) + int(last["n_tokens"])
        return self._cut(self._tokens, tables.TOKENS_FILE, int(first["first_token"]), end)

    def document(self, ordinal: int) -> DocumentRow:
        """Id, metadata and length of a document.

        Raises:
            IndexError: There is no such document.
        """
        record = self._document_record(ordinal)
        start = int(record["row_start"])
        line = self._cut(self._rows, tables.ROWS_FILE, start, start + int(record["row_bytes"]))
        self._compare(tables.ROWS_FILE, line, int(record["row_crc32"]))
        try:
            row = json.loads(line.tobytes())
            return DocumentRow(str(row["id"]), dict(row["metadata"]), int(row["characters"]))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise damaged(self._folder / tables.ROWS_FILE, error) from None

    def document_text(self, ordinal: int) -> str:
        """The whole text of a document.

        Raises:
            IndexError: There is no such document.
        """
        record = self._document_record(ordinal)
        start = int(record["byte_start"])
        content = self._cut(self._text, tables.TEXT_FILE, start, _byte_end(record))
        self._compare(tables.TEXT_FILE, content, int(record["text_crc32"]))
        return self._decode(content, tables.TEXT_FILE)

    def document_tokens(self, ordinal: int) -> NDArray[np.uint32]:
        """Character starts [n] of all tokens of a document.

        Raises:
            IndexError: There is no such document.
        """
        record = self._document_record(ordinal)
        first = int(record["first_token"])
        end = first + int(record["n_tokens"])
        return self._cut(self._tokens, tables.TOKENS_FILE, first, end)

    def live_documents(self) -> NDArray[np.int64]:
        """Ordinals [n] of the documents that are not deleted."""
        return np.arange(self.n_documents) if self.live is None else np.flatnonzero(self.live)

    def ids(self) -> list[str]:
        """Ids of all documents, deleted ones included; read once."""
        return self._ids

    @cached_property
    def sentence_tokens(self) -> NDArray[np.int64]:
        """Number of tokens of each sentence [n_sentences]."""
        return np.diff(self._first_token)

    @cached_property
    def _live_sentences(self) -> NDArray[np.bool_]:
        assert self.live is not None
        return np.repeat(self.live, self.documents["n_sentences"].astype(np.int64))

    @cached_property
    def _ids(self) -> list[str]:
        return [self.document(ordinal).id for ordinal in range(self.n_documents)]

    def _features(self, tap: str, features: NDArray[np.int64]) -> NDArray[np.int64]:
        features = np.asarray(features, dtype=np.int64)
        if features.size and not 0 <= features.min() <= features.max() < self.entry.features[tap]:
            raise IndexError(f"Tap {tap} has features 0..{self.entry.features[tap] - 1}.")
        return features

    def _check_order(self) -> None:
        """Postings are found through these tables: they must lead to nothing outside."""
        blocks, tokens = self._blocks, self._first_token
        for name, table, end in (
            (tables.BLOCKS_FILE, blocks, self.n_sentences),
            (tables.SENTENCES_FILE, tokens, self.n_tokens),
        ):
            if table.size == 0 or table[0] != 0 or table[-1] != end or (np.diff(table) <= 0).any():
                raise damaged(self._folder / name, "not in order")

    def _sentence_range(self, first: int, last: int) -> tuple[np.void, np.void]:
        if not 0 <= first <= last < self.n_sentences:
            raise IndexError(f"Segment {self.name} has no sentences {first}..{last}.")
        begin, end = self.sentences[first], self.sentences[last]
        if begin["document"] != end["document"]:
            raise IndexError(f"Sentences {first} and {last} are of different documents.")
        return begin, end

    def _before(self, sentence: int) -> tuple[int, int]:
        """Where the text ends that comes before a sentence in its document, and its checksum."""
        document = self.sentences[sentence]["document"]
        if sentence:
            before = self.sentences[sentence - 1]
            if before["document"] == document:
                return _byte_end(before), int(before["crc32"])
        return int(self._document_record(int(document))["byte_start"]), 0

    def _document_record(self, ordinal: int) -> np.void:
        if not 0 <= ordinal < self.n_documents:
            raise IndexError(f"Segment {self.name} has no document {ordinal}.")
        record: np.void = self.documents[ordinal]
        return record

    def _cut(self, content: NDArray[_T], name: str, start: int, end: int) -> NDArray[_T]:
        """A copy of a range that a table names, which may not be in the file if that is damaged."""
        if not start <= end <= len(content):
            raise damaged(self._folder / name, "a range beyond its end")
        return content[start:end].copy()

    def _compare(self, name: str, content: NDArray[np.uint8], crc32: int, before: int = 0) -> None:
        """Refuse bytes that are not those that were written; `before` is what precedes them."""
        if zlib.crc32(content.data, before) != crc32:
            raise damaged(self._folder / name, "what was read is not what its checksum says")

    def _decode(self, content: NDArray[np.uint8], name: str) -> str:
        try:
            return content.tobytes().decode()
        except UnicodeDecodeError as error:
            raise damaged(self._folder / name, error) from None


def _byte_end(record: np.void) -> int:
    """Where in the file the text of a sentence or a document ends."""
    return int(record["byte_start"]) + int(record["n_bytes"])


def _check_size(path: Path, size: int) -> None:
    with reading(path):
        actual = path.stat().st_size
    if actual != size:
        raise damaged(path, f"{actual} bytes where the manifest says {size}")
