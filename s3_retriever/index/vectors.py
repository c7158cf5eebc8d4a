"""Codes of sentences: a row of bytes for each, in the order of sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s3_retriever.errors import InputError
from s3_retriever.index.arrays import ArrayWriter, open_array
from s3_retriever.quantization import weights_of


def _path(folder: Path, tap: str) -> Path:
    return folder / f"{tap}.codes.npy"


class CodesWriter:
    """Writes the codes of one tap.

    Args:
        folder: The segment's folder.
        tap: Name of the tap.
        size: Bytes of a code.
    """

    def __init__(self, folder: Path, tap: str, size: int) -> None:
        self.tap = tap
        self._size = size
        self._codes = ArrayWriter(_path(folder, tap), np.uint8, (size,))

    @property
    def count(self) -> int:
        """Number of sentences so far."""
        return self._codes.rows

    def append(self, codes: NDArray[np.uint8]) -> None:
        """Take the codes of further sentences [n, size].

        Raises:
            InputError: They are not of this tap's size.
        """
        if codes.shape != (len(codes), self._size):
            raise InputError(
                f"Tap {self.tap} gave {codes.shape[-1]} bytes for a sentence, not {self._size}; "
                "use the codebook that this index was made with."
            )
        self._codes.append(codes)

    def close(self) -> None:
        """Finish the file."""
        self._codes.close()

    def abort(self) -> None:
        """Close the file as it is."""
        self._codes.abort()


class SentenceCodes:
    """The codes of one tap of a segment, opened for reading.

    Args:
        folder: The segment's folder.
        tap: Name of the tap.
        shape: Number of sentences, and bytes of each.

    Raises:
        IndexStoreError: The file is missing or damaged.
    """

    def __init__(self, folder: Path, tap: str, shape: tuple[int, int]) -> None:
        self._codes = open_array(_path(folder, tap), np.uint8, shape)

    def likeness(self, direction: NDArray[np.float32]) -> NDArray[np.float64]:
        """The cosine of each sentence's mean state and a direction, float64 [n].

        Args:
            direction: Along the random axes [axes], of length 1, or 0 for nothing.
        """
        from s3_retriever.index.kernels import add_products

        weights, offset = weights_of(direction)
        scores = np.full(len(self._codes), offset)
        add_products(self._codes, weights, scores)
        return scores

    def rows(self, first: int, end: int) -> NDArray[np.uint8]:
        """The codes of some sentences, `first` to before `end`."""
        return self._codes[first:end]
