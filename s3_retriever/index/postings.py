"""Feature postings of one tap: in which sentences, and on which of their tokens, each fires.

Postings are kept in blocks of whole sentences, sorted by feature, then sentence, then token. In a
block sentences are counted in 16 bits. Tokens are kept apart from them, as steps of one byte each:
scores by sentence, the usual ones, never read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from s3_retriever.errors import InputError
from s3_retriever.index.files import damaged
from s3_retriever.index.storage import ArrayWriter, Folder, ragged
from s3_retriever.index.tables import NEW_SENTENCE, STEP


def encode(
    gaps: NDArray[np.integer[Any]], begins: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Encode postings as deltas.

    Args:
        gaps: Tokens to advance to each posting [n], from its sentence's first token or from the
            posting before.
        begins: Whether a posting is the first of its sentence [n].

    Returns:
        The deltas, and for each posting where its deltas end [n].
    """
    sizes = gaps // STEP
    sizes += 1
    ends = np.cumsum(sizes, dtype=np.int64)
    deltas = np.full(int(ends[-1]) if ends.size else 0, STEP, dtype=np.uint8)
    deltas[ends - 1] = gaps % STEP
    deltas[ends[begins] - sizes[begins]] |= NEW_SENTENCE
    return deltas, ends


def starts_sentence(deltas: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """At which deltas a sentence begins [n]."""
    return deltas >= NEW_SENTENCE


def decode(
    deltas: NDArray[np.uint8], first_tokens: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Decode deltas to token positions.

    Args:
        deltas: Deltas [n] of whole sentences.
        first_tokens: The first token of each of their sentences.

    Returns:
        The tokens with a posting, and which of the deltas are postings [n].
    """
    begins = starts_sentence(deltas)
    number = np.cumsum(begins) - 1
    steps = (deltas & STEP).astype(np.int64)
    gone = np.cumsum(steps)
    before = (gone - steps)[begins]
    posted = steps < STEP
    tokens: NDArray[np.int64] = first_tokens[number] + gone - before[number]
    return tokens[posted], posted


class _Names(NamedTuple):
    """The files of a tap."""

    offsets: str
    sentences: str
    deltas: str
    frequencies: str

    @staticmethod
    def of(tap: str) -> _Names:
        return _Names(*(f"{tap}.{field}.npy" for field in _Names._fields))


# In the offsets: those of sentences, and those of deltas.
_SENTENCES, _DELTAS = 0, 1
_ALL = slice(None)

_Ints = NDArray[np.int64]
_Range = tuple[_Ints, _Ints]


class Postings:
    """The feature postings of one tap, opened for reading.

    Args:
        folder: The segment's folder.
        tap: Name of the tap.
        n_features: Size of the tap's dictionary.
        blocks: First sentence of each block, and the end, int64 [blocks + 1].
        first_token: First token of each sentence, and the end, int64 [sentences + 1].

    Raises:
        IndexStoreError: A file is missing or damaged; also from the methods.
    """

    def __init__(
        self,
        folder: Folder,
        tap: str,
        n_features: int,
        blocks: NDArray[np.int64],
        first_token: NDArray[np.int64],
    ) -> None:
        names = _Names.of(tap)
        self._path = folder.path(names.offsets)
        self._blocks = blocks
        self._first_token = first_token
        self._offsets = folder.array(names.offsets, np.uint32, (len(blocks) - 1, 2, n_features + 1))
        self._sizes = self._offsets[:, :, -1].astype(np.int64)
        self._bases = np.cumsum(self._sizes, axis=0) - self._sizes
        n_sentences, n_deltas = self._sizes.sum(axis=0).tolist()
        self._sentences = folder.array(names.sentences, np.uint16, (n_sentences,))
        self._deltas = folder.array(names.deltas, np.uint8, (n_deltas,))
        self._frequencies_path = folder.path(names.frequencies)
        self._frequencies = folder.array(names.frequencies, np.uint64, (n_features,))

    def frequencies(self, features: NDArray[np.int64]) -> NDArray[np.int64]:
        """On how many tokens each of the features [f] fires, int64 [f]."""
        counts = self._frequencies[features]
        if counts.size and counts.max() > self._first_token[-1]:
            raise damaged(self._frequencies_path, "more postings than tokens")
        return counts.astype(np.int64)

    def live_frequencies(
        self, features: NDArray[np.int64], live: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """The same over the tokens of some sentences: those with a flag, bool [sentences]."""
        from s3_retriever.index.kernels import count_tokens

        counts = np.zeros(len(features), dtype=np.int64)
        self._check(count_tokens(*self._postings(features), live, counts))
        return counts

    def add_to_sentences(
        self,
        features: NDArray[np.int64],
        weights: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        """Add a feature's weight to the score of every sentence in which it fires.

        Args:
            features: Features [f].
            weights: Weight of each [f].
            scores: Of all sentences [n]; changed.
        """
        # Loading numba takes a while, which only searches need to spend.
        from s3_retriever.index.kernels import add_to_sentences

        begin, end = self._range(_SENTENCES, features)
        self._check(add_to_sentences(self._sentences, begin, end, self._blocks, weights, scores))

    def in_sentences(
        self, features: NDArray[np.int64], sentences: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which of the features [f] fire in which of some sentences [n], ascending; bool [n, f]."""
        from s3_retriever.index.kernels import mark_features

        begin, end = self._range(_SENTENCES, features)
        fires = np.zeros((len(sentences), len(features)), dtype=np.bool_)
        mark_features(self._sentences, begin, end, self._blocks, sentences, fires)
        return fires

    def add_to_tokens(
        self,
        features: NDArray[np.int64],
        weights: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        """Add a feature's weight to the score of every token on which it fires.

        Args:
            features: Features [f].
            weights: Weight of each [f].
            scores: Of all tokens [n]; changed.
        """
        from s3_retriever.index.kernels import add_to_tokens

        self._check(add_to_tokens(*self._postings(features), self._first_token, weights, scores))

    def find(self, features: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All postings of the given features [f].

        Returns:
            Token positions [n], ascending for each feature, and the index [n] into `features`
            that each belongs to, ascending.
        """
        # Blocks follow each other within a feature.
        begin, end = (part.T for part in self._range(_SENTENCES, features))
        runs = (end - begin).ravel()
        firsts = np.tile(self._blocks[:-1], len(features))
        sentences = self._sentences[ragged(begin.ravel(), runs)] + np.repeat(firsts, runs)
        begin, end = (part.T for part in self._range(_DELTAS, features))
        deltas = self._deltas[ragged(begin.ravel(), (end - begin).ravel())]
        which = np.repeat(np.arange(len(features)), (end - begin).sum(axis=1))
        tokens, posted = self._tokens(sentences, deltas)
        return tokens, which[posted]

    def of_sentence(self, sentence: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Features of a sentence [f], ascending, and on how many of its tokens each fires [f]."""
        from s3_retriever.index.kernels import count_deltas

        block = int(np.searchsorted(self._blocks, sentence, side="right")) - 1
        base, size = int(self._bases[block, 0]), int(self._sizes[block, 0])
        number = sentence - int(self._blocks[block])
        postings = np.flatnonzero(self._sentences[base : base + size] == number)
        features = np.searchsorted(self._offsets[block, 0], postings, side="right") - 1
        here = slice(block, block + 1)
        (begin,), _ = self._range(_SENTENCES, features, here)
        (delta_begin,), (delta_end,) = self._range(_DELTAS, features, here)
        counts = np.zeros(len(features), dtype=np.int64)
        count_deltas(postings + base, begin, self._deltas, delta_begin, delta_end, counts)
        return features, counts

    def block(self, block: int) -> NDArray[np.int32]:
        """The features of the tokens of a block, as they were written.

        Args:
            block: Number of the block.

        Returns:
            Features [n, k], ascending, padded with -1; k is the most that any token has.
        """
        start, end = self._first_token[self._blocks[block : block + 2]]
        every = np.arange(self._offsets.shape[2] - 1)
        (begin,), (stop,) = self._range(_DELTAS, every, slice(block, block + 1))
        counts = stop - begin
        base, size = self._bases[block], self._sizes[block]
        sentences = self._sentences[base[0] : base[0] + size[0]] + self._blocks[block]
        tokens, posted = self._tokens(sentences, self._deltas[base[1] : base[1] + size[1]])
        features = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[posted]
        if ((tokens < start) | (tokens >= end)).any():
            raise damaged(self._path, f"block {block} is out of order")
        tokens -= start
        order = np.argsort(tokens, kind="stable")
        width = np.bincount(tokens, minlength=end - start)
        matrix = np.full((end - start, width.max(initial=0)), -1, dtype=np.int32)
        matrix[np.arange(matrix.shape[1]) < width[:, None]] = features[order]
        return matrix

    def _postings(
        self, features: NDArray[np.int64]
    ) -> tuple[NDArray[Any], _Ints, _Ints, NDArray[Any], _Ints, _Ints, _Ints]:
        """Sentences and deltas of features, as the kernels take them."""
        return (
            self._sentences,
            *self._range(_SENTENCES, features),
            self._deltas,
            *self._range(_DELTAS, features),
            self._blocks,
        )

    def _range(self, kind: int, features: NDArray[np.int64], blocks: slice = _ALL) -> _Range:
        """Where the sentences or the deltas of features begin and end, each int64 [blocks, f]."""
        offsets, sizes = self._offsets[blocks, kind], self._sizes[blocks, kind, None]
        # Not by numpy's take, which would copy all offsets first.
        begin = offsets[:, features].astype(np.int64)
        end = offsets[:, features + 1].astype(np.int64)
        if (begin > end).any() or (end > sizes).any():
            raise damaged(self._path, "offsets out of order")
        base = self._bases[blocks, kind, None]
        return begin + base, end + base

    def _tokens(
        self, sentences: NDArray[np.int64], deltas: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Positions of the tokens to which deltas lead, and which of the deltas are postings."""
        begins = starts_sentence(deltas)
        if (
            begins.sum() != len(sentences)
            or (begins.size and not begins[0])
            or (sentences.size and sentences.max() >= len(self._first_token) - 1)
        ):
            raise damaged(self._path, "postings out of order")
        tokens, posted = decode(deltas, self._first_token[sentences])
        if tokens.size and tokens.max() >= self._first_token[-1]:
            raise damaged(self._path, "positions beyond the last token")
        return tokens, posted

    def _check(self, in_order: bool) -> None:
        if not in_order:
            raise damaged(self._path, "postings out of order")


# A block has as many whole sentences as fit; a single longer sentence has a block of its own.
BLOCK_TOKENS = 1 << 16
_POSITION_BITS = 16
# Postings that are written at once, which bounds the memory that it takes.
_PART = 1 << 17


class PostingsWriter:
    """Collects the features of tokens and writes them block by block.

    Args:
        folder: The segment's folder.
        tap: Name of the tap.
        n_features: Size of the tap's dictionary.
    """

    def __init__(self, folder: Folder, tap: str, n_features: int) -> None:
        self.tap = tap
        self.n_features = n_features
        names = _Names.of(tap)
        self._sentences = ArrayWriter(folder, names.sentences, np.uint16)
        self._deltas = ArrayWriter(folder, names.deltas, np.uint8)
        self._offsets = ArrayWriter(folder, names.offsets, np.uint32, (2, n_features + 1))
        self._frequencies = ArrayWriter(folder, names.frequencies, np.uint64)
        self._counts = np.zeros(n_features, dtype=np.uint64)
        self._waiting: list[NDArray[np.int32]] = []

    def append(self, features: NDArray[np.int32]) -> None:
        """Take the features [n, k] of the next n tokens, padded with -1.

        Raises:
            InputError: The dictionary does not have a feature.
        """
        if features.size and not -1 <= features.min() <= features.max() < self.n_features:
            raise InputError(
                f"Tap {self.tap} gave a feature outside 0..{self.n_features - 1}; use the codebook "
                "that this index was made with."
            )
        self._waiting.append(features)

    def flush(self, lengths: Sequence[int]) -> None:
        """Write a block.

        Args:
            lengths: Number of tokens of each of its sentences, taken from the tokens that wait.
        """
        keys, bits = self._take(sum(lengths))
        within = _within(lengths)
        every = np.arange(self.n_features + 1, dtype=keys.dtype) << bits
        bounds = np.searchsorted(keys, every)
        # How many sentences and deltas come before each feature, and in the end.
        before = np.zeros((2, self.n_features + 1), dtype=np.int64)
        for first, end in _parts(bounds):
            wanted = np.arange(first, end, dtype=keys.dtype)
            until = self._write(keys[bounds[first] : bounds[end]], bits, within, wanted)
            before[:, first + 1 : end + 1] = before[:, first, None] + until
        self._offsets.append(before)
        self._counts += np.diff(bounds).astype(np.uint64)

    def _write(
        self, keys: NDArray[Any], bits: int, within: _Within, wanted: NDArray[Any]
    ) -> NDArray[np.int64]:
        """Write the postings of some features.

        Args:
            keys: As `_take` gives them.
            bits: As `_take` gives them.
            within: Of each token of the block.
            wanted: The features [f].

        Returns:
            Sentences and deltas up to the end of each feature [2, f].
        """
        features = keys >> bits
        tokens = keys & keys.dtype.type((1 << bits) - 1)
        sentences = within.sentence[tokens]
        new = np.ones(len(keys), dtype=np.bool_)
        new[1:] = (features[1:] != features[:-1]) | (sentences[1:] != sentences[:-1])
        gaps = np.diff(tokens, prepend=tokens[:1])
        gaps[new] = within.offset[tokens[new]]
        steps, ends = encode(gaps, new)
        self._sentences.append(sentences[new])
        self._deltas.append(steps)
        until = np.searchsorted(features, wanted, side="right")
        return np.stack([np.append(0, np.cumsum(new))[until], np.append(0, ends)[until]])

    def close(self) -> None:
        """Finish the files."""
        self._frequencies.append(self._counts)
        for file in self._files():
            file.close()

    def abort(self) -> None:
        """Close the files unfinished."""
        for file in self._files():
            file.abort()

    def _files(self) -> list[ArrayWriter]:
        return [self._sentences, self._deltas, self._offsets, self._frequencies]

    def _take(self, n: int) -> tuple[NDArray[Any], int]:
        """The first n tokens that wait, as `feature << bits | token`, sorted; and the bits."""
        # Sorting takes half the time in the smaller type.
        small = max(n, self.n_features + 1) <= 1 << _POSITION_BITS
        dtype = np.dtype(np.uint32 if small else np.int64)
        bits = _POSITION_BITS if small else 32
        keys: list[NDArray[Any]] = [np.empty(0, dtype=dtype)]
        at = 0
        while at < n:
            rows = self._waiting.pop(0)
            if len(rows) > n - at:
                self._waiting.insert(0, rows[n - at :])
                rows = rows[: n - at]
            fires = rows >= 0
            tokens = np.arange(at, at + len(rows), dtype=dtype)
            keys.append(((rows.astype(dtype) << bits) | tokens[:, None])[fires])
            at += len(rows)
        postings = np.concatenate(keys)
        postings.sort()
        # A feature fires at a token or does not: repetitions count once.
        if postings.size:
            postings = postings[np.append(True, postings[1:] != postings[:-1])]
        return postings, bits


class _Within(NamedTuple):
    """For each token of a block, its sentence's number and its offset in that sentence [n]."""

    sentence: NDArray[np.uint32]
    offset: NDArray[np.uint32]


def _within(lengths: Sequence[int]) -> _Within:
    starts = np.cumsum([0, *lengths])
    offset = np.arange(starts[-1], dtype=np.uint32)
    offset -= np.repeat(starts[:-1].astype(np.uint32), lengths)
    return _Within(np.repeat(np.arange(len(lengths), dtype=np.uint32), lengths), offset)


def _parts(bounds: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of features, each with about `_PART` postings; a feature with more gets its own."""
    first, last = 0, len(bounds) - 1
    while first < last:
        end = int(np.searchsorted(bounds, bounds[first] + _PART, side="right")) - 1
        end = max(end, first + 1)
        yield first, end
        first = end
