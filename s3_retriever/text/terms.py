"""Terms: what BM25 counts. A document is analysed in its language, a question in all of them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

from s3_retriever.features import Sentence
from s3_retriever.text.characters import (
    MARKS,
    UNSPACED,
    clusters,
    fold,
    lone_ideographs,
    lower,
    normalize,
)
from s3_retriever.text.languages import (
    ENGLISH,
    STEMMED,
    UNKNOWN,
    is_stemmed,
    language_of_word,
    script_of,
    stem,
    stop_words,
)

# Version of the rules in this room; indexes record it. Raise it whenever a text gets other terms
# or sentences.
TERM_RULES = "3"
# Longer words (encoded data, as a rule) are cut here, which bounds the caches below.
MAX_WORD = 64
# A title's terms are stored with every sentence, so only its first ones count.
TITLE_TERMS = 64
_CACHED_WORDS = 1 << 14
# A text of more words than this in capitals alone is a heading, not abbreviations.
_ABBREVIATIONS = 3


def _pattern(letter: str) -> re.Pattern[str]:
    """Words, and runs of characters without spaces.

    A word ends with its sign (C++, C#) or, if a hyphen breaks it at the end of a line, with its
    second half.
    """
    broken = rf"(?<=[^\W\d_])[-\u2010][ \t]{{0,8}}\r?\n[ \t]{{0,80}}(?=[^\W\d_]){letter}+"
    sign = r"\+\+|#(?![A-Za-z_])"
    return re.compile(rf"[{UNSPACED}]+|{letter}+(?:{broken}|{sign})?|\.NET\b|(?<!\w)\.net\b")


_WORD = _pattern(rf"(?:[^\W{UNSPACED}]|[{MARKS}])")
_ASCII_WORD = _pattern(r"\w")
_RUN = re.compile(f"[{UNSPACED}]")
_BREAK = re.compile(r"[-\u2010]\s+")
_HANGUL = re.compile("[\uac00-\ud7a3]{3,}")
# Capitals inside surnames make no camelCase.
_NAME_PREFIXES = frozenset({"Mc", "Mac", "De", "Di", "Du", "La", "Le", "Van", "Fitz"})


def analyze(text: str, language: str = ENGLISH) -> list[str]:
    """Cut a text of a document into terms.

    Words are normalised (NFKC), case-folded and stemmed in the document's language, and its
    function words are left out. Identifiers and words that a hyphen breaks at the end of a line
    count as a whole and in parts. Scripts without spaces give each character and each pair of
    neighbours.

    Args:
        text: Any text.
        language: A key of `LANGUAGES`, or empty. Words in another script than the language's are
            stemmed in the script's default language.

    Returns:
        The terms in the order of the text, with repetitions.
    """
    terms: list[str] = []
    for word in _words(text):
        terms += _run_terms(word) if _is_run(word) else _word_terms(word, language)
    return terms


def analyze_question(text: str, languages: frozenset[str] | None = None) -> list[tuple[str, ...]]:
    """Cut a question into terms, each with what it may be in a document of any language.

    The terms of most languages say which it is, so a document is matched by the analysis of its
    own language only. A run of characters without spaces gives pairs of neighbours; single
    characters only where they stand alone.

    Args:
        text: Any text.
        languages: Languages of the documents, as for `analyze`; None if any may occur.

    Returns:
        For each term its alternatives, which are distinct: the English one first, if there is
        one.
    """
    terms: list[tuple[str, ...]] = []
    for word in _words(text):
        if _is_run(word):
            terms += [(term,) for term in _run_question_terms(word)]
        else:
            terms += _question_terms(word, languages)
    return terms


def count_terms(
    title: str, text: str, sentences: Iterable[Sentence], language: str = ENGLISH
) -> tuple[Counter[int], ...]:
    """Count the terms of sentences as BM25 sees them, each with the title in front.

    Args:
        title: The document's title; may be empty.
        text: The document's text.
        sentences: Sentences of the text.
        language: The document's language, as for `analyze`.

    Returns:
        For each sentence, term hash to number of occurrences.
    """
    in_title = Counter(map(term_hash, analyze(title, language)[:TITLE_TERMS]))
    counts = []
    for sentence in sentences:
        terms = in_title.copy()
        terms.update(map(term_hash, analyze(text[sentence.start : sentence.end], language)))
        counts.append(terms)
    return tuple(counts)


@lru_cache(maxsize=_CACHED_WORDS)
def term_hash(term: str) -> int:
    """Hash a term to the unsigned 64-bit number by which indexes know it, on every machine."""
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "little")


def _words(text: str) -> list[str]:
    """The words of a text in their own case, and its runs without spaces."""
    text = normalize(text)
    words = (_ASCII_WORD if text.isascii() else _WORD).findall(text)
    if len(words) > _ABBREVIATIONS and text.isupper():
        return [lower(word) for word in words]
    return words


def _is_run(word: str) -> bool:
    return not word.isascii() and _RUN.match(word) is not None


def _run_terms(run: str) -> list[str]:
    characters = clusters(run)
    return characters + _pairs(characters)


def _run_question_terms(run: str) -> list[str]:
    characters = clusters(run)
    if len(characters) == 1:
        return characters
    return _pairs(characters) + lone_ideographs(run)


def _pairs(characters: Sequence[str]) -> list[str]:
    return [first + second for first, second in pairwise(characters)]


@lru_cache(maxsize=_CACHED_WORDS)
def _word_terms(word: str, language: str) -> tuple[str, ...]:
    terms = []
    for form in _forms(word):
        term = _term(form, language)
        terms.append(term)
        # Stemmers of other languages unite more than English's, so the word itself counts too.
        if ":" in term:
            terms.append(_term(form, UNKNOWN))
    return tuple(dict.fromkeys(term for term in terms if term))


@lru_cache(maxsize=_CACHED_WORDS)
def _question_terms(word: str, languages: frozenset[str] | None) -> tuple[tuple[str, ...], ...]:
    terms = []
    for form in _forms(word):
        script = script_of(form)
        possible = [*STEMMED.get(script, ()), UNKNOWN]
        if languages is not None:
            there = {language_of_word(script, each) for each in languages}
            # Documents in other languages than English also have the words as they are.
            kept = there if there == {ENGLISH} else there | {UNKNOWN}
            possible = [each for each in possible if each in kept]
        terms.append(tuple(term for each in possible if (term := _term(form, each))))
    return tuple(alternatives for alternatives in terms if alternatives)


def _forms(word: str) -> list[str]:
    """A word as a whole, and its parts if it is broken, an identifier, or a long Hangul word."""
    halves = _BREAK.split(word)
    if len(halves) == 2:
        return ["".join(halves)[:MAX_WORD], *(half[:MAX_WORD] for half in halves)]
    name = word.rstrip("+#")
    if name != word:
        # A letter with a sign is another name than the letter: C, C++ and C# must not meet.
        if len(name) == 1 and name.isalpha():
            return [word]
        return [word[-MAX_WORD:], *_forms(name)] if word[-1] == "+" else _forms(name)
    word = word[:MAX_WORD].strip("_")
    if not word:
        return []
    if _HANGUL.fullmatch(word):
        return [word, *_pairs(word)]
    parts = [hump for part in word.split("_") for hump in _humps(part)]
    return [word, *(part for part in parts if len(part) > 1)] if len(parts) > 1 else [word]


def _humps(word: str) -> list[str]:
    """Cut camelCase before its capitals: getURLPath gives get, URL and Path."""
    if word.islower() or word.isupper() or word.istitle():
        return [word]
    cuts = [
        at
        for at in range(1, len(word))
        if word[at].isupper()
        and (word[at - 1].islower() or (word[at - 1].isupper() and word[at + 1 : at + 2].islower()))
    ]
    parts = [word[start:end] for start, end in pairwise([0, *cuts, len(word)])]
    return parts if _is_camel_case(parts) else [word]


def _is_camel_case(parts: Sequence[str]) -> bool:
    """Whether a word of these parts is an identifier, unlike McDonald, PhD, mRNA and iOS."""
    first, *others = parts
    if not others or first in _NAME_PREFIXES:
        return False
    if first[0].islower() and (len(first) > 2 or (len(first) == 2 and others[0][1:2].islower())):
        return True
    return sum(len(part) > 2 for part in parts) > 1


def _term(form: str, language: str) -> str:
    """The term of a word in a language; empty for a function word.

    English terms are bare stems. Those of other languages that share a script begin with their
    language, and those of words that are not stemmed there with a colon.
    """
    word = lower(form)
    script = script_of(word)
    language = language_of_word(script, language)
    if word in stop_words(language) and not _is_abbreviation(form):
        return ""
    if language == ENGLISH:
        word = fold(word, script)
        return stem(word, ENGLISH) if word.isascii() else word
    stemmed = fold(stem(word, language), script)
    if script not in STEMMED:
        return stemmed
    return f"{language if is_stemmed(language) else UNKNOWN}:{stemmed}"


def _is_abbreviation(word: str) -> bool:
    """Whether a function word is more likely an abbreviation: IT, WHO, US, not THE or WITH."""
    return 2 <= len(word) <= 3 and word.isupper() and word != "THE"
