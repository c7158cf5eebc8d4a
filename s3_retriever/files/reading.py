"""`read_files`: files and folders to documents."""

from __future__ import annotations

import hashlib
import logging
import mimetypes
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from s3_retriever.document import Document
from s3_retriever.errors import InputError
from s3_retriever.files.chat import (
    is_chat_lines,
    read_chat,
    read_chat_lines,
    read_transcript,
)
from s3_retriever.files.content import Content, Reader, UnreadableError
from s3_retriever.files.decoding import SNIFFED_BYTES, check_not_binary, decode
from s3_retriever.files.docx import read_docx
from s3_retriever.files.epub import read_epub
from s3_retriever.files.finding import FoundFiles, find_files, real_path
from s3_retriever.files.html import read_html
from s3_retriever.files.lines import is_records, read_lines, read_records, read_table
from s3_retriever.files.markdown import read_markdown
from s3_retriever.files.notebook import read_notebook
from s3_retriever.files.pdf import read_pdf
from s3_retriever.types import check_path

logger = logging.getLogger(__name__)

# Of a file that is read as a whole; JSON Lines are read line by line and have no limit.
MAX_BYTES = 1 << 28
_BLOCK_BYTES = 1 << 20


def read_text(data: bytes) -> Content:
    """The text as it is: UTF-8, or UTF-16 and UTF-32 with a byte order mark.

    Raises:
        UnreadableError: The data is binary or in another encoding.
    """
    return Content(decode(data))


_BINARY: dict[str, Reader] = {".docx": read_docx, ".epub": read_epub, ".pdf": read_pdf}
_NOTEBOOK = ".ipynb"
# fmt: off
_READERS: dict[str, Reader] = {
    **_BINARY,
    **dict.fromkeys((".htm", ".html", ".xhtml"), read_html),
    **dict.fromkeys((".markdown", ".md", ".mdx"), read_markdown),
    **dict.fromkeys((".csv", ".psv", ".tab", ".tsv"), read_table),
    **dict.fromkeys((
        ".bash", ".bat", ".c", ".cc", ".cfg", ".conf", ".cpp", ".cs", ".css", ".dart", ".el",
        ".ex", ".exs", ".fish", ".go", ".gradle", ".h", ".hh", ".hpp", ".hs", ".ini", ".java",
        ".jl", ".js", ".json", ".jsonl", ".jsx", ".kt", ".log", ".lua", ".m", ".mjs", ".ml",
        ".ndjson", ".nim", ".php", ".pl", ".pm", ".properties", ".proto", ".ps1", ".py", ".pyi",
        ".pyx", ".r", ".rb", ".rs", ".scala", ".scss", ".sh", ".sql", ".swift", ".tf", ".toml",
        ".ts", ".tsx", ".vb", ".vue", ".yaml", ".yml", ".zig", ".zsh",
    ), read_lines),
}
# fmt: on


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file, or a line of one, that could not be read.

    Attributes:
        path: The file.
        reason: Why, and what to do; a clause that follows the file's name and a colon.
        named: Whether the file was named itself, rather than a folder above it.
    """

    path: Path
    reason: str
    named: bool = False

    @property
    def is_media(self) -> bool:
        """Whether it is a picture, sound, film or font, which nobody expects to be read."""
        kind = mimetypes.guess_type(self.path.name)[0] or ""
        return kind.startswith(("image/", "audio/", "video/", "font/"))

    def __str__(self) -> str:
        return f"{self.path} is skipped: {self.reason}"


def read_files(
    paths: Iterable[str | Path] | str | Path | FoundFiles,
    *,
    base: str | Path | None = None,
    on_skip: Callable[[SkippedFile], None] | None = None,
    is_known: Callable[[str, str], bool] | None = None,
) -> Iterator[Document]:
    """Read files, folders with everything below them, and globs, one file at a time.

    A file is a document; each cell of a notebook, record of a JSON Lines file and message of a chat
    is one. The id is the file's path, with `#` and a number for a part of it; a record's own `id`
    comes first. The metadata has `title`, `path`, `bytes`, the file's `sha256`, and what the file
    says about itself.

    Args:
        paths: What to read; what is in folders is chosen as `find_files` says.
        base: The folder that paths are relative to in ids and metadata; paths outside are
            absolute. The current folder by default.
        on_skip: Called with every file that cannot be read; a warning is logged by default.
        is_known: Called with the id of a document and the SHA-256 of its file; true skips it, so
            that unchanged files are not read again.

    Returns:
        An iterator of documents, which reads as it goes.

    Raises:
        InputError: A path matches nothing, or is of another type.
    """
    found = paths if isinstance(paths, FoundFiles) else find_files(paths)
    folder = Path(os.path.realpath("." if base is None else check_path(base, "base")))
    return _documents(found, folder, on_skip or _log, is_known or (lambda *_: False))


def file_id(path: Path, base: Path) -> str:
    """The path of a file relative to a folder without links; absolute if it lies outside."""
    real = real_path(path)
    return (real.relative_to(base) if real.is_relative_to(base) else real).as_posix()


def reader_for(path: Path) -> Reader:
    """The reader of a file's bytes; files without a reader of their own are tried as text."""
    return _READERS.get(path.suffix.lower(), read_text)


def contents(path: Path) -> Iterator[Content | UnreadableError]:
    """What is in a file: one text, or the cells or records, and errors for lines that are none.

    Raises:
        UnreadableError: The file cannot be read; also while iterating.
    """
    read_parts = _line_reader(path)
    if read_parts is not None:
        return read_parts(path)
    check_readable(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(error) from error
    return _whole(path, data)


def check_readable(path: Path) -> None:
    """Refuse a file that is too large, or should be text but begins with binary data.

    Raises:
        UnreadableError: It is, or it cannot be read.
    """
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            head = file.read(SNIFFED_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(error) from error
    if suffix not in _BINARY:
        try:
            check_not_binary(head)
        except UnreadableError:
            if suffix in _READERS or suffix in ("", ".txt"):
                raise
            raise UnreadableError(
                f"it is binary, and files of type {suffix} are not read; convert it to text, HTML "
                "or PDF first."
            ) from None
    if size > MAX_BYTES and _line_reader(path) is None:
        raise UnreadableError(f"it is larger than {MAX_BYTES >> 20} MiB; split it up.")


def _documents(
    found: FoundFiles,
    base: Path,
    on_skip: Callable[[SkippedFile], None],
    is_known: Callable[[str, str], bool],
) -> Iterator[Document]:
    for path, reason in found.skipped.items():
        on_skip(SkippedFile(path, reason))
    ids: set[str] = set()
    for file in found.files:
        try:
            for document in _read(file.path, base, is_known):
                if isinstance(document, UnreadableError):
                    on_skip(SkippedFile(file.path, str(document), file.named))
                elif document.id in ids:
                    reason = f"another record has the id {document.id!r} too; change one of them."
                    on_skip(SkippedFile(file.path, reason, file.named))
                else:
                    ids.add(document.id)
                    yield document
        except UnreadableError as error:  # noqa: PERF203 - the other files are read all the same
            on_skip(SkippedFile(file.path, str(error), file.named))


def _read(
    path: Path, base: Path, is_known: Callable[[str, str], bool]
) -> Iterator[Document | UnreadableError]:
    name = file_id(path, base)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UnreadableError("its name is not UTF-8; rename it.") from None
    check_readable(path)
    size, digest = _fingerprint(path)
    if is_known(name, digest):
        return
    file_metadata = {"path": name, "bytes": size, "sha256": digest}
    for content in contents(path):
        if isinstance(content, UnreadableError):
            yield content
            continue
        if not content.text.strip():
            yield UnreadableError(f"line {content.part} has no text.")
            continue
        own_id = content.id or (f"{name}#{content.part}" if content.part else name)
        if content.part and is_known(own_id, digest):
            continue
        title = _title(path, content)
        metadata = {**content.metadata, **file_metadata, **({"title": title} if title else {})}
        try:
            yield Document(content.text, id=own_id, metadata=metadata, unit=content.unit)
        except InputError as error:
            yield UnreadableError(str(error))


def _title(path: Path, content: Content) -> str:
    """The title that a text gives itself; without one, the name of a file that is one text."""
    if content.part:
        return content.title
    if content.unit == "line":
        return f"{path.name} {content.title}".strip()
    return content.title or path.stem


def _whole(path: Path, data: bytes) -> Iterator[Content | UnreadableError]:
    parts = _parts(path, data) or [reader_for(path)(data)]
    if not any(isinstance(part, UnreadableError) or part.text.strip() for part in parts):
        raise UnreadableError("it has no text.")
    yield from parts


def _parts(path: Path, data: bytes) -> Sequence[Content | UnreadableError] | None:
    """The cells of a notebook, or the messages of a chat; None for any other file."""
    suffix = path.suffix.lower()
    if suffix == _NOTEBOOK:
        return list(read_notebook(data, path.stem))
    if suffix == ".json":
        return read_chat(decode(data))
    if suffix == ".txt":
        return read_transcript(decode(data))
    return None


def _line_reader(path: Path) -> Callable[[Path], Iterator[Content | UnreadableError]] | None:
    """What reads a JSON Lines file line by line; None for any other file, and for one of units."""
    if is_chat_lines(path):
        return read_chat_lines
    return read_records if is_records(path) else None


def _fingerprint(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise _unreadable(error) from error
    return size, digest.hexdigest()


def _unreadable(error: OSError) -> UnreadableError:
    return UnreadableError(f"it cannot be read ({error.strerror}); check its permissions.")


def _log(skipped: SkippedFile) -> None:
    logger.log(logging.INFO if skipped.is_media else logging.WARNING, "%s", skipped)
