"""Where a segment's files are, on disk or in memory, and how arrays are written to them.

Both kinds of folder hold the same bytes: arrays in numpy's `.npy` format, written once from front
to back, then only read.
"""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections.abc import Container
from pathlib import Path, PurePath
from tokenize import TokenError
from typing import Any, BinaryIO
from weakref import WeakSet

import numpy as np
from numpy.lib import format as npy
from numpy.typing import ArrayLike, DTypeLike, NDArray

from s3_retriever.errors import brief
from s3_retriever.index.files import checksum, damaged, reading, writing
from s3_retriever.index.manifest import FileEntry
from s3_retriever.paths import regular_size
from s3_retriever.processes import renew_after_fork

# A map holds a file descriptor for as long as it lives. Smaller files are read instead, which
# keeps an index of many small segments within a process's limit.
MAP_BYTES = 1 << 16

# In memory nothing is compared with checksums, so none are computed.
_NO_CHECKSUM = "0" * 64

# numpy parses headers as Python, which fails now and then in several threads of CPython 3.11
# ("AST constructor recursion depth mismatch").
_PARSING = threading.Lock()

_BEING_WRITTEN: WeakSet[BinaryIO] = WeakSet()


def _renew() -> None:
    """In a forked child, free the lock, and leave the files that the parent is writing alone."""
    global _PARSING
    _PARSING = threading.Lock()
    files = [file for file in _BEING_WRITTEN if not file.closed]
    if files:
        # What the child still has in its buffers would end up in the parent's files.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for file in files:
            os.dup2(nowhere, file.fileno(), inheritable=False)
        os.close(nowhere)


renew_after_fork(_renew)

# What numpy raises when a header is not what it should be.
_HEADER_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    SyntaxError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
    TokenError,
)


class DiskFolder:
    """A segment's folder on disk, whose arrays are memory-mapped.

    Args:
        location: The folder; it is made with its first file.

    Attributes:
        name: The segment's name.
        location: The folder.

    Raises:
        IndexStoreError: From the methods: a file cannot be written, is missing or damaged.
    """

    def __init__(self, location: Path) -> None:
        self.name = location.name
        self.location = location

    def path(self, name: str) -> PurePath:
        """How messages name a file."""
        return self.location / name

    def create(self, name: str) -> BinaryIO:
        """Begin a file that does not exist yet."""
        path = self.location / name
        with writing(path):
            self.location.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        _BEING_WRITTEN.add(file)
        return file

    def array(self, name: str, dtype: DTypeLike, shape: tuple[int | None, ...]) -> NDArray[Any]:
        """Open an array for reading.

        Args:
            name: A `.npy` file.
            dtype: The type that it must have.
            shape: The shape that it must have; None where any length will do.
        """
        path = self.location / name
        try:
            with reading(path), _PARSING:
                regular_size(path)
                array = npy.open_memmap(path, mode="r")
        except _HEADER_ERRORS as error:
            raise damaged(path, brief(error)) from None
        _check_array(array, path, dtype, shape)
        return np.asarray(array) if array.nbytes >= MAP_BYTES else _read_only(np.array(array))

    def bytes(self, name: str) -> NDArray[np.uint8]:
        """Open a file of any kind as bytes [size]."""
        path = self.location / name
        with reading(path):
            if regular_size(path) < MAP_BYTES:
                return np.fromfile(path, dtype=np.uint8)
            return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))

    def entry(self, name: str) -> FileEntry:
        """Describe a file for the manifest."""
        path = self.location / name
        with writing(path):
            return FileEntry(bytes=path.stat().st_size, sha256=checksum(path))

    def entries(self) -> dict[str, FileEntry]:
        """Describe all files, by name."""
        with writing(self.location):
            names = sorted(path.name for path in self.location.iterdir())
        return {name: self.entry(name) for name in names}

    def remove(self) -> None:
        """Remove the folder, as far as possible."""
        shutil.rmtree(self.location, ignore_errors=True)


class MemoryFolder:
    """A segment's files in memory, where nothing is copied to be read. Else as `DiskFolder`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._files: dict[str, _MemoryFile] = {}

    def path(self, name: str) -> PurePath:
        """How messages name a file."""
        return PurePath("memory", self.name, name)

    def create(self, name: str) -> BinaryIO:
        """Begin a file."""
        file = self._files[name] = _MemoryFile()
        return file

    def array(self, name: str, dtype: DTypeLike, shape: tuple[int | None, ...]) -> NDArray[Any]:
        """Open an array for reading."""
        content = self.bytes(name)
        header = io.BytesIO(content[:_LARGEST_HEADER].tobytes())
        npy.read_magic(header)
        with _PARSING:
            lengths, _, stored = npy.read_array_header_1_0(header)
        array = content[header.tell() :].view(stored).reshape(lengths)
        _check_array(array, self.path(name), dtype, shape)
        return array

    def bytes(self, name: str) -> NDArray[np.uint8]:
        """Open a file of any kind as bytes [size]."""
        file = self._files.get(name)
        if file is None:
            raise damaged(self.path(name), "missing")
        return _read_only(np.frombuffer(file.getbuffer(), dtype=np.uint8))

    def entry(self, name: str) -> FileEntry:
        """Describe a file for the manifest."""
        return FileEntry(bytes=self._files[name].getbuffer().nbytes, sha256=_NO_CHECKSUM)

    def entries(self) -> dict[str, FileEntry]:
        """Describe all files, by name."""
        return {name: self.entry(name) for name in sorted(self._files)}

    def remove(self) -> None:
        """Let go of the files; arrays that are open stay."""
        self.keep(())

    def keep(self, names: Container[str]) -> None:
        """Let go of all files but those named."""
        self._files = {name: file for name, file in self._files.items() if name in names}


Folder = DiskFolder | MemoryFolder

_LARGEST_HEADER = 1 << 12


class _MemoryFile(io.BytesIO):
    """A file whose content outlives its being closed."""

    def close(self) -> None:
        """Keep the content."""


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _check_array(
    array: Any, path: PurePath, dtype: DTypeLike, shape: tuple[int | None, ...]
) -> None:
    if (
        not isinstance(array, np.ndarray)
        or array.dtype != np.dtype(dtype)
        or array.ndim != len(shape)
        or not array.flags.c_contiguous
        or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True))
    ):
        raise damaged(path, "not the array that belongs there")


class FileWriter:
    """Writes a file from front to back.

    Args:
        folder: The folder.
        name: A file that does not exist yet.

    Raises:
        IndexStoreError: From every method: the file cannot be written.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._path = folder.path(name)
        self._file = folder.create(name)
        self.size = 0

    def write(self, content: bytes) -> None:
        """Append bytes."""
        with writing(self._path):
            self.size += self._file.write(content)

    def close(self) -> None:
        """Write what is left and close the file."""
        with writing(self._path):
            self._file.close()

    def abort(self) -> None:
        """Close the file unfinished."""
        try:
            self._file.close()
        except OSError:
            # The disk took no more; the file is about to be removed.
            return


class ArrayWriter(FileWriter):
    """Writes an array row by row, in memory that does not grow with the number of rows.

    Args:
        folder: The folder.
        name: A `.npy` file that does not exist yet.
        dtype: Type of the elements.
        row: Shape of one row; empty for an array of one dimension.
    """

    def __init__(
        self, folder: Folder, name: str, dtype: DTypeLike, row: tuple[int, ...] = ()
    ) -> None:
        super().__init__(folder, name)
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
        with writing(self._path):
            self._file.seek(0)
            self._write_header()
        super().close()

    def _write_header(self) -> None:
        # numpy leaves room for the number of rows to grow: header and file stay aligned.
        with writing(self._path):
            npy.write_array_header_1_0(
                self._file,
                {
                    "descr": npy.dtype_to_descr(self._dtype),
                    "fortran_order": False,
                    "shape": (self.rows, *self._row),
                },
            )


def ragged(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenate the ranges `start, start + 1, ...` of the given lengths."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())
