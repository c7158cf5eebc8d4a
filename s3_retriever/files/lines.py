"""Text whose lines are units: tables, logs, code, and JSON Lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

from s3_retriever.files.content import Content, UnreadableError, one_line
from s3_retriever.files.decoding import decode, text_encoding
from s3_retriever.paths import nan_as_null

JSON_LINES = frozenset({".jsonl", ".ndjson"})
_DELIMITERS = ",;\t|"
# A first line that spreadsheets write and read: it names the delimiter.
_DECLARED = re.compile(r"\s*sep=(\S|\t)[ \t]*\r?\n", re.IGNORECASE)
# Columns that a title lists, in characters; the rest are left out.
_HEADER_CHARACTERS = 300
# A longer first line is not a header.
_FIRST_LINE_CHARACTERS = 65_536


def read_lines(data: bytes) -> Content:
    """The text as it is; its evidence is made of lines.

    Raises:
        UnreadableError: The data is binary or not UTF-8.
    """
    return Content(decode(data), unit="line")


def read_table(data: bytes) -> Content:
    """The text of a CSV or TSV file; a row is a line, also where its cells have line breaks.

    The title names the columns, if the first row does: `(id, customer, total)`.

    Raises:
        UnreadableError: The data is binary or not UTF-8.
    """
    text = decode(data)
    declared = _DECLARED.match(text)
    first = text[declared.end() if declared else 0 :].lstrip("\r\n").partition("\n")[0]
    if len(first) > _FIRST_LINE_CHARACTERS:
        return Content(text, unit="line")
    delimiter = declared[1] if declared else max(_DELIMITERS, key=first.count)
    return Content(_joined_rows(text, delimiter), _columns(first, delimiter), unit="line")


def _columns(line: str, delimiter: str) -> str:
    """The names of the columns in parentheses; empty unless all cells are different names."""
    try:
        cells = [one_line(cell) for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return ""
    if cells and not cells[0]:  # row numbers have no name
        del cells[0]
    names = all(re.search(r"[^\W\d_]", cell) and not _is_value(cell) for cell in cells)
    if len(cells) < 2 or not names or len(set(cells)) < len(cells):
        return ""
    listed = ", ".join(cells)
    return (
        f"({listed})" if len(listed) <= _HEADER_CHARACTERS else f"({listed[:_HEADER_CHARACTERS]}…)"
    )


def _is_value(cell: str) -> bool:
    """Whether a cell looks like a value rather than the name of a column."""
    return bool(re.match(r"[-+]?[\d.,]+\b|https?://|\S+@\S+\.\S", cell)) or len(cell) > 100


def _joined_rows(text: str, delimiter: str) -> str:
    """The text with blanks for the line breaks inside quoted cells."""
    if '"' not in text:
        return text
    lines = text.splitlines(keepends=True)
    rows: list[str] = []
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    start = 0
    try:
        for _ in reader:
            row = "".join(lines[start : reader.line_num])
            body = row.rstrip("\r\n")
            rows += [re.sub(r"[\r\n]", " ", body), row[len(body) :]]
            start = reader.line_num
    except csv.Error:  # quotes that are not quotes: rows are lines, then
        return text
    return "".join(rows) + "".join(lines[start:])


def is_records(path: Path) -> bool:
    """Whether it is a JSON Lines file whose first line is an object with a string in `text`."""
    return _record(first_json_line(path)) is not None


def first_json_line(path: Path) -> str:
    """The first line of a JSON Lines file that is not blank; empty for any other file."""
    if path.suffix.lower() not in JSON_LINES:
        return ""
    try:
        with path.open(encoding=text_encoding(path)) as file:
            return next(filter(str.strip, file), "")
    except (OSError, UnicodeError):
        return ""


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers from 1, one at a time.

    Raises:
        UnreadableError: The file cannot be decoded; raised while iterating.
    """
    try:
        with path.open(encoding=text_encoding(path)) as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except UnicodeError as error:
        raise UnreadableError(f"it is not UTF-8 ({error}); convert it first.") from None


def read_records(path: Path) -> Iterator[Content | UnreadableError]:
    """The records of a JSON Lines file, one line at a time; for a line that is none, an error.

    The text is in the field `text`, the title in `title`, an id in `id`; all other fields, and
    those of an object in `metadata`, are metadata, with the number of the line as `line`.

    Raises:
        UnreadableError: The file cannot be decoded; raised while iterating.
    """
    for number, line in numbered_lines(path):
        yield _record(line, number) or UnreadableError(
            f"line {number} is not a JSON object with a string in its field 'text'."
        )


def _record(line: str, number: int = 0) -> Content | None:
    try:
        record = json.loads(line, parse_constant=nan_as_null)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        return None
    title, name, more = (record.pop(key, None) for key in ("title", "id", "metadata"))
    text = record.pop("text")
    metadata = record | (more if isinstance(more, dict) else {}) | {"line": number}
    return Content(
        text,
        title if isinstance(title, str) else "",
        metadata=metadata,
        part=str(number),
        id=str(name) if isinstance(name, (str, int)) and not isinstance(name, bool) else "",
    )
