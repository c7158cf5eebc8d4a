"""Cutting a text of any length into pieces of bounded size."""

from __future__ import annotations

import re
from collections.abc import Iterator

PIECE_CHARACTERS = 32_768
# Best place to cut first: a paragraph break, a line break, any white space.
_BREAKS = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"\s+"))


def split_pieces(text: str, limit: int = PIECE_CHARACTERS) -> Iterator[tuple[int, str]]:
    """Cut a text into pieces of at most `limit` characters.

    A cut is made after the last paragraph break of a piece, else its last line break, else its
    last white space, else at the limit; the pieces joined are the text.

    Yields:
        The character offset of the piece in the text, and the piece.
    """
    start = 0
    while len(text) - start > limit:
        end = _cut(text, start, start + limit)
        yield start, text[start:end]
        start = end
    if start < len(text):
        yield start, text[start:]


def _cut(text: str, start: int, limit: int) -> int:
    # Only the second half is searched, so that no piece is needlessly small.
    middle = start + (limit - start) // 2
    for pattern in _BREAKS:
        ends = [found.end() for found in pattern.finditer(text, middle, limit)]
        if ends:
            return ends[-1]
    return limit
