"""Characters: what counts as the same letter, whatever its script and however it is written."""

from __future__ import annotations

import re
import unicodedata

# Scripts written without spaces between words: Han and kana, Thai, Lao, Khmer, Burmese.
_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
UNSPACED = (
    f"{_HAN}\u3041-\u3096\u309d\u309e\u30a1-\u30fa\u30fc-\u30fe\u31f0-\u31ff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1780-\u17d3\u17d7\u17dc\u17dd"
    "\u1000-\u103f\u1050-\u109f\ua9e0-\ua9fe\uaa60-\uaa7f"
)
# `\w` does not match combining marks; without them, words of many scripts would fall to pieces.
MARKS = "".join(
    char for char in map(chr, range(0x300, 0x1B00)) if unicodedata.category(char).startswith("M")
)
# Putting the marks of a letter in order takes quadratic time; real text has a few (the
# stream-safe format of Unicode allows 30).
_MANY_MARKS = re.compile(rf"([{MARKS}]{{30}})[{MARKS}]+")
# Characters that Unicode says to ignore: soft hyphens, zero widths, directions, variations.
_IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]+"
)
_SOFT_BREAK = re.compile("[\u00ad\u00ac][ \t]{0,8}\r?\n[ \t]{0,80}")
# Vowel signs and tatweel of Arabic, points of Hebrew: written or not, it is the same word.
_OPTIONAL = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]+"
)
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
_DIACRITICS = re.compile("[\u0300-\u036f]+")
# A character with its marks and, in Khmer and Burmese, with the letters below it.
_CLUSTER = re.compile(rf".[{MARKS}]*(?:(?<=[\u17d2\u1039]).[{MARKS}]*)*")
_CONTINUED = re.compile(rf"[{MARKS}\u200c\u200d\ufe00-\ufe0f\U0001f3fb-\U0001f3ff]")
_LONE_HAN = re.compile(rf"(?<![{_HAN}])[{_HAN}](?![{_HAN}])")
# Letters that are written for each other: alefs, yehs, kafs and hehs of Arabic, Russian yo.
_VARIANTS = str.maketrans(
    "\u0623\u0625\u0622\u0671\u0649\u06cc\u06a9\u0629\u06c1\u0451",
    "\u0627\u0627\u0627\u0627\u064a\u064a\u0643\u0647\u0647\u0435",
)
# Latin letters with a stroke, which do not decompose.
_STROKES = str.maketrans("\u0142\u00f8\u0111\u0127", "lodh") | {0xE6: "ae", 0x153: "oe"}


def normalize(text: str) -> str:
    """Bring a text to one spelling: NFKC, without ignorable characters, with ASCII digits.

    Words that a soft hyphen breaks at the end of a line are joined.
    """
    if text.isascii():
        return text
    text = _SOFT_BREAK.sub("", text)
    text = _IGNORED.sub("", text)
    text = _MANY_MARKS.sub(r"\1", text)
    text = _OPTIONAL.sub("", unicodedata.normalize("NFKC", text))
    return _FOREIGN_DIGIT.sub(lambda match: str(unicodedata.decimal(match.group())), text)


def lower(word: str) -> str:
    """Fold the case of a word, and letters that are written for each other.

    Final sigma and ß are folded too, and all i's of Turkish are one letter.
    """
    if word.isascii():
        return word.lower()
    folded = unicodedata.normalize("NFC", word.casefold().replace("\u0131", "i"))
    # Marks that belong to a letter are part of it by now.
    return _DIACRITICS.sub("", folded).translate(_VARIANTS)


def fold(word: str, script: str) -> str:
    """Reduce a case-folded word to plain letters: no accents on Latin and Greek ones.

    Args:
        word: The word.
        script: Its script, as `languages.script_of` names it.
    """
    if word.isascii():
        return word
    if script not in ("LATIN", "GREEK"):
        return word
    return _DIACRITICS.sub("", unicodedata.normalize("NFD", word)).translate(_STROKES)


def clusters(run: str) -> list[str]:
    """Cut a run of characters into letters with their marks."""
    return _CLUSTER.findall(run)


def lone_ideographs(run: str) -> list[str]:
    """Han characters without a Han character beside them: words, as a rule, in Japanese."""
    return _LONE_HAN.findall(run)


def continues(text: str, at: int) -> bool:
    """Whether the character at a position belongs to the one before it: a mark, a joined emoji."""
    if at <= 0 or at >= len(text):
        return False
    return _CONTINUED.match(text, at) is not None or text[at - 1] == "\u200d"
