"""Where in a file a span is: its line, page, section or cell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

# What page breaks separate in files of these types.
_PAGES = {".pdf": "p.", ".epub": "section"}
# The text of these has other lines than the file, or the file has none.
_LINELESS = frozenset({".docx", ".htm", ".html", ".xhtml"})
_PLACE = re.compile(r"(?::| p\. | cell | turn | section )(\d{1,9})(?:-\d+)?$")


def place(metadata: Mapping[str, Any], text: str, start: int) -> str | None:
    """Where a span is, such as `handbook.md:12`, `report.pdf p. 3` or `chat.json turn 4`.

    Args:
        metadata: Of a document that `read_files` read.
        text: Its text.
        start: Where in the text the span begins, in characters.

    Returns:
        None for a document that was not read from a file.
    """
    path = metadata.get("path")
    if not isinstance(path, str):
        return None
    if "cell" in metadata:
        return f"{path} cell {metadata['cell']}"
    if "line" in metadata:
        return f"{path}:{metadata['line']}"
    if "turn" in metadata:
        return f"{path} turn {metadata['turn']}"
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in _PAGES:
        return f"{path} {_PAGES[suffix]} {text.count(chr(12), 0, start) + 1}"
    if suffix in _LINELESS:
        return path
    return f"{path}:{text.count(chr(10), 0, start) + 1}"


def split_place(name: str) -> tuple[str, int | None]:
    """A name without the place at its end, and the number of the line, page, cell or turn."""
    found = _PLACE.search(name)
    return (name[: found.start()], int(found[1])) if found else (name, None)


def offset(metadata: Mapping[str, Any], text: str, number: int) -> int:
    """Where in a document the line or page begins that `place` calls by a number, in characters.

    0 for a document that is a cell, a line or a turn itself, and for a number that is not in it.
    """
    path = metadata.get("path")
    if not isinstance(path, str) or {"cell", "line", "turn"} & metadata.keys():
        return 0
    separator = chr(12) if PurePosixPath(path).suffix.lower() in _PAGES else "\n"
    start = 0
    for _ in range(number - 1):
        start = text.find(separator, start) + 1
        if not start:
            return 0
    return start
