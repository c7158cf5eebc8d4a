"""Needles in a haystack: made-up facts at known depths of a text, and questions about them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from s3_retriever.text.sentences import split_sentences
from s3_retriever_bench.longcontext.answering import Answerer
from s3_retriever_bench.longcontext.evidence import ReadContext
from s3_retriever_bench.longcontext.longbench import TASKS

_NEEDLE_PROMPT = TASKS["multifieldqa_en"].prompt
_NEEDLE_NEW_TOKENS = 32
# A fact and its question. The last two questions use other words than the fact.
_NEEDLE_FORMS = (
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
        question: The question for it.
        value: The number to find, which occurs nowhere else.
    """

    fact: str
    question: str
    value: str


@dataclass(frozen=True, slots=True)
class Haystack:
    """A text with a needle at each depth, in ascending order."""

    text: str
    needles: tuple[Needle, ...]


def make_haystack(text: str, depths: Sequence[float], number: int, seed: int) -> Haystack:
    """Put a needle at each depth of a text, between two sentences.

    Args:
        text: The haystack.
        depths: Positions, ascending: 0 is the beginning, 1 the end.
        number: Number of the haystack; it decides the facts.
        seed: Seed of the facts.
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


def _needle(generator: random.Random, number: int, text: str) -> Needle:
    fact, question = _NEEDLE_FORMS[number % len(_NEEDLE_FORMS)]
    syllables = (generator.choice(_CONSONANTS) + generator.choice(_VOWELS) for _ in range(4))
    city = "".join(syllables).capitalize()
    value = str(generator.randrange(10**6, 10**7))
    while value in text:
        value = str(generator.randrange(10**6, 10**7))
    return Needle(fact.format(city=city, value=value), question.format(city=city), value)


def probe(
    haystack: Haystack, context: ReadContext, method: str, budget: int, answerer: Answerer | None
) -> dict[str, Any]:
    """Ask for each needle with a method.

    Args:
        haystack: Text and needles.
        context: The text.
        method: A name from `evidence.METHODS`.
        budget: Tokens of evidence.
        answerer: Answers; None if the host cannot generate.

    Returns:
        JSON values. `found`: for each needle 1 if its number is in the evidence, else 0.
        `answered`: the same for the answer, None if there is none; `failed` says why if the
        prompt was too long.
    """
    before, _, rest = _NEEDLE_PROMPT.partition("{context}")
    results: dict[str, Any] = {"found": [], "answered": [], "failed": None}
    for needle in haystack.needles:
        evidence = context.evidence(method, needle.question, budget)
        after = rest.replace("{input}", needle.question)
        results["found"].append(float(needle.value in evidence))
        answered = None
        if answerer is not None:
            reply = answerer.answer(f"{before}{evidence}", after, _NEEDLE_NEW_TOKENS)
            answered = None if reply.failed else float(needle.value in reply.text)
            results["failed"] = results["failed"] or reply.failed
        results["answered"].append(answered)
    return results
