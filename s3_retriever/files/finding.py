"""From paths to files: folders with everything below them, and globs."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from s3_retriever.errors import InputError
from s3_retriever.types import check_items, check_path

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__"})
# Every index folder has these; its files are not documents.
_INDEX_FILES = ("manifest.json", "write.lock")
_IGNORE_FILE = ".gitignore"
_MAX_IGNORE_BYTES = 1 << 20
_MAX_STARS = 3


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read.

    Attributes:
        path: Where it is.
        named: Whether it was named itself, rather than a folder above it.
    """

    path: Path
    named: bool


@dataclass(slots=True)
class FoundFiles:
    """The files below paths.

    Attributes:
        files: Each once, in order.
        folders: The folders that were named; all that is below them was looked at.
        skipped: What could not be looked at or was not followed, with the reason.
    """

    files: list[FoundFile] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)


def find_files(paths: Iterable[str | Path] | str | Path) -> FoundFiles:
    """Find all files that the paths name, each once.

    Inside folders these are left out: hidden files, what a `.gitignore` there or above it in the
    same repository names, packages, caches, indexes, and links that lead out of the folder. A file
    or folder that is named itself is read in any case.

    Args:
        paths: Files, folders and globs.

    Raises:
        InputError: A path matches nothing, or is of another type.
    """
    found = FoundFiles()
    seen: set[str] = set()
    for path in check_items(paths, "paths", (str, os.PathLike)):
        for match in _matches(str(check_path(path))):
            if match.is_dir():
                found.folders.append(match)
                files = _Walk(match, found.skipped).files()
            else:
                files = iter([FoundFile(match, named=True)])
            for file in files:
                if (real := os.path.realpath(file.path)) not in seen:
                    seen.add(real)
                    found.files.append(file)
    return found


def real_path(path: Path) -> Path:
    """The absolute path of a file: links in its folders are followed, its own name is kept."""
    return Path(os.path.realpath(path.parent)) / path.name


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


class _Walk:
    """The files below one folder.

    Args:
        root: The folder.
        skipped: Takes what is skipped, with the reason.
    """

    def __init__(self, root: Path, skipped: dict[Path, str]) -> None:
        self._root = root
        self._real = Path(os.path.realpath(root))
        self._skipped = skipped
        self._visited: set[str] = set()
        self._links: list[Path] = []
        self._ignored = _Ignored(self._real)

    def files(self) -> Iterator[FoundFile]:
        """The files, sorted by name in every folder; then those that links inside lead to."""
        yield from self._below(self._root)
        # Whatever a link leads to inside is mostly found without it.
        while self._links:
            link = self._links.pop(0)
            target = Path(os.path.realpath(link))
            if not target.is_relative_to(self._real):
                if target.exists():
                    self._skipped[link] = "it is a link out of the folder; name it to read it."
            elif target.is_dir():
                yield from self._below(link)
            elif target.is_file():
                yield FoundFile(link, named=False)

    def _below(self, root: Path) -> Iterator[FoundFile]:
        """Files of a folder and its subfolders; uses a stack, because these nest without limit."""
        stack = [root]
        while stack:
            path = stack.pop()
            if path is not root and not path.is_dir():
                yield FoundFile(path, named=False)
                continue
            stack += reversed(self._entries(path))

    def _entries(self, folder: Path) -> list[Path]:
        """The files and folders to read in a folder; links wait for later."""
        real = os.path.realpath(folder)
        if real in self._visited or all((folder / name).is_file() for name in _INDEX_FILES):
            return []
        self._visited.add(real)
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            self._skipped[folder] = f"it cannot be read ({error.strerror}); check its permissions."
            return []
        self._ignored.enter(Path(real))
        chosen: list[Path] = []
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _SKIPPED_FOLDERS:
                continue
            is_folder = entry.is_dir()
            if not is_folder and not entry.is_file():
                continue
            if not self._ignored.covers(Path(real) / entry.name, is_folder):
                (self._links if entry.is_symlink() else chosen).append(entry)
        return chosen


class _Ignored:
    """What the `.gitignore` files of a folder, its subfolders and its repository name.

    Args:
        root: The folder, without links.
    """

    def __init__(self, root: Path) -> None:
        self._specs: dict[Path, GitIgnoreSpec] = {}
        for folder in _above(root):
            self.enter(folder)
        # A folder that its repository ignores is wanted all the same if it is named itself.
        if any(self.covers(path, is_folder=True) for path in [root, *_above(root)]):
            self._specs.clear()

    def enter(self, folder: Path) -> None:
        """Read the `.gitignore` of a folder, if it has one."""
        path = folder / _IGNORE_FILE
        try:
            if not path.is_file():  # a pipe would block
                return
            with path.open("rb") as file:
                content = file.read(_MAX_IGNORE_BYTES)
        except OSError:
            return
        from pathspec import GitIgnoreSpec

        lines = content.decode(errors="replace").removeprefix("\ufeff").splitlines()
        self._specs[folder] = GitIgnoreSpec.from_lines(filter(_is_pattern, lines))

    def covers(self, path: Path, is_folder: bool) -> bool:
        """Whether a path is ignored: the nearest file with a pattern that matches it decides."""
        if not self._specs:
            return False
        for folder in path.parents:
            if spec := self._specs.get(folder):
                name = path.relative_to(folder).as_posix() + ("/" if is_folder else "")
                ignored = spec.check_file(name).include
                if ignored is not None:
                    return ignored
        return False


def _above(root: Path) -> list[Path]:
    """The folders above a folder up to that of its Git repository; none outside repositories."""
    above: list[Path] = []
    for folder in root.parents if not (root / ".git").exists() else ():
        above.append(folder)
        if (folder / ".git").exists():
            return above
    return []


def _is_pattern(line: str) -> bool:
    """Whether a line of a `.gitignore` is a pattern to heed; Git too passes over invalid ones."""
    from pathspec import GitIgnoreSpec

    # Each further star multiplies the time to match a long name.
    if len(re.findall(r"\*+", line)) > _MAX_STARS:
        return False
    try:
        GitIgnoreSpec.from_lines([line])
    except (ValueError, re.error):
        return False
    return True
