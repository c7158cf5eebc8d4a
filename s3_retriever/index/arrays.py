"""Arrays of an index: `.npy` files that are appended to once and memory-mapped ever after."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import ArrayLike, DTypeLike, NDArray

from s3_retriever.index.files import FileWriter, damaged, reading, writing

# A map holds a file descriptor for as long as it lives; small files are read instead, so that an
# index of many small segments stays within a process's limit.
MAP_BYTES = 1 << 16

# What numpy lets through when a header is not what it should be.
_HEADER_ERRORS = (
    ValueError,
    TypeError,
    SyntaxError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
    TokenError,
)


class ArrayWriter(FileWriter):
    """Writes an array row by row, in memory that does not grow with the number of rows.

    Args:
        path: A file that does not exist yet.
        dtype: Type of the elements.
        row: Shape of one row; empty for an array of one dimension.

    Raises:
        IndexStoreError: From every method: the file cannot be written.
    """

    def __init__(self, path: Path, dtype: DTypeLike, row: tuple[int, ...] = ()) -> None:
        super().__init__(path)
        self._dtype = np.dtype(dtype)
        self._row = row
        self.rows = 0
        self._write_header()

    def append(self, rows: ArrayLike) -> None:
        """Append rows [n, *row]."""
        array = np.ascontiguousarray(rows, dtype=self._dtype).reshape(-1, *self._row)
        self.write(array.tobytes())
        self.rows += len(array)

    def close(self) -> None:
        """Write the final shape and close the file."""
        with writing(self.path):
            self._file.seek(0)
            self._write_header()
        super().close()

    def _write_header(self) -> None:
        # numpy leaves room for the number of rows to grow: header and file stay aligned.
        with writing(self.path):
            write_array_header_1_0(
                self._file,
                {
                    "descr": np.lib.format.dtype_to_descr(self._dtype),
                    "fortran_order": False,
                    "shape": (self.rows, *self._row),
                },
            )


def open_array(path: Path, dtype: DTypeLike, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Open an array for reading.

    Args:
        path: A `.npy` file.
        dtype: The type that it must have.
        shape: The shape that it must have; None where any length will do.

    Raises:
        IndexStoreError: The file is missing or is no such array.
    """
    try:
        with reading(path):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _HEADER_ERRORS as error:
        raise damaged(path, error) from None
    if (
        not isinstance(array, np.ndarray)
        or array.dtype != np.dtype(dtype)
        or array.ndim != len(shape)
        or not array.flags.c_contiguous
        or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True))
    ):
        raise damaged(path, "not the array that belongs there")
    if array.nbytes >= MAP_BYTES:
        return np.asarray(array)
    array = np.array(array)
    array.flags.writeable = False
    return array


def open_bytes(path: Path) -> NDArray[np.uint8]:
    """Open a file of any kind as bytes [size].

    Raises:
        IndexStoreError: The file is missing or cannot be read.
    """
    with reading(path):
        if path.stat().st_size < MAP_BYTES:
            return np.fromfile(path, dtype=np.uint8)
        return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))


def ragged(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ranges `start, start + 1, ...` of the given lengths, one after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())
