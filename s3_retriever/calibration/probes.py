"""Probes: questions made from plain text, by which layers and heads of a host are compared.

`questions_from` takes the sentences that it asks about out of the text. Probes leave them in: they
ask for a sentence by some of its words, or for a fact that was planted. A layer or a head that does
not find these finds nothing else.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from s3_retriever.calibration.questions import GoldSpan, LabelledQuestion, Sample, crop
from s3_retriever.codebook.sentence_map import titled
from s3_retriever.text import analyze, split_sentences

# Characters of a context, about 4,000 tokens, and of each of its documents.
_CONTEXT_CHARACTERS = 16_000
_DOCUMENT_CHARACTERS = 1_000
# Fewest sentences of a context: among less, chance finds too much.
_FEWEST_SENTENCES = 20
# Questions of each of the three kinds in a context.
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
_SYLLABLES = "ka ri mo tes lan du bel vor nim sha gra pel tor win zu fen os mar dil ro cas".split()


@dataclass(eq=False, slots=True)
class _Sentence:
    """A sentence of a context; two with the same text are not the same."""

    text: str


def probes_from(texts: Iterable[str], contexts: int, seed: int = 0) -> Iterator[Sample]:
    """Make contexts of about 4,000 tokens, each with up to 30 questions.

    A third of the questions are half of a sentence, a third are three words of a sentence, and a
    third ask for a fact about an invented name, which is planted among the sentences.

    Args:
        texts: Plain texts in any language (planted facts are English), read as far as needed.
        contexts: Most contexts; there are fewer if the text ends.
        seed: Seed of the random choice.

    Yields:
        A context's documents, and its questions with the sentence that each asks for.
    """
    generator = random.Random(seed)  # noqa: S311 - not a secret
    for passages in islice(_contexts(texts), contexts):
        yield _sample(passages, generator)


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


def _sample(passages: list[list[_Sentence]], generator: random.Random) -> Sample:
    """Ask for sentences that say enough, and for facts planted among them."""
    telling = [each for passage in passages for each in passage if _says_enough(each.text)]
    count = min(_EACH, len(telling))
    asked = [(crop(each.text, generator), each) for each in generator.sample(telling, count)]
    asked += [(_words(each.text, generator), each) for each in generator.sample(telling, count)]
    asked += _plant(passages, generator)
    documents, places = [], {}
    for passage in passages:
        document = titled(" ".join(sentence.text for sentence in passage))
        documents.append(document)
        start = 0
        for sentence in passage:
            end = start + len(sentence.text)
            places[sentence] = GoldSpan(document.id, start, end)
            start = end + 1
    questions = tuple(LabelledQuestion(text, (places[target],)) for text, target in asked)
    return Sample(tuple(documents), questions)


def _says_enough(text: str) -> bool:
    return len(set(analyze(text))) >= _FEWEST_TERMS


def _words(sentence: str, generator: random.Random) -> str:
    """Take some words that are not function words, in any order; a part if there are too few."""
    words = [word for word in dict.fromkeys(_WORD.findall(sentence)) if analyze(word)]
    if len(words) < _FEWEST_TERMS:
        return crop(sentence, generator)
    return " ".join(generator.sample(words, _WORDS))


def _plant(
    passages: Sequence[list[_Sentence]], generator: random.Random
) -> list[tuple[str, _Sentence]]:
    """Put facts about invented names between sentences; returns a question about each name."""
    asked = []
    for _ in range(_EACH):
        name = f"{_name(generator)} {_name(generator)}"
        facts = []
        for statement, question in generator.sample(_FACTS, _FACTS_PER_NAME):
            number = generator.randrange(1_000, 2_000)
            fact = _Sentence(
                statement.format(name=name, other=_name(generator), number=number)
            )
            passage = generator.choice(passages)
            passage.insert(generator.randrange(len(passage) + 1), fact)
            facts.append((question.format(name=name), fact))
        asked.append(facts[0])
    return asked


def _name(generator: random.Random) -> str:
    return "".join(generator.sample(_SYLLABLES, generator.choice((2, 3)))).capitalize()
