"""Which reader reads which file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from s3_retriever.cli.readers.content import Content, UnreadableError
from s3_retriever.cli.readers.html import read_html
from s3_retriever.cli.readers.markdown import read_markdown
from s3_retriever.cli.readers.pdf import read_pdf
from s3_retriever.cli.readers.text import SNIFFED_BYTES, check_not_binary, read_text

Reader = Callable[[bytes], Content]

_READERS: dict[str, Reader] = {
    ".htm": read_html,
    ".html": read_html,
    ".markdown": read_markdown,
    ".md": read_markdown,
    ".pdf": read_pdf,
}
# fmt: off
_TEXT = frozenset({
    ".c", ".cc", ".cfg", ".cpp", ".cs", ".css", ".csv", ".go", ".h", ".hpp", ".ini", ".java", ".jl",
    ".js", ".json", ".jsonl", ".jsx", ".kt", ".lua", ".log", ".org", ".php", ".pl", ".py", ".pyi",
    ".r", ".rb", ".rs", ".rst", ".scala", ".sh", ".sql", ".swift", ".tex", ".toml", ".ts", ".tsv",
    ".tsx", ".txt", ".xml", ".yaml", ".yml",
})
# fmt: on


def is_known(path: Path) -> bool:
    """Whether the extension promises text, so that a file without any is worth a warning."""
    extension = path.suffix.lower()
    return extension in _READERS or extension in _TEXT


def reader_for(path: Path) -> Reader:
    """The reader of a file; whatever has no reader of its own is tried as text."""
    return _READERS.get(path.suffix.lower(), read_text)


def check_head(path: Path) -> None:
    """Refuse a file that is binary where text is expected, by its first bytes.

    Raises:
        UnreadableError: It is binary, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(SNIFFED_BYTES)
    except OSError as error:
        raise _unreadable(error) from error
    if reader_for(path) is not read_pdf:
        check_not_binary(head)


def read_file(path: Path) -> bytes:
    """The bytes of a file; one that is binary is refused before all of it is in memory.

    Raises:
        UnreadableError: It is binary where text is expected, or cannot be read.
    """
    check_head(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> UnreadableError:
    return UnreadableError(f"it cannot be read ({error.strerror}); check its permissions.")
