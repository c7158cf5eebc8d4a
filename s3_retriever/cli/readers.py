"""Readers: turn the bytes of a file into text and title, chosen by the file's extension."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3_retriever.errors import InputError

if TYPE_CHECKING:
    from bs4 import BeautifulSoup


EXTRA = "pip install 's3-retriever[files]'"


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a file.

    Attributes:
        text: Its text.
        title: The title that it gives itself; empty without one.
    """

    text: str
    title: str = ""


class UnreadableError(InputError):
    """A file without usable text; the message follows the file's name and a colon."""


SNIFFED_BYTES = 8_192


def read_text(data: bytes) -> Content:
    """Decode UTF-8, with or without a byte order mark."""
    return Content(decode(data))


def decode(data: bytes) -> str:
    """Decode UTF-8 bytes, without a byte order mark.

    Raises:
        UnreadableError: They are binary data or in another encoding.
    """
    check_not_binary(data)
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UnreadableError(
            f"it is not UTF-8, the byte at offset {error.start} is invalid; convert it, for "
            "example with: iconv -f latin1 -t utf-8"
        ) from None


def check_not_binary(data: bytes) -> None:
    """Refuse binary data, recognised by an early NUL byte.

    Raises:
        UnreadableError: The data is binary.
    """
    offset = data.find(0, 0, SNIFFED_BYTES)
    if offset >= 0:
        raise UnreadableError(
            f"it is binary, with a NUL byte at offset {offset}; convert it to UTF-8 text first."
        )


_DROPPED = frozenset({"head", "nav", "noscript", "script", "style", "template"})
# fmt: off
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "dialog",
    "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4",
    "h5", "h6", "header", "hr", "li", "main", "ol", "p", "pre", "section", "summary", "table",
    "tbody", "tfoot", "thead", "tr", "ul",
})
# fmt: on
_CELLS = frozenset({"td", "th"})


def read_html(data: bytes) -> Content:
    """The visible text with block elements on lines of their own; the title is `<title>`.

    Raises:
        UnreadableError: The data is binary, or the library is missing.
    """
    check_not_binary(data)
    soup = _parse(data)
    title = soup.title.get_text() if soup.title else ""
    text = "".join(_pieces(soup))
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n (?! )", "\n", text)
    return Content(re.sub(r"\n{3,}", "\n\n", text).strip(), " ".join(title.split()))


def _parse(data: bytes) -> BeautifulSoup:
    try:
        from bs4 import BeautifulSoup
    except ImportError:
        raise UnreadableError(f"HTML needs Beautiful Soup; install it with: {EXTRA}") from None
    with warnings.catch_warnings():
        # Beautiful Soup warns of input that looks like XML or like a file name.
        warnings.simplefilter("ignore")
        return BeautifulSoup(data, "html.parser")


def _pieces(root: Any) -> Iterator[str]:
    """The text in order; uses a stack, because pages may be nested without limit."""
    from bs4.element import CData, NavigableString, Tag

    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        node, preformatted = stack.pop()
        if isinstance(node, Tag):
            if node.name in _DROPPED:
                continue
            before, after = _edges(node.name)
            yield before
            inside = preformatted or node.name == "pre"
            # A plain string, which the branch below emits like a NavigableString.
            stack.append((after, True))
            stack += [(child, inside) for child in reversed(node.contents)]
        elif type(node) in (str, NavigableString, CData):
            yield str(node) if preformatted else re.sub(r"\s+", " ", node)


def _edges(name: str) -> tuple[str, str]:
    """The white space before and after an element."""
    if name in _BLOCKS:
        return "\n", "\n"
    if name == "br":
        return "\n", ""
    return "", " " if name in _CELLS else ""


_FENCE = re.compile(r" {0,3}(```|~~~)")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(?P<title>.*?)[ \t]*#*[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")


def read_markdown(data: bytes) -> Content:
    """The raw text; the title is its first heading."""
    text = decode(data)
    return Content(text, _first_heading(text))


def _first_heading(text: str) -> str:
    fence = previous = ""
    for line in re.finditer(r"[^\n]+", text):
        content = line[0].rstrip("\r")
        if opened := _FENCE.match(content):
            fence = "" if fence == opened[1] else fence or opened[1]
        elif fence:
            continue
        elif (heading := _HEADING.fullmatch(content)) and heading["title"]:
            return heading["title"]
        elif previous and _UNDERLINE.fullmatch(content):
            return previous
        # Below a blank line or a rule, dashes are not an underline.
        after_blank = text.startswith("\n", line.end() + 1)
        previous = "" if after_blank or _UNDERLINE.fullmatch(content) else content.strip()
    return ""


def read_pdf(data: bytes) -> Content:
    """The text of the pages, joined by blank lines; the title is in the file's metadata.

    Raises:
        UnreadableError: The file is damaged, locked or without text, or the library is missing.
    """
    try:
        from pypdf import PdfReader
    except ImportError:
        raise UnreadableError(f"PDF needs pypdf; install it with: {EXTRA}") from None
    try:
        reader = PdfReader(BytesIO(data))
        pages = [page.extract_text() for page in reader.pages]
        title = str((reader.metadata and reader.metadata.title) or "")
    except Exception as error:  # pypdf raises errors of every kind on damaged files
        raise UnreadableError(
            f"it cannot be read as PDF ({error}); repair it or remove its password."
        ) from error
    text = "\n\n".join(pages).encode(errors="replace").decode()
    if not text.strip():
        raise UnreadableError("it has no text; run OCR on it first.")
    return Content(text, " ".join(title.encode(errors="replace").decode().split()))


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
    """Whether the extension promises text, which makes a failure worth a warning."""
    extension = path.suffix.lower()
    return extension in _READERS or extension in _TEXT


def reader_for(path: Path) -> Reader:
    """The reader of a file; files without a reader of their own are tried as text."""
    return _READERS.get(path.suffix.lower(), read_text)


def check_head(path: Path) -> None:
    """Refuse a file that should be text but whose first bytes are binary.

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
    """Read the bytes of a file; a binary one is refused before all of it is in memory.

    Raises:
        UnreadableError: It is binary but should be text, or cannot be read.
    """
    check_head(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> UnreadableError:
    return UnreadableError(f"it cannot be read ({error.strerror}); check its permissions.")
