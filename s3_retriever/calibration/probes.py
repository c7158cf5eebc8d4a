"""Probes: questions made from plain text, by which layers and heads of a host are compared.

A head must find the sentence that a question is about. It is asked for sentences by some of their
words, and for facts that are planted. A layer's mean states find those without fail, whatever the
layer. They must find what is near in meaning: the neighbours of a sentence that is taken out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from s3_retriever.calibration.questions import GoldSpan, LabelledQuestion, crop
from s3_retriever.codebook.sentence_map import titled
from s3_retriever.document import Document
from s3_retriever.text import analyze, split_sentences
from s3_retriever.types import check_string

# Characters of a context, about 4,000 tokens, and of each of its documents.
_CONTEXT_CHARACTERS = 16_000
_DOCUMENT_CHARACTERS = 1_000
# Fewest sentences of a context: among fewer, chance finds too much.
_FEWEST_SENTENCES = 20
# Questions of each kind in a context.
_EACH = 10
# Distinct terms of a sentence that is asked for, and of a question made of single words.
_FEWEST_TERMS = 4
_WORDS = 3
_WORD = re.compile(r"\w+")
# A fact, and a question for it in other words. {name} and {other} are invented.
_FACTS = (
    ("The secret number of {name} is {number}.", "What is the secret number of {name}?"),
    ("{name} was born in the town of {other}.", "Where did {name} come into the world?"),
    ("The head of {name} is called {other}.", "Who leads {name}?"),
    ("{name} costs {number} dollars.", "How much must be paid for {name}?"),
    ("A book about {name} was written by {other}.", "Who is the author of the work on {name}?"),
    ("{name} was founded in {number}.", "In which year was {name} established?"),
    ("The river {other} flows through {name}.", "What is the name of the river in {name}?"),
    ("{name} plays the violin in {other}.", "Which instrument does {name} play?"),
)
# Facts about each name, of which one is asked for: the name alone does not find it.
_FACTS_PER_NAME = 3
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


@dataclass(eq=False, slots=True)
class _Sentence:
    """A sentence of a context; two with the same text are not the same."""

    text: str


# A question and its targets.
_Asked = tuple[str, list[_Sentence]]


class Probe(NamedTuple):
    """A context and the questions about it.

    Attributes:
        documents: What is searched.
        pointed: Questions with the one sentence that each asks for.
        topical: Questions with the sentences that are about the same thing.
    """

    documents: tuple[Document, ...]
    pointed: tuple[LabelledQuestion, ...]
    topical: tuple[LabelledQuestion, ...]


def probes_from(texts: Iterable[str], contexts: int, seed: int = 0) -> Iterator[Probe]:
    """Make contexts of about 4,000 tokens, each with up to 50 questions.

    Pointed questions are half of a sentence, three words of a sentence, or ask for a fact about an
    invented name, which is planted among the sentences. Topical questions are halves and words of
    sentences that are taken out, and their targets the sentences before and after these.

    Args:
        texts: Plain texts in any language (planted facts are English), read as far as needed.
        contexts: Most contexts; there are fewer if the text ends.
        seed: Seed of the random choice.

    Raises:
        InputError: A text is not a string.
    """
    generator = random.Random(seed)  # noqa: S311 - not a secret
    for passages in islice(_contexts(texts), contexts):
        yield _probe(passages, generator)


def _contexts(texts: Iterable[str]) -> Iterator[list[list[_Sentence]]]:
    """Group passages into contexts."""
    context: list[list[_Sentence]] = []
    size = 0
    for passage in _passages(texts):
        context.append(passage)
        size += sum(len(sentence.text) for sentence in passage)
        if size >= _CONTEXT_CHARACTERS:
            yield context
            context, size = [], 0
    if sum(map(len, context)) >= _FEWEST_SENTENCES:
        yield context


def _passages(texts: Iterable[str]) -> Iterator[list[_Sentence]]:
    """Cut texts into runs of sentences of about a paragraph, without repetitions."""
    known: set[str] = set()
    for text in texts:
        check_string(text, "text")
        passage: list[_Sentence] = []
        size = 0
        for start, end in split_sentences(text):
            if text[start:end] in known:
                continue
            known.add(text[start:end])
            passage.append(_Sentence(text[start:end]))
            size += end - start
            if size >= _DOCUMENT_CHARACTERS:
                yield passage
                passage, size = [], 0
        if passage:
            yield passage


def _probe(passages: list[list[_Sentence]], generator: random.Random) -> Probe:
    """Take some sentences out, plant facts, and ask."""
    topical = _take_out(passages, generator)
    telling = [each for passage in passages for each in passage if _says_enough(each.text)]
    count = min(_EACH, len(telling))
    pointed = [
        (make(each.text, generator), [each])
        for make in (crop, _words)
        for each in generator.sample(telling, count)
    ]
    pointed += _plant(passages, generator)
    documents: list[Document] = []
    places: dict[_Sentence, GoldSpan] = {}
    for passage in passages:
        document = titled(" ".join(sentence.text for sentence in passage))
        documents.append(document)
        start = 0
        for sentence in passage:
            end = start + len(sentence.text)
            places[sentence] = GoldSpan(document.id, start, end)
            start = end + 1

    def labelled(asked: Sequence[_Asked]) -> tuple[LabelledQuestion, ...]:
        return tuple(
            LabelledQuestion(text, tuple(places[target] for target in targets))
            for text, targets in asked
        )

    return Probe(tuple(documents), labelled(pointed), labelled(topical))


def _take_out(passages: Sequence[list[_Sentence]], generator: random.Random) -> list[_Asked]:
    """Remove one sentence of some passages; returns two questions made of each."""
    asked: list[_Asked] = []
    for passage in generator.sample(passages, len(passages)):
        inner = [n for n in range(1, len(passage) - 1) if _says_enough(passage[n].text)]
        if not inner:
            continue
        place = generator.choice(inner)
        targets = [passage[place - 1], passage[place + 1]]
        text = passage.pop(place).text
        asked += [(make(text, generator), targets) for make in (crop, _words)]
        if len(asked) >= 2 * _EACH:
            break
    return asked


def _says_enough(text: str) -> bool:
    return len(set(analyze(text))) >= _FEWEST_TERMS


def _words(sentence: str, generator: random.Random) -> str:
    """Take some words that are not function words, in any order; a part if there are too few."""
    words = [word for word in dict.fromkeys(_WORD.findall(sentence)) if analyze(word)]
    if len(words) < _FEWEST_TERMS:
        return crop(sentence, generator)
    return " ".join(generator.sample(words, _WORDS))


def _plant(passages: Sequence[list[_Sentence]], generator: random.Random) -> list[_Asked]:
    """Put facts about invented names between sentences; returns a question about each name."""
    asked: list[_Asked] = []
    for _ in range(_EACH):
        name = f"{_name(generator)} {_name(generator)}"
        facts: list[_Asked] = []
        for statement, question in generator.sample(_FACTS, _FACTS_PER_NAME):
            number = generator.randrange(1_000, 2_000)
            fact = _Sentence(statement.format(name=name, other=_name(generator), number=number))
            passage = generator.choice(passages)
            passage.insert(generator.randrange(len(passage) + 1), fact)
            facts.append((question.format(name=name), [fact]))
        asked.append(facts[0])
    return asked


def _name(generator: random.Random) -> str:
    pairs = (generator.choice(_CONSONANTS) + generator.choice(_VOWELS) for _ in range(3))
    return "".join(pairs).capitalize()
