"""Documents to measure with, where it is their number that matters: of files, over and over."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from s3_retriever.document import Document
from s3_retriever.errors import InputError

_DOCUMENT_CHARACTERS = 4_000


def source_files(given: Sequence[Path]) -> list[Path]:
    """The files that were given; the source of the standard library where there are none."""
    return list(given) or sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def documents(files: Sequence[Path]) -> Iterator[Document]:
    """The documents of all files, once.

    Args:
        files: Plain text, which is cut into documents of 4,000 characters, or `.jsonl` files
            with a document a line: an object with `text` and, where it has one, `title`.

    Raises:
        InputError: A line is no such object.
        OSError: A file cannot be read.
    """
    for place, path in enumerate(files):
        name = f"{place}-{path.name}"
        yield from _lines(path, name) if path.suffix.lower() == ".jsonl" else _pieces(path, name)


def endless(files: Sequence[Path]) -> Iterator[Document]:
    """The documents of all files, over and over, each time with other ids.

    Raises:
        InputError: There is no text at all, or a line is not as `documents` wants it.
        OSError: A file cannot be read.
    """
    for number in count():
        empty = True
        for document in documents(files):
            empty = empty and not document.text.strip()
            yield copy_of(document, number)
        if empty:
            raise no_text(files)


def copy_of(document: Document, number: int) -> Document:
    """The same document with an id of its own."""
    return replace(document, id=f"{number}/{document.id}")


def no_text(files: Sequence[Path]) -> InputError:
    """What is wrong with files that hold nothing to measure with."""
    return InputError(f"There is no text in {', '.join(map(str, files))}; give files with text.")


def _pieces(path: Path, name: str) -> Iterator[Document]:
    text = path.read_text(encoding="utf-8", errors="replace")
    for start in range(0, len(text), _DOCUMENT_CHARACTERS):
        yield Document(text[start : start + _DOCUMENT_CHARACTERS], f"{name}/{start}")


def _lines(path: Path, name: str) -> Iterator[Document]:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _document(path, number, line, f"{name}/{number}")


def _document(path: Path, number: int, line: str, name: str) -> Document:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise InputError(
            f"{path} cannot be used: line {number} is no JSON object with a string as its field "
            "'text'."
        )
    title = record.get("title")
    return Document(text, name, {"title": title} if title else {})
