"""Lexical postings: in which sentences a term occurs, and how often.

Terms are 64-bit hashes, which need no dictionary. Postings are written in blocks, each sorted by
(term, sentence): `terms` has the terms of block after block, `blocks` the first term of every
block, `offsets` the first posting of every term (both with a final end).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from s3_retriever.index.files import damaged
from s3_retriever.index.storage import ArrayWriter, Folder, ragged

BLOCK_ENTRIES = 1 << 18
MAX_COUNT = 255

_DTYPES = {
    "terms": np.uint64,
    "offsets": np.uint64,
    "blocks": np.uint64,
    "sentences": np.uint32,
    "counts": np.uint8,
}


def _file(name: str) -> str:
    return f"lexical.{name}.npy"


class LexicalWriter:
    """Collects the terms of sentences and writes a block whenever one is full.

    Args:
        folder: The segment's folder.
    """

    def __init__(self, folder: Folder) -> None:
        self._files = {
            name: ArrayWriter(folder, _file(name), dtype) for name, dtype in _DTYPES.items()
        }
        self._files["offsets"].append(0)
        self._files["blocks"].append(0)
        self._terms = array("Q")
        self._sentences = array("I")
        self._counts = array("B")

    def append(self, sentence: int, counts: Mapping[int, int]) -> None:
        """Take the terms of a sentence: hash to number of occurrences (kept up to 255)."""
        self._terms.extend(counts)
        self._sentences.extend([sentence] * len(counts))
        self._counts.extend(min(count, MAX_COUNT) for count in counts.values())
        if len(self._terms) >= BLOCK_ENTRIES:
            self._flush()

    def extend(
        self, sentences: NDArray[np.int64], terms: NDArray[np.uint64], counts: NDArray[np.uint8]
    ) -> None:
        """Take postings [n] of whole sentences, ascending by sentence."""
        ends = np.append(np.flatnonzero(np.diff(sentences)) + 1, len(sentences))
        start = 0
        while start < len(sentences):
            # A block ends with the sentence that fills it, as in `append`.
            room = BLOCK_ENTRIES - len(self._terms)
            end = int(ends[min(int(np.searchsorted(ends, start + room)), len(ends) - 1)])
            self._terms.frombytes(terms[start:end].tobytes())
            self._sentences.frombytes(sentences[start:end].astype(np.uint32).tobytes())
            self._counts.frombytes(counts[start:end].tobytes())
            if len(self._terms) >= BLOCK_ENTRIES:
                self._flush()
            start = end

    def close(self) -> None:
        """Write the last block and close the files."""
        if self._terms:
            self._flush()
        for file in self._files.values():
            file.close()

    def abort(self) -> None:
        """Close the files unfinished."""
        for file in self._files.values():
            file.abort()

    def _flush(self) -> None:
        terms = np.frombuffer(self._terms, dtype=np.uint64)
        order = np.argsort(terms, kind="stable")  # sentences arrive in ascending order
        unique, first = np.unique(terms[order], return_index=True)
        ends = np.append(first[1:], len(terms)) + self._files["sentences"].rows
        self._files["terms"].append(unique)
        self._files["offsets"].append(ends)
        self._files["blocks"].append(self._files["terms"].rows)
        self._files["sentences"].append(np.frombuffer(self._sentences, dtype=np.uint32)[order])
        self._files["counts"].append(np.frombuffer(self._counts, dtype=np.uint8)[order])
        self._terms, self._sentences, self._counts = array("Q"), array("I"), array("B")


class Lexical:
    """The lexical postings of a segment, opened for reading.

    Args:
        folder: The segment's folder.
        n_sentences: Number of sentences of the segment.

    Raises:
        IndexStoreError: A file is missing or damaged; also from the methods.
    """

    def __init__(self, folder: Folder, n_sentences: int) -> None:
        self._path = folder.path(_file("offsets"))
        self._n_sentences = n_sentences
        arrays = {
            name: folder.array(_file(name), dtype, (None,)) for name, dtype in _DTYPES.items()
        }
        self._terms, self._offsets = arrays["terms"], arrays["offsets"]
        self._sentences, self._counts = arrays["sentences"], arrays["counts"]
        self._blocks = arrays["blocks"].astype(np.int64)
        if (
            len(self._offsets) != len(self._terms) + 1
            or self._blocks.size == 0
            or self._blocks[-1] != len(self._terms)
            or (np.diff(self._blocks, prepend=0) < 0).any()
            or len(self._counts) != len(self._sentences)
        ):
            raise damaged(self._path, "tables of different lengths")

    def find(
        self, terms: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """All postings of the given term hashes [t].

        Returns:
            Sentence ordinals [n], ascending for each term; the index [n] into `terms` that each
            belongs to; and the number of occurrences [n], at most 255.
        """
        rows, which = self._rows(terms)
        entries, lengths = self._entries(rows)
        sentences, counts = self._postings(entries)
        return sentences, np.repeat(which, lengths), counts.astype(np.int64)

    def blocks(
        self,
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint8]]]:
        """All postings in blocks, each ascending by sentence, as `LexicalWriter.extend` takes."""
        for first, end in zip(self._blocks[:-1], self._blocks[1:], strict=True):
            entries, lengths = self._entries(np.arange(first, end))
            sentences, counts = self._postings(entries)
            order = np.argsort(sentences, kind="stable")
            terms = np.repeat(self._terms[first:end], lengths)
            yield sentences[order], terms[order], counts[order]

    def _entries(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the postings of rows of the table of terms are [n], and how many of each [r]."""
        begin = self._offsets[rows].astype(np.int64)
        lengths = self._offsets[rows + 1].astype(np.int64) - begin
        if ((begin < 0) | (lengths < 0) | (begin + lengths > len(self._sentences))).any():
            raise damaged(self._path, "offsets out of order")
        return ragged(begin, lengths), lengths

    def _postings(self, entries: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        sentences = self._sentences[entries].astype(np.int64)
        if sentences.size and sentences.max() >= self._n_sentences:
            raise damaged(self._path, "postings beyond the last sentence")
        return sentences, self._counts[entries]

    def _rows(self, terms: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the terms in the table of terms, block after block, and which term each is."""
        rows = [np.empty(0, dtype=np.int64)]
        which = [np.empty(0, dtype=np.int64)]
        for first, end in zip(self._blocks[:-1], self._blocks[1:], strict=True):
            block = self._terms[first:end]
            at = np.searchsorted(block, terms)
            (hits,) = np.nonzero(at < len(block))
            hits = hits[block[at[hits]] == terms[hits]]
            rows.append(first + at[hits])
            which.append(hits)
        return np.concatenate(rows), np.concatenate(which)
