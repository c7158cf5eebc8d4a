"""Languages: which one a document is in, its function words, and its stemmer."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import Stemmer

from s3_retriever.text.characters import lower, normalize

ENGLISH = "en"
# A language without a stemmer here, or without a name: words stay as they are written.
UNKNOWN = ""

# Characters of a document's beginning that its language is guessed from.
SAMPLE_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class Language:
    """What is known of a language.

    Attributes:
        script: First word of the Unicode names of its letters, such as `LATIN`.
        stemmer: Name of its Snowball stemmer; empty for none.
        words: Its function words, case-folded. They give the language away and are not searched.
    """

    script: str
    stemmer: str
    words: frozenset[str]


_TABLE = Path(__file__).with_name("languages.txt")
# Other ways to write a code in metadata.
_ALIASES = {"nb": "no", "nn": "no", "bs": "hr", "ms": "id", "fil": "tl", "iw": "he", "in": "id"}
# Languages that are known by name only.
_OTHERS = """
am as az be bn bo br cy dv dz fo fy gd gl gu ha haw hmn ht ig ja jv ka kk km kn ko ku ky la lb lo
mg mi mk ml mn mt my or pa ps rw sa sd si sm sn so st su te tg th ti tk tt ug uz xh yi yo zh zu
"""


def _parsed() -> tuple[dict[str, Language], dict[str, str]]:
    languages, names = {}, {}
    script = ""
    for line in _TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        head, _, words = line.partition(":")
        if not words:
            script = head
            continue
        code, stemmer, name = head.split()
        names[name] = code
        languages[code] = Language(
            script, "" if stemmer == "-" else stemmer, frozenset(map(lower, words.split()))
        )
    return languages, names


LANGUAGES, _NAMES = _parsed()
# The languages of each function word.
_LISTED: dict[str, list[str]] = {}
for _code, _language in LANGUAGES.items():
    for _word in _language.words:
        _LISTED.setdefault(_word, []).append(_code)
# Languages with a stemmer, by script; the first is the default of words in that script.
STEMMED: dict[str, tuple[str, ...]] = {
    script: tuple(
        code for code, each in LANGUAGES.items() if each.script == script and each.stemmer
    )
    for script in dict.fromkeys(each.script for each in LANGUAGES.values() if each.stemmer)
}

# Arabic letters as Persian's stemmer wants them.
_PERSIAN = str.maketrans("\u064a\u0643", "\u06cc\u06a9")
_WORDS = re.compile(r"[^\W\d_]+")
# Stemmers keep state while they work, so each thread has its own.
_local = threading.local()


def language_of(text: str, metadata: Mapping[str, Any]) -> str:
    """The language of a document: what its metadata say, else a guess from its function words.

    Args:
        text: The document's text.
        metadata: Its metadata. `language` may be a code such as `de` or `pt-BR`, or an English
            name such as `German`; anything else is ignored.

    Returns:
        A key of `LANGUAGES`; empty for a language that is named but not listed there. A text that
        is too short to judge counts as English, which concerns its words in Latin script only.
    """
    named = metadata.get("language")
    code = _named(named) if isinstance(named, str) else None
    return _guessed(text[:SAMPLE_CHARACTERS]) if code is None else code


def _named(name: str) -> str | None:
    """The language of a code or name; None if it is not a language."""
    name = name.strip().lower()
    code = _NAMES.get(name) or re.split("[-_]", name, maxsplit=1)[0]
    code = _ALIASES.get(code, code)
    if code in LANGUAGES:
        return code
    return UNKNOWN if code in _OTHERS.split() else None


@lru_cache(maxsize=4096)
def _guessed(sample: str) -> str:
    words = Counter(map(lower, _WORDS.findall(normalize(sample))))
    # Function words by language: those that English does not have, and those that it shares.
    own: Counter[str] = Counter()
    shared: Counter[str] = Counter()
    for word in words.keys() & _LISTED.keys():
        codes = _LISTED[word]
        (shared if ENGLISH in codes else own).update(dict.fromkeys(codes, words[word]))
    best, most = ENGLISH, 0
    for code in LANGUAGES:
        hits, against = own[code], shared[ENGLISH] - shared[code]
        # Names and quotations must not make an English text foreign.
        if hits > most and hits >= max(2, 0.12 * words.total(), 4 * against):
            best, most = code, hits
    return best


def language_of_word(script: str, language: str) -> str:
    """The language in which to stem a word: the document's if the word has its script.

    Args:
        script: The word's script; empty for a number.
        language: The document's language.
    """
    if not script or language == UNKNOWN:
        return UNKNOWN
    if LANGUAGES[language].script == script:
        return language
    return STEMMED.get(script, (UNKNOWN,))[0]


def stop_words(language: str) -> frozenset[str]:
    """The function words of a language, case-folded; none if the language is not listed."""
    return LANGUAGES[language].words if language else frozenset()


def is_stemmed(language: str) -> bool:
    """Whether there is a stemmer for a language."""
    return bool(language and LANGUAGES[language].stemmer)


def script_of(word: str) -> str:
    """First word of the Unicode name of a word's first letter; empty without letters."""
    letter = next((char for char in word if char.isalpha()), "")
    return unicodedata.name(letter, "").partition(" ")[0] if letter else ""


def stem(word: str, language: str) -> str:
    """Stem a case-folded word; in a language without a stemmer it stays as it is."""
    if not is_stemmed(language):
        return word
    name = LANGUAGES[language].stemmer
    if language == "fa":
        word = word.translate(_PERSIAN)
    stemmers = getattr(_local, "stemmers", None)
    if stemmers is None:
        stemmers = _local.stemmers = {}
    if name not in stemmers:
        stemmers[name] = Stemmer.Stemmer(name, 0)
    stemmed: str = stemmers[name].stemWord(word)
    return stemmed
