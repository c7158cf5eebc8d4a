"""Pieces and sentences: the boundaries of texts of any length, and whose tokens are whose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np
import sentencex
from numpy.typing import NDArray

from s3_retriever.features import Sentence
from s3_retriever.text.characters import UNSPACED, continues
from s3_retriever.text.languages import ENGLISH
from s3_retriever.types import Unit

PIECE_CHARACTERS = 32_768
# Best place to cut first: a paragraph break, a line break, any white space.
_BREAKS = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"\s+"))

# Most tokens of a sentence, and of a line where lines are what evidence is made of.
MAX_SENTENCE_TOKENS = 128
MAX_LINE_TOKENS = 1_024
# Prose has fewer characters to a token. Text with more (words that a tokenizer does not know, runs
# of signs) counts by its characters, as a reader of the evidence would count it.
CHARACTERS_PER_TOKEN = 10

_FENCES = ("```", "~~~")
_BY_LINES = re.compile(r"^[ \t]*(?:```|~~~|\|)", re.MULTILINE)
# What the splitter pairs, and where it may end a sentence.
_QUOTES = re.compile(
    "[\u2018-\u201f\u00ab\u00bb\u2039\u203a\u3008-\u3011\u3014-\u301b\uff08\uff09]"
)
_STOPS = re.compile("[.!?\u3002\uff01\uff1f]")
_MOST_PAIRS = 2_000_000
_UP_TO_STOP = re.compile(
    "[^.!?\u2026\u3002\uff01\uff1f]*[.!?\u2026\u3002\uff01\uff1f]+[^\\w\\s.!?\u2026\u3002\uff01\uff1f]*|[^.!?\u2026\u3002\uff01\uff1f]+$"
)
# A full stop of another script than Latin, with closing marks, and a letter of a script without
# spaces: no white space needs to stand between sentences there.
_FOREIGN_STOP = re.compile(
    "[\u2026\u3002\uff01\uff1f\uff0e\uff61\u0964\u0965\u061f\u06d4\u104a\u104b\u17d4\u17d5\u1362\u0589]\\W*$"
)
_UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
# Abbreviations that the splitter does not know, or not before a capital.
_ABBREVIATION = re.compile(
    r"(?<!\w)(?:Dr|Mr|Mrs|Ms|Prof|Gen|Col|Capt|Lt|Sgt|Rev|St|Fig|Figs|Eq|Eqs"
    r"|approx|ca|cf|resp|viz|vs|incl|excl|eds|e\.g|i\.e)\.$"
)
# Those that a number follows.
_NUMBERED = re.compile(r"(?<!\w)(?:vols?|ch|chap|sect|paras?|tab|ed|est|tel|max|min|avg)\.$", re.I)
# A clause ends with a mark and white space, or with a mark of East Asia.
_CLAUSE_END = re.compile(
    "(?:[,;:.!?\u2013\u2014\u060c\u061b]\\s+|[\u3001\u3002\uff0c\uff1a\uff1b])$"
)
# Letters of Thai, Lao, Khmer and Burmese, and the most characters of what is cut at spaces there.
_STOPLESS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
_PHRASE = 256
# Longer words are encoded data and are cut.
_LONG_WORD = 512


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


def split_sentences(
    text: str, unit: Unit = "sentence", language: str = ENGLISH
) -> Iterator[tuple[int, int]]:
    """Find the sentences of a text, one piece of bounded size at a time.

    A sentence ends where white space follows, so addresses, file names and versions stay whole;
    after a full stop of a script without spaces it need not. Rows of pipe tables and lines of
    fenced code are sentences. Thai, Lao, Khmer and Burmese, which have no full stops, are cut at
    spaces, and words of more than 512 characters are cut.

    Args:
        text: Any text.
        unit: `line` to take every line as a sentence.
        language: The text's language, as `language_of` gives it; decides its abbreviations.

    Yields:
        Character ranges (start, end) in ascending order. They do not overlap, are not empty, and
        neither begin nor end with white space; all characters outside them are white space.
    """
    for offset, piece in split_pieces(text):
        for start, end in _lines(piece) if unit == "line" else _sentences(piece, language):
            yield offset + start, offset + end


def _sentences(piece: str, language: str) -> Iterator[tuple[int, int]]:
    for start, end, is_prose in _blocks(piece):
        block = piece[start:end]
        ranges = _prose(block, language) if is_prose else _lines(block)
        for first, last in ranges:
            yield start + first, start + last


def _blocks(piece: str) -> Iterator[tuple[int, int, bool]]:
    """Cut a piece into prose and what is read by lines; each with whether it is prose."""
    if _BY_LINES.search(piece) is None:
        yield 0, len(piece), True
        return
    start = cursor = 0
    was_prose, fence = True, ""
    for line in piece.splitlines(keepends=True):
        body = line.strip()
        mark = body[:3] if body[:3] in _FENCES else ""
        is_prose = not (fence or mark or (len(body) > 1 and body[0] == body[-1] == "|"))
        if is_prose != was_prose:
            if start < cursor:
                yield start, cursor, was_prose
            start, was_prose = cursor, is_prose
        if mark and mark == (fence or mark):
            fence = "" if fence else mark
        cursor += len(line)
    yield start, cursor, was_prose


def _prose(text: str, language: str) -> Iterator[tuple[int, int]]:
    segments = sentencex.segment(language or ENGLISH, text) if _is_usual(text) else _by_stops(text)
    for start, end in _joined(text, _align(text, segments)):
        yield from _phrases(text, start, end)


def _is_usual(text: str) -> bool:
    """Whether the splitter, which looks at each pair of quotation marks and stops, is fast."""
    quotes = len(_QUOTES.findall(text)) + text.count("'") // 8  # apostrophes, as a rule
    return quotes * (quotes + len(_STOPS.findall(text))) <= _MOST_PAIRS


def _by_stops(text: str) -> Iterator[str]:
    return (match.group() for match in _UP_TO_STOP.finditer(text))


def _joined(text: str, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join sentences that the splitter cut where none ends."""
    last: tuple[int, int] | None = None
    for start, end in ranges:
        if last is not None and _is_cut_wrongly(text, last[1], start):
            last = last[0], end
            continue
        if last is not None:
            yield last
        last = start, end
    if last is not None:
        yield last


def _is_cut_wrongly(text: str, end: int, start: int) -> bool:
    """Whether the boundary between `end` and `start` is inside a word or after an abbreviation."""
    if start > end:
        if "\n" in text[end:start]:
            return False
        found = _ABBREVIATION.search(text, end - 12, end)
        return bool(found or (text[start].isdigit() and _NUMBERED.search(text, end - 12, end)))
    return not (_FOREIGN_STOP.search(text, end - 4, end) or _UNSPACED_CHARACTER.match(text, start))


def _phrases(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a long sentence at its spaces, else between letters, if words alone would not.

    It is in a script without full stops, or has a word of a size that no language has.
    """
    size = _phrase_size(text[start:end])
    while end - start > size:
        cut = text.rfind(" ", start + 1, start + size)
        if cut < 0:
            cut = _between(text, start + size // 2, start + size)
        yield trim(text, start, cut)
        start = trim(text, cut, end)[0]
    if start < end:
        yield start, end


def _phrase_size(sentence: str) -> int:
    """Most characters of the parts of a sentence; its length if it is not cut here."""
    if len(sentence) > _PHRASE and 2 * _STOPLESS.subn("", sentence)[1] > len(sentence):
        return _PHRASE
    if len(sentence) > _LONG_WORD and max(map(len, sentence.split())) > _LONG_WORD:
        return _LONG_WORD
    return len(sentence)


def _between(text: str, low: int, high: int) -> int:
    """The last place from `low` to `high` that is not inside a character with its marks."""
    places = (at for at in range(high, low, -1) if not continues(text, at))
    return next(places, high)


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
    for start, end in _lines(piece[cursor:]):  # nothing, unless a segment was not found
        yield cursor + start, cursor + end


def _lines(piece: str) -> Iterator[tuple[int, int]]:
    """The lines of a piece that are not blank."""
    cursor = 0
    for line in piece.splitlines(keepends=True):
        start, end = trim(piece, cursor, cursor + len(line))
        if start < end:
            yield start, end
        cursor += len(line)


class SentenceCutter:
    """Cuts one document into sentences as the character starts of its tokens arrive.

    A token belongs to the first sentence that ends after the token's start; tokens after the last
    sentence belong to the last. Sentences without tokens are dropped. The sentences thus share
    out all tokens, in order. A sentence of more than `MAX_SENTENCE_TOKENS` tokens, or more than
    `CHARACTERS_PER_TOKEN` times as many characters, is cut: at clause marks, else between words,
    else between characters. Only white space and characters without tokens can take a part above
    that. A line is cut beyond `MAX_LINE_TOKENS`.

    Args:
        text: The document's text.
        unit: What is cut: sentences or lines.
        language: The text's language, as `language_of` gives it.
    """

    def __init__(self, text: str, unit: Unit = "sentence", language: str = ENGLISH) -> None:
        self._text = text
        self._limit = MAX_LINE_TOKENS if unit == "line" else MAX_SENTENCE_TOKENS
        self._ranges = split_sentences(text, unit, language)
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
            yield from _cut(self._text, start, end, starts, self._limit)


def size_in_tokens(tokens: int, characters: int) -> int:
    """What a stretch of text takes of a token budget.

    Args:
        tokens: Number of its tokens, as the host counts them.
        characters: Number of its characters.

    Returns:
        The number of tokens, or of `CHARACTERS_PER_TOKEN` characters if that is more.
    """
    return max(tokens, -(-characters // CHARACTERS_PER_TOKEN))


def _cut(
    text: str, start: int, end: int, starts: NDArray[np.uint32], limit: int
) -> Iterator[Sentence]:
    """Cut one sentence into parts of bounded size; most sentences are one part."""
    first, mark, inside = (0, *(int(i) for i in np.searchsorted(starts, (start, end))))
    while size_in_tokens(inside - mark, end - start) > limit:
        mark = _boundary(text, starts[:inside], mark, limit)
        if mark == inside:
            break
        stop = int(starts[mark])
        part = trim(text, start, stop)
        # White space alone makes no part; it goes to the next one.
        if part[0] < part[1]:
            yield Sentence(*part, n_tokens=mark - first)
            first = mark
        start = stop
    yield Sentence(*trim(text, start, end), n_tokens=len(starts) - first)


def _boundary(text: str, starts: NDArray[np.uint32], mark: int, limit: int) -> int:
    """The token before which to cut the part that begins at token `mark`.

    Among the second half of the tokens that fit, the last one after a clause mark; else the last
    one that begins a word; else the last one that fits. Tokens with equal starts are bytes of one
    character and stay together.
    """
    if mark + 1 >= len(starts):
        return len(starts)
    farthest = int(starts[mark]) + limit * CHARACTERS_PER_TOKEN
    last = int(np.searchsorted(starts, farthest, side="right")) - 1
    last = max(min(last, mark + limit, len(starts) - 1), mark + 1)
    fitting = np.arange(max(mark + (last - mark) // 2, mark + 1), last + 1)
    fitting = fitting[starts[fitting] > starts[fitting - 1]]
    for begins in (_after_clause, _after_space, _between_characters):
        for token in fitting[::-1]:
            if begins(text, int(starts[token])):
                return int(token)
    if fitting.size:
        return int(fitting[-1])
    return int(np.searchsorted(starts, starts[last], side="right"))


def _after_clause(text: str, at: int) -> bool:
    return _CLAUSE_END.search(text, max(at - 3, 0), at) is not None


def _after_space(text: str, at: int) -> bool:
    return text[at - 1].isspace() or text[at].isspace()


def _between_characters(text: str, at: int) -> bool:
    return not continues(text, at)
