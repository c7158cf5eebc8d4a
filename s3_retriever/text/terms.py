"""Terms: what BM25 counts, in documents and questions alike."""

from __future__ import annotations

import hashlib
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import Stemmer

from s3_retriever.features import Sentence

# Version of the rules in this file; indexes record it. Raise it whenever a text gets other terms.
TERM_RULES = "1"
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

# Scripts written without spaces: each character is a word.
_SINGLE = (
    "\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# `\w` does not match combining marks; without them, words of many scripts would fall to pieces.
_MARKS = "".join(
    char for char in map(chr, range(0x300, 0x1B00)) if unicodedata.category(char).startswith("M")
)
_WORD = re.compile(rf"[{_SINGLE}]|(?:[^\W{_SINGLE}]|[{_MARKS}])+")

# A stemmer keeps state while it works, so each thread has its own.
_local = threading.local()


def analyze(text: str) -> list[str]:
    """Cut a text into terms: NFKC, case folding, no English stop words, ASCII words stemmed.

    Args:
        text: Any text. Each Chinese or Japanese character becomes a term.

    Returns:
        The terms in the order of the text, with repetitions.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return [term for word in words if (term := _term(word[:MAX_WORD]))]


def count_terms(title: str, text: str, sentences: Iterable[Sentence]) -> tuple[Counter[int], ...]:
    """Count the terms of sentences as BM25 sees them, each with the title in front.

    Args:
        title: The document's title; may be empty.
        text: The document's text.
        sentences: Sentences of the text.

    Returns:
        For each sentence, term hash to number of occurrences.
    """
    in_title = Counter(map(term_hash, analyze(title)))
    counts = []
    for sentence in sentences:
        terms = in_title.copy()
        terms.update(map(term_hash, analyze(text[sentence.start : sentence.end])))
        counts.append(terms)
    return tuple(counts)


@lru_cache(maxsize=_CACHED_WORDS)
def term_hash(term: str) -> int:
    """Hash a term to the unsigned 64-bit number by which indexes know it, on every machine."""
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
