"""Needles in a haystack: made-up facts at known depths of a text that has nothing to do with them.

The test is Kamradt's "Needle In A Haystack" (2023), with several facts in one text, as RULER's
multi-key variant has them (arXiv 2404.06654): each is asked for, the others stand in the way.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever.text.sentences import split_sentences
from s3_retriever_bench.inference.contexts import write_context

# A fact and the question for it. The last two are asked for in other words.
_FORMS = (
    ("The magic number of {city} is {value}.", "What is the magic number of {city}?"),
    (
        "The lighthouse keeper of {city} locked the map in box {value}.",
        "In which box did the lighthouse keeper of {city} lock the map?",
    ),
    ("To open the vault in {city}, dial {value}.", "Which code unlocks the safe in {city}?"),
    (
        "The mayor of {city} can be reached by telephone under {value}.",
        "Which number do I call to speak to the mayor of {city}?",
    ),
)
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


@dataclass(frozen=True, slots=True)
class Needle:
    """A made-up fact.

    Attributes:
        fact: The sentence in the text.
        question: Asks for it.
        value: What is to be found: a number that stands nowhere else.
    """

    fact: str
    question: str
    value: str


@dataclass(frozen=True, slots=True)
class Haystack:
    """A text with a needle at each depth.

    Attributes:
        text: Haystack and needles.
        needles: In the order of their depths.
    """

    text: str
    needles: tuple[Needle, ...]


def make_haystack(text: str, depths: Sequence[float], number: int, seed: int) -> Haystack:
    """Put a needle at each depth of a text, between two sentences.

    Args:
        text: The haystack.
        depths: Where, ascending: 0 is the beginning, 1 the end.
        number: Of the needles: with another one, each depth has another fact.
        seed: Of the facts.
    """
    generator = random.Random(f"{seed} {number}")  # noqa: S311 - no secret
    needles = [_needle(generator, number + place, text) for place in range(len(depths))]
    starts = [start for start, _ in split_sentences(text)]
    places = [*starts, len(text)]
    parts: list[str] = []
    before = 0
    for depth, needle in zip(depths, needles, strict=True):
        place = places[round(depth * len(starts))]
        fact = f" {needle.fact}" if place == len(text) else f"{needle.fact} "
        parts += [text[before:place], fact]
        before = place
    return Haystack("".join([*parts, text[before:]]), tuple(needles))


def haystack_text(files: Sequence[Path], tokenizer: OffsetTokenizer, tokens: int) -> str:
    """The beginning of the files, of so many tokens."""
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "haystack.txt"
        write_context(files, tokenizer, tokens, path)
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()


def _needle(generator: random.Random, number: int, text: str) -> Needle:
    fact, question = _FORMS[number % len(_FORMS)]
    city = "".join(generator.choice(_CONSONANTS) + generator.choice(_VOWELS) for _ in range(4))
    named = {"city": city.capitalize()}
    value = str(generator.randrange(10**6, 10**7))
    while value in text:
        value = str(generator.randrange(10**6, 10**7))
    return Needle(fact.format(**named, value=value), question.format(**named), value)
