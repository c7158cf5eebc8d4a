"""Feature postings of one tap: at which token positions does a feature fire?

Positions are kept in blocks of `BLOCK_TOKENS` tokens, in which they fit 16 bits. A block is sorted
by feature, then position; its row of offsets says where each feature's positions begin.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3_retriever.errors import InputError
from s3_retriever.index.arrays import ArrayWriter, open_array, ragged
from s3_retriever.index.files import damaged

BLOCK_TOKENS = 1 << 16
_POSITION_BITS = 16


class PostingsWriter:
    """Collects the features of tokens and writes a block whenever one is full.

    Args:
        folder: The segment's folder.
        tap: Name of the tap.
        n_features: Size of the tap's dictionary.
    """

    def __init__(self, folder: Path, tap: str, n_features: int) -> None:
        self.tap = tap
        self.n_features = n_features
        self._positions = ArrayWriter(folder / f"{tap}.positions.npy", np.uint16)
        self._offsets = ArrayWriter(folder / f"{tap}.offsets.npy", np.uint32, (n_features + 1,))
        # The numbers that are sorted, feature * 65,536 + position, in the smaller type that fits.
        small = n_features <= 1 << _POSITION_BITS
        self._key = np.dtype(np.uint32 if small else np.uint64)
        self._block: list[NDArray[Any]] = []
        self._filled = 0

    def append(self, features: NDArray[np.int32]) -> None:
        """Take the features [n, k] of the next n tokens; -1 stands for none.

        Raises:
            InputError: A feature that the dictionary does not have.
        """
        if features.size and not -1 <= features.min() <= features.max() < self.n_features:
            raise InputError(
                f"Tap {self.tap} gave a feature outside 0..{self.n_features - 1}; use the codebook "
                "that this index was made with."
            )
        while len(features):
            now, features = np.split(features, [BLOCK_TOKENS - self._filled])
            positions = np.arange(self._filled, self._filled + len(now), dtype=self._key)
            fires = now >= 0
            keys = (now.astype(self._key) << _POSITION_BITS) | positions[:, None]
            self._block.append(keys[fires])
            self._filled += len(now)
            if self._filled == BLOCK_TOKENS:
                self._flush()

    def close(self) -> None:
        """Write the last block and close the files."""
        if self._filled:
            self._flush()
        self._positions.close()
        self._offsets.close()

    def abort(self) -> None:
        """Close the files as they are."""
        self._positions.abort()
        self._offsets.abort()

    def _flush(self) -> None:
        keys = np.sort(np.concatenate(self._block))
        # A feature fires at a token or does not: repetitions count once.
        keys = keys[np.append(True, keys[1:] != keys[:-1])] if keys.size else keys
        counts = np.bincount((keys >> _POSITION_BITS).astype(np.int64), minlength=self.n_features)
        self._offsets.append(np.append(0, np.cumsum(counts)))
        self._positions.append(keys.astype(np.uint16))
        self._block.clear()
        self._filled = 0


class Postings:
    """The feature postings of one tap, opened for reading.

    Args:
        folder: The segment's folder.
        tap: Name of the tap.
        n_features: Size of the tap's dictionary.
        n_tokens: Number of tokens of the segment.

    Raises:
        IndexStoreError: A file is missing or damaged; also from the methods.
    """

    def __init__(self, folder: Path, tap: str, n_features: int, n_tokens: int) -> None:
        self._path = folder / f"{tap}.offsets.npy"
        self._n_tokens = n_tokens
        n_blocks = -(-n_tokens // BLOCK_TOKENS)
        self._offsets = open_array(self._path, np.uint32, (n_blocks, n_features + 1))
        self._sizes = self._offsets[:, -1].astype(np.int64)
        self._bases = np.cumsum(self._sizes) - self._sizes
        self._positions = open_array(
            folder / f"{tap}.positions.npy", np.uint16, (int(self._sizes.sum()),)
        )

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(self._sizes)

    def find(self, features: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All postings of the given features [f].

        Returns:
            Token positions [n], ascending for each feature, and the index [n] into `features`
            that each belongs to, ascending.
        """
        begin = np.take(self._offsets, features, axis=1).astype(np.int64).T
        lengths = np.take(self._offsets, features + 1, axis=1).astype(np.int64).T - begin
        if (lengths < 0).any() or (begin + lengths > self._sizes).any():
            raise damaged(self._path, "offsets out of order")
        runs = lengths.ravel()
        found = self._positions[ragged((begin + self._bases).ravel(), runs)]
        blocks = np.tile(np.arange(self.n_blocks) * BLOCK_TOKENS, len(features))
        positions = found + np.repeat(blocks, runs)
        if positions.size and positions.max() >= self._n_tokens:
            raise damaged(self._path, "positions beyond the last token")
        return positions, np.repeat(np.arange(len(features)), lengths.sum(axis=1))

    def block(self, block: int) -> NDArray[np.int32]:
        """The features of a block's tokens, as they were written.

        Args:
            block: Number of the block: tokens `block * BLOCK_TOKENS` and on.

        Returns:
            Features [n, k], ascending, padded with -1; k is the most that any token has.
        """
        n = min(self._n_tokens - block * BLOCK_TOKENS, BLOCK_TOKENS)
        base = self._bases[block]
        positions = self._positions[base : base + self._sizes[block]]
        counts = np.diff(self._offsets[block].astype(np.int64))
        if (counts < 0).any() or counts.sum() != len(positions) or (positions >= n).any():
            raise damaged(self._path, f"block {block} is out of order")
        order = np.argsort(positions, kind="stable")
        features = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[order]
        width = np.bincount(positions, minlength=n)
        matrix = np.full((n, width.max(initial=0)), -1, dtype=np.int32)
        matrix[np.arange(matrix.shape[1]) < width[:, None]] = features
        return matrix
