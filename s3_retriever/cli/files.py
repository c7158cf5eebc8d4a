"""Files on the command line: find them, and read them as documents or as plain texts."""

from __future__ import annotations

import glob
import hashlib
import heapq
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from s3_retriever.cli.console import warn
from s3_retriever.cli.readers import (
    UnreadableError,
    check_head,
    is_known,
    read_file,
    read_text,
    reader_for,
)
from s3_retriever.document import Document
from s3_retriever.errors import InputError
from s3_retriever.index import Store
from s3_retriever.text import split_pieces

logger = logging.getLogger(__name__)

_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__"})
# Every index folder has these; its files are not documents.
_INDEX_FILES = ("manifest.json", "write.lock")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read.

    Attributes:
        path: Where it is.
        named: Whether the command line names it, rather than a folder above it.
    """

    path: Path
    named: bool

    @property
    def id(self) -> str:
        """Its path relative to the current folder; absolute if it lies outside."""
        path = Path(os.path.abspath(self.path))  # noqa: PTH100 - resolve() would follow links
        here = Path.cwd()
        return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()


def find_files(paths: Iterable[str]) -> list[FoundFile]:
    """Find all files that the paths name, each once.

    Inside folders, hidden files, packages, caches and indexes are skipped. Links are followed; a
    folder that is reached twice is read once.

    Args:
        paths: Files, folders and globs.

    Raises:
        InputError: A path matches nothing.
    """
    files: dict[str, FoundFile] = {}
    visited: set[tuple[int, int]] = set()
    for path in paths:
        for match in _matches(path):
            for file in _below(match, visited) if match.is_dir() else [FoundFile(match, True)]:
                files.setdefault(file.id, file)
    return list(files.values())


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
    """The files of a folder and its subfolders, sorted by name."""
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


class Indexed:
    """The documents of an index when a command began.

    Args:
        path: Folder of the index.

    Raises:
        IndexStoreError: There is no index, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._snapshot = Store.open(path).snapshot()

    def __contains__(self, document_id: str) -> bool:
        return self._snapshot.find(document_id) is not None

    def sha256(self, document_id: str) -> str | None:
        """The digest of the file that a document was read from; None if unknown."""
        place = self._snapshot.find(document_id)
        if place is None:
            return None
        segment, ordinal = place
        digest = segment.document(ordinal).metadata.get("sha256")
        return digest if isinstance(digest, str) else None


@dataclass(slots=True)
class Counts:
    """How many files were added, replaced, left unchanged and skipped."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    skipped: int = 0

    @property
    def read(self) -> int:
        """Files that could be read."""
        return self.added + self.replaced + self.unchanged

    def __str__(self) -> str:
        return (
            f"{self.added} added, {self.replaced} replaced, {self.unchanged} unchanged, "
            f"{self.skipped} skipped"
        )


def documents(
    files: Iterable[FoundFile], counts: Counts, indexed: Indexed | None = None, again: bool = False
) -> Iterator[Document]:
    """Read files one at a time; warn about those that cannot be read, and skip them.

    Args:
        files: The files.
        counts: Counts unchanged and skipped files.
        indexed: The documents of the index; unchanged files are skipped.
        again: Whether unchanged files are read as well.
    """
    for file in files:
        try:
            data = read_file(file.path)
            digest = hashlib.sha256(data).hexdigest()
            if indexed and not again and indexed.sha256(file.id) == digest:
                counts.unchanged += 1
                continue
            yield _document(file, data, digest)
        except InputError as error:
            counts.skipped += 1
            _warn(file, error)


def none_readable(files: Sequence[FoundFile]) -> InputError:
    """The error of a command that could not read any of its files."""
    return InputError(f"None of the {len(files)} files could be read.")


def batches(stream: Iterable[Document], characters: int) -> Iterator[list[Document]]:
    """Group documents into lists of at least that many characters; the last may be shorter."""
    batch: list[Document] = []
    size = 0
    for document in stream:
        batch.append(document)
        size += len(document.text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _document(file: FoundFile, data: bytes, digest: str) -> Document:
    try:
        file.id.encode()
    except UnicodeEncodeError:
        raise UnreadableError("its name is not UTF-8; rename it.") from None
    content = reader_for(file.path)(data)
    metadata = {
        "path": file.id,
        "title": content.title or file.path.stem,
        "bytes": len(data),
        "sha256": digest,
    }
    return Document(content.text, id=file.id, metadata=metadata)


def _warn(file: FoundFile, error: InputError) -> None:
    """Warn, unless a folder merely happens to contain the file, such as a picture."""
    sentence = f"{file.path} is skipped: {error}"
    if file.named or is_known(file.path):
        warn(sentence)
    else:
        logger.info(sentence)


_BLOCK_CHARACTERS = 1 << 20


class TextFiles:
    """The texts of files, interleaved; every iteration reads the files again, block by block.

    Each line of a `.jsonl` file is a text, its field `text`; other files are cut into pieces.

    Args:
        paths: The files.

    Raises:
        InputError: A file cannot be read; raised while iterating.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[str]:
        return interleave([_texts(path) for path in self._paths])


def _texts(path: Path) -> Iterator[str]:
    try:
        if path.suffix.lower() == ".jsonl":
            yield from _lines(path)
        elif reader_for(path) is read_text:
            yield from _pieces(path)
        else:
            content = reader_for(path)(read_file(path))
            yield from (piece for _, piece in split_pieces(content.text))
    except UnreadableError as error:
        raise InputError(f"{path} cannot be used: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be used: it is not UTF-8 ({error.reason}).") from error


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _field(path, number, line)


def _field(path: Path, number: int, line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise InputError(
            f"{path} cannot be used: line {number} is not a JSON object with a string in its "
            "field 'text'."
        )
    return text


def _pieces(path: Path) -> Iterator[str]:
    """Pieces of a plain text; the last one waits for the next block, to be cut well."""
    rest = ""
    check_head(path)
    with path.open(encoding="utf-8-sig") as file:
        while block := file.read(_BLOCK_CHARACTERS):
            *whole, (_, rest) = split_pieces(rest + block)
            yield from (piece for _, piece in whole)
    if rest:
        yield rest


def interleave(sources: Sequence[Iterable[str]]) -> Iterator[str]:
    """Interleave the texts of all sources, which contribute equally many characters.

    The next text always comes from the source that contributed the fewest characters so far (the
    first of equals), until all are exhausted.
    """
    queue = [(0, position, iter(source)) for position, source in enumerate(sources)]
    while queue:
        drawn, position, source = queue[0]
        text = next(source, None)
        if text is None:
            heapq.heappop(queue)
        else:
            heapq.heapreplace(queue, (drawn + len(text), position, source))
            yield text
