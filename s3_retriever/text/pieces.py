"""Pieces: a text of any length cut into parts of bounded size."""

from __future__ import annotations

import re
from collections.abc import Iterator

PIECE_CHARACTERS = 32_768
# Best place to cut first: a paragraph break, a line break, any white space.
_BREAKS = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"\s+"))


def split_pieces(text: str, limit: int = PIECE_CHARACTERS) -> Iterator[tuple[int, str]]:
    """Cut a text into pieces of at most `limit` characters.

    Each cut comes after the last paragraph break in the second half of a piece, else after its
    last line break, else after its last white space, else at the limit. Joined, the pieces give
    the text again.

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
    # Search the second half only: a cut in the first half would make a needlessly small piece.
    middle = start + (limit - start) // 2
    for pattern in _BREAKS:
        ends = [match.end() for match in pattern.finditer(text, middle, limit)]
        if ends:
            return ends[-1]
    return limit
