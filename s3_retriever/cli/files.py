"""From paths on the command line to files, in a fixed order."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from s3_retriever.cli.console import warn
from s3_retriever.errors import InputError

_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__"})
# What every index folder has; its files are not the user's.
_INDEX_FILES = ("manifest.json", "write.lock")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read.

    Attributes:
        path: Where it is.
        named: Whether it was named, or met on the way through a folder.
    """

    path: Path
    named: bool

    @property
    def id(self) -> str:
        """Its path from the current folder, or from the root where it is outside."""
        path = Path(os.path.abspath(self.path))  # noqa: PTH100 - resolve() would follow links
        here = Path.cwd()
        return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()


def find_files(paths: Iterable[str]) -> list[FoundFile]:
    """All files that the paths stand for, each once.

    Hidden files, folders of packages and caches, and indexes are passed over on the way through
    folders. Links are followed; a folder that is reached twice is read once.

    Args:
        paths: Files, folders and globs.

    Raises:
        InputError: A path stands for nothing.
    """
    found: dict[str, FoundFile] = {}
    visited: set[tuple[int, int]] = set()
    for path in paths:
        for match in _matches(path):
            for file in _below(match, visited) if match.is_dir() else [FoundFile(match, True)]:
                found.setdefault(file.id, file)
    return list(found.values())


def _matches(path: str) -> list[Path]:
    """The path itself, or what it matches as a glob."""
    if os.path.lexists(path):
        matches = [Path(path)]
    else:
        matches = [Path(match) for match in sorted(glob.glob(path, recursive=True))]  # noqa: PTH207
    usable = [match for match in matches if match.is_file() or match.is_dir()]
    if not usable:
        raise InputError(f"There is no file or folder {path!r}; check the path.")
    return usable


def _below(folder: Path, visited: set[tuple[int, int]]) -> Iterator[FoundFile]:
    """The files of a folder and its folders, by name."""
    try:
        status = folder.stat()
        entries = sorted(folder.iterdir())
    except OSError as error:
        warn(f"{folder} is skipped: it cannot be read ({error.strerror}); check its permissions.")
        return
    identity = (status.st_dev, status.st_ino)
    if identity in visited or all((folder / name).is_file() for name in _INDEX_FILES):
        return
    visited.add(identity)
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _SKIPPED_FOLDERS:
            continue
        if entry.is_dir():
            yield from _below(entry, visited)
        elif entry.is_file():
            yield FoundFile(entry, named=False)
