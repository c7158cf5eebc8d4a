"""Terms: what BM25 counts, in documents and questions alike."""

from __future__ import annotations

import hashlib
import re
import threading
import unicodedata
from functools import lru_cache

import Stemmer

# Longer words (encoded data, as a rule) are cut here, which bounds the caches below.
MAX_WORD = 64
_CACHED_WORDS = 1 << 14

_STOP_TEXT = """
a about above after again against all am an and any are as at be because been before being below
between both but by can could did do does doing don down during each few for from further had has
have having he her here hers herself him himself his how i if in into is it its itself just ll me
more most my myself no nor not now of off on once only or other our ours ourselves out over own re
s same she should so some such t than that the their theirs them themselves then there these they
this those through to too under until up ve very was we were what when where which while who whom
why will with would you your yours yourself yourselves
"""
STOP_WORDS = frozenset(_STOP_TEXT.split())

# Scripts written without spaces: every character is a word.
_SINGLE = (
    "\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# `\w` leaves out combining marks, without which words of many scripts would fall to pieces.
_MARKS = "".join(
    char for char in map(chr, range(0x300, 0x1B00)) if unicodedata.category(char).startswith("M")
)
_WORD = re.compile(rf"[{_SINGLE}]|(?:[^\W{_SINGLE}]|[{_MARKS}])+")

# A stemmer keeps state while it works, so that every thread has its own.
_local = threading.local()


def analyze(text: str) -> list[str]:
    """Cut a text into terms: normalised, case-folded, stop words removed, English words stemmed.

    Args:
        text: Any text. Chinese and Japanese characters become one term each.

    Returns:
        The terms in the order of the text, with repetitions.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return [term for word in words if (term := _term(word[:MAX_WORD]))]


@lru_cache(maxsize=_CACHED_WORDS)
def term_hash(term: str) -> int:
    """The unsigned 64-bit number that stands for a term in an index, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "little")


@lru_cache(maxsize=_CACHED_WORDS)
def _term(word: str) -> str:
    """The term of a word; empty for a stop word."""
    if word in STOP_WORDS:
        return ""
    return _stem(word) if word.isascii() else word


def _stem(word: str) -> str:
    stemmer = getattr(_local, "stemmer", None)
    if stemmer is None:
        stemmer = _local.stemmer = Stemmer.Stemmer("english", 0)
    stem: str = stemmer.stemWord(word)
    return stem
