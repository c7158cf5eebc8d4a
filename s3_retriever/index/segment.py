"""A segment, opened for reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3_retriever.index import tables
from s3_retriever.index.columns import Column
from s3_retriever.index.documents import DocumentRow, Documents
from s3_retriever.index.files import damaged
from s3_retriever.index.manifest import SegmentEntry
from s3_retriever.index.segment_files import SegmentFiles, read_live
from s3_retriever.index.storage import Folder
from s3_retriever.quantization import cosine_weights


class Segment:
    """Whole documents in order: their text, sentences, tokens and postings. Never changes.

    Tokens, sentences and documents are counted from 0 within the segment, and deleted documents
    keep their numbers. The files stay open: a segment outlives its removal from the index.

    Args:
        folder: The segment's folder.
        entry: Its entry in the manifest.
        known: A segment that may differ in deleted documents alone; then its open files and what
            was derived from them are shared.

    Attributes:
        name: Name of the segment.
        entry: Its entry in the manifest.
        sentences: Table of sentences [n_sentences], fields as in `tables.SENTENCE`. In order, their
            tokens are all tokens of the segment.
        documents: Table of documents [n_documents], fields as in `tables.DOCUMENT`.
        blocks: The first sentence of each block of feature postings, and the end, int64
            [blocks + 1].
        live: For every document whether it is not deleted [n_documents]; None if all are live.

    Raises:
        IndexStoreError: A file is missing or damaged; also from the methods.
    """

    def __init__(self, folder: Folder, entry: SegmentEntry, known: Segment | None = None) -> None:
        self.name = entry.name
        self.entry = entry
        self._files: SegmentFiles = (
            known._files
            if known and known.entry.without_tombstones() == entry.without_tombstones()
            else SegmentFiles(folder, entry)
        )
        self.sentences = self._files.sentences
        self.documents = self._files.documents.table
        self.blocks = self._files.blocks
        self.live = read_live(folder, entry)
        self._taps = self._files.taps
        # Made when first needed, as dictionaries may be large.
        self._live_frequencies: dict[str, NDArray[np.int64]] = {}

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
    def n_live_documents(self) -> int:
        """Number of documents that are not deleted."""
        return self.entry.documents - self.entry.deleted

    @cached_property
    def n_live_tokens(self) -> int:
        """Number of tokens of the documents that are not deleted."""
        tokens = self._files.document_tokens
        return self.n_tokens if self.live is None else int(tokens[self.live].sum())

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
        if tap not in self._live_frequencies:
            size = self.entry.features[tap]
            self._live_frequencies[tap] = np.full(size, -1, dtype=np.int64)
        known = self._live_frequencies[tap]
        new = features[known[features] < 0]
        if new.size:
            known[new] = self._taps[tap].live_frequencies(new, self.live_sentences)
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
        """Add a feature's weight to the score of every token [n_tokens] on which it fires."""
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

    def block_features(self, tap: str, block: int) -> NDArray[np.int32]:
        """The features of a block of tokens.

        Returns:
            Features [n, k], ascending, padded with -1; k is the most that any of the tokens has.

        Raises:
            KeyError: The segment has no such tap.
        """
        return self._taps[tap].block(block)

    def similarity(self, direction: NDArray[np.float32]) -> NDArray[np.float64]:
        """The cosine of each sentence's vector and a direction, float64 [n_sentences].

        Args:
            direction: Along the axes of the sentence vectors [axes], of unit length, or 0 for none.

        Raises:
            KeyError: The segment has no sentence vectors.
            IndexError: They have another number of axes.
        """
        from s3_retriever.index.kernels import add_products

        weights, offset = cosine_weights(direction)
        vectors = self.vectors(0, self.n_sentences)
        if weights.shape[1] != vectors.shape[1]:  # the compiled loop would read past the weights
            raise IndexError(f"Segment {self.name} has vectors of {vectors.shape[1]} bytes.")
        scores = np.full(self.n_sentences, offset)
        add_products(vectors, weights, scores)
        return scores

    def vectors(self, first_sentence: int, end: int) -> NDArray[np.uint8]:
        """Quantized vectors [n, bytes] of the sentences from `first_sentence` to before `end`.

        Raises:
            KeyError: The segment has no sentence vectors.
        """
        if self._files.vectors is None:
            raise KeyError(f"Segment {self.name} has no sentence vectors.")
        return self._files.vectors[first_sentence:end]

    def keys(self, head: str, start: int, end: int) -> NDArray[np.uint8]:
        """Quantized keys [n, bytes] of the tokens from position `start` to before `end`.

        Raises:
            KeyError: The segment has no keys of that head.
        """
        return self._files.keys[head][start:end]

    def lexical(
        self, hashes: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """All postings of the given terms.

        Args:
            hashes: Hashes [t] of terms, as `text.term_hash` gives them.

        Returns:
            Sentence ordinals [n], ascending for each term; the index [n] into `hashes` that each
            belongs to; and the number of occurrences [n], at most 255.
        """
        return self._files.lexical.find(np.asarray(hashes, dtype=np.uint64))

    def lexical_blocks(
        self,
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint8]]]:
        """All lexical postings, in blocks of whole sentences.

        Yields:
            Sentence ordinals [n], ascending; the term hash of each; and the number of
            occurrences, at most 255.
        """
        return self._files.lexical.blocks()

    def text(self, first_sentence: int, last_sentence: int) -> str:
        """The text from the start of one sentence to the end of another, of the same document.

        Raises:
            IndexError: There are no such sentences.
            IndexStoreError: The text does not match its checksum.
        """
        first, last = self._sentence_range(first_sentence, last_sentence)
        # A sentence's checksum continues the previous one, so a single comparison covers them all.
        begin, crc = self._before(first_sentence)
        return self._files.documents.read_text(
            begin,
            _byte_end(last),
            int(last["crc32"]),
            before=crc,
            skip=int(first["byte_start"]) - begin,
        )

    def texts(self, sentences: NDArray[np.int64]) -> list[str]:
        """The texts of single sentences [n]; quicker than one call of `text` for each.

        Raises:
            IndexError: There is no such sentence.
            IndexStoreError: A text does not match its checksum.
        """
        rows, before = self.sentences[sentences], self.sentences[np.maximum(sentences - 1, 0)]
        follows = (sentences > 0) & (before["document"] == rows["document"])
        documents = self.documents["byte_start"][rows["document"]]
        begins = np.where(follows, before["byte_start"] + before["n_bytes"], documents)
        columns = (
            begins,
            rows["byte_start"] + rows["n_bytes"],
            rows["crc32"],
            np.where(follows, before["crc32"], 0),
            rows["byte_start"] - begins,
        )
        read = self._files.documents.read_text
        return [
            read(begin, end, crc, before=crc_before, skip=skip)
            for begin, end, crc, crc_before, skip in np.array(columns, dtype=np.uint64).T.tolist()
        ]

    def token_starts(self, first_sentence: int, last_sentence: int) -> NDArray[np.uint32]:
        """Character starts [n] of the tokens from one sentence to another, of the same document.

        Raises:
            IndexError: There are no such sentences.
        """
        first, last = self._sentence_range(first_sentence, last_sentence)
        end = int(last["first_token"]) + int(last["n_tokens"])
        return self.tokens(int(first["first_token"]), end)

    def tokens(self, start: int, end: int) -> NDArray[np.uint32]:
        """Character starts [n] of the tokens from position `start` to before `end`."""
        if not 0 <= start <= end <= self.n_tokens:
            raise damaged(self._files.folder.path(tables.TOKENS_FILE), "a range beyond its end")
        return self._files.tokens[start:end].copy()

    def find(self, document_id: str) -> int | None:
        """Ordinal of the live document with this id, or None."""
        ordinal = self._files.documents.find(document_id)
        dead = ordinal is not None and self.live is not None and not self.live[ordinal]
        return None if dead else ordinal

    def document(self, ordinal: int) -> DocumentRow:
        """Id, metadata and length of a document.

        Raises:
            IndexError: There is no such document.
        """
        self._document_record(ordinal)
        return self._files.documents.row(ordinal)

    def document_text(self, ordinal: int) -> str:
        """The whole text of a document.

        Raises:
            IndexError: There is no such document.
        """
        self._document_record(ordinal)
        return self._files.documents.text(ordinal)

    def live_documents(self) -> NDArray[np.int64]:
        """Ordinals [n] of the documents that are not deleted."""
        return np.arange(self.n_documents) if self.live is None else np.flatnonzero(self.live)

    def ids(self) -> list[str]:
        """Ids of all documents, deleted ones included."""
        return self._files.documents.ids()

    def metadata(self, ordinal: int) -> Mapping[str, Any]:
        """Metadata of a document, read only; that of all documents is kept in memory."""
        return self._files.documents.metadata(ordinal)

    def column(self, key: str) -> Column | None:
        """The values that documents, deleted ones included, have for a metadata key, if any."""
        return self._files.documents.column(key)

    @property
    def metadata_keys(self) -> frozenset[str]:
        """Keys that the metadata of any document has; those within mappings with a dot."""
        return self._files.documents.metadata_keys

    @property
    def sentence_tokens(self) -> NDArray[np.int64]:
        """Number of tokens of each sentence [n_sentences]."""
        return self._files.sentence_tokens

    @property
    def documents_reader(self) -> Documents:
        """The documents, for a merge to copy."""
        return self._files.documents

    @cached_property
    def live_sentences(self) -> NDArray[np.bool_]:
        """For every sentence whether its document is not deleted [n_sentences]."""
        if self.live is None:
            return np.ones(self.n_sentences, dtype=np.bool_)
        return np.repeat(self.live, self.documents["n_sentences"].astype(np.int64))

    def _features(self, tap: str, features: NDArray[np.int64]) -> NDArray[np.int64]:
        features = np.asarray(features, dtype=np.int64)
        if features.size and not 0 <= features.min() <= features.max() < self.entry.features[tap]:
            raise IndexError(f"Tap {tap} has features 0..{self.entry.features[tap] - 1}.")
        return features

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


def _byte_end(record: np.void) -> int:
    """Where in the file the text of a sentence or a document ends."""
    return int(record["byte_start"]) + int(record["n_bytes"])
