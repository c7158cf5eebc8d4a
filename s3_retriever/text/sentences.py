"""Pieces and sentences: the boundaries of texts of any length, and whose tokens are whose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np
import sentencex
from numpy.typing import NDArray

from s3_retriever.features import Sentence

PIECE_CHARACTERS = 32_768
# Best place to cut first: a paragraph break, a line break, any white space.
_BREAKS = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"\s+"))

MAX_SENTENCE_TOKENS = 128


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
        end = _piece_end(text, start, start + limit)
        yield start, text[start:end]
        start = end
    if start < len(text):
        yield start, text[start:]


def _piece_end(text: str, start: int, limit: int) -> int:
    # Search the second half only: a cut in the first half would make a needlessly small piece.
    middle = start + (limit - start) // 2
    for pattern in _BREAKS:
        ends = [match.end() for match in pattern.finditer(text, middle, limit)]
        if ends:
            return ends[-1]
    return limit


def split_sentences(text: str) -> Iterator[tuple[int, int]]:
    """Find the sentences of a text, one piece of bounded size at a time.

    Yields:
        Character ranges (start, end) in ascending order. They do not overlap, are not empty, and
        neither begin nor end with white space; all characters outside them are white space.
    """
    for offset, piece in split_pieces(text):
        for start, end in _align(piece, sentencex.segment("en", piece)):
            yield offset + start, offset + end


def trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Shrink the range `start:end` of a text to leave out white space at both ends.

    Returns:
        The new start and end; equal if the range holds white space only.
    """
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    return start, start + len(part.strip())


def _align(piece: str, segments: Iterable[str]) -> Iterator[tuple[int, int]]:
    # The splitter returns text, not positions, and drops some paragraph breaks of long texts.
    # Its segments are therefore looked up one by one; only white space may lie between them.
    cursor = 0
    for segment in segments:
        body = segment.strip()
        if not body:
            continue
        start = piece.find(body, cursor)
        if start < 0 or piece[cursor:start].strip():
            break
        cursor = start + len(body)
        yield start, cursor
    yield from _lines(piece, cursor)


def _lines(piece: str, cursor: int) -> Iterator[tuple[int, int]]:
    """The lines from `cursor` on: none, unless a segment was not found in the piece."""
    for line in piece[cursor:].splitlines(keepends=True):
        start, end = trim(piece, cursor, cursor + len(line))
        if start < end:
            yield start, end
        cursor += len(line)


class SentenceCutter:
    """Cuts one document into sentences as the character starts of its tokens arrive.

    A token belongs to the first sentence that ends after the token's start; tokens after the last
    sentence belong to the last. Sentences without tokens are dropped. The sentences thus share
    out all tokens, in order. A sentence of more than `MAX_SENTENCE_TOKENS` tokens is cut between
    words; only tokens of white space can take a part above that number.

    Args:
        text: The document's text.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._ranges = split_sentences(text)
        self._current = next(self._ranges, None)
        self._following = next(self._ranges, None)
        self._pending: NDArray[np.uint32] = np.empty(0, dtype=np.uint32)

    @property
    def finished(self) -> bool:
        """Whether all sentences are cut; true from the start for a blank text."""
        return self._current is None

    def push(self, starts: NDArray[np.uint32], *, last: bool) -> tuple[Sentence, ...]:
        """Take the next tokens.

        Args:
            starts: Their character starts [n], ascending.
            last: Whether the document ends with them.

        Returns:
            The sentences that are complete now.
        """
        self._pending = np.concatenate([self._pending, starts])
        sentences: list[Sentence] = []
        while self._current is not None and self._pending.size and (last or self._is_complete()):
            sentences += self._shift()
        return tuple(sentences)

    def _is_complete(self) -> bool:
        """Whether a token of a later sentence is there; no token can follow the last sentence."""
        assert self._current is not None
        return self._following is not None and bool(self._pending[-1] >= self._current[1])

    def _shift(self) -> Iterator[Sentence]:
        """Cut the current sentence off the pending tokens and go on to the following one."""
        assert self._current is not None
        start, end = self._current
        n = self._pending.size
        if self._following is not None:
            n = int(np.searchsorted(self._pending, end))
        starts, self._pending = self._pending[:n], self._pending[n:]
        self._current, self._following = self._following, next(self._ranges, None)
        if n:
            yield from _cut(self._text, start, end, starts)


def _cut(text: str, start: int, end: int, starts: NDArray[np.uint32]) -> Iterator[Sentence]:
    """Cut one sentence into parts of bounded size; most sentences are one part."""
    first, mark, inside = (0, *(int(i) for i in np.searchsorted(starts, (start, end))))
    while inside - mark > MAX_SENTENCE_TOKENS:
        mark = _boundary(text, starts[:inside], mark)
        if mark == inside:
            break
        stop = int(starts[mark])
        part = trim(text, start, stop)
        # White space alone makes no part; it goes to the next one.
        if part[0] < part[1]:
            yield Sentence(*part, n_tokens=mark - first)
            first, start = mark, stop
    yield Sentence(*trim(text, start, end), n_tokens=len(starts) - first)


def _boundary(text: str, starts: NDArray[np.uint32], mark: int) -> int:
    """The token before which to cut the part that begins at token `mark`.

    The last beginning of a word among the second half of the tokens that fit; else the last token
    that fits. Tokens with equal starts are bytes of one character and stay together.
    """
    limit = mark + MAX_SENTENCE_TOKENS
    fitting = np.arange(mark + MAX_SENTENCE_TOKENS // 2, limit + 1)
    fitting = fitting[starts[fitting] > starts[fitting - 1]]
    for token in fitting[::-1]:
        at = int(starts[token])
        if text[at - 1].isspace() or text[at].isspace():
            return int(token)
    if fitting.size:
        return int(fitting[-1])
    return int(np.searchsorted(starts, starts[limit], side="right"))
