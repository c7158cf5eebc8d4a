"""Question sets with labelled evidence, from local JSON Lines files."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3_retriever.document import Document
from s3_retriever.errors import InputError

WHOLE_PARAGRAPH = -1


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A titled paragraph, cut into sentences by the data set's authors."""

    title: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """The sentences in one, separated by white space."""
        return " ".join(sentence.strip() for sentence in self.sentences)

    def range(self, sentence: int) -> tuple[int, int]:
        """Characters of `text` that a sentence covers; of all of it for `WHOLE_PARAGRAPH`."""
        if sentence == WHOLE_PARAGRAPH:
            return 0, len(self.text)
        start = sum(len(text.strip()) + 1 for text in self.sentences[:sentence])
        return start, start + len(self.sentences[sentence].strip())


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its paragraphs and which sentences of them are evidence.

    Attributes:
        support: Pairs of paragraph and sentence; `WHOLE_PARAGRAPH` where the data set labels
            paragraphs.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    paragraphs: tuple[Paragraph, ...]
    support: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Context:
    """A question among documents: its own paragraphs and those of other questions, shuffled.

    Attributes:
        evidence: Triples of document id, first character, character after the last, and whether
            any part of it will do (a whole paragraph is labelled, one sentence of it answers).
    """

    question: Question
    documents: tuple[Document, ...]
    evidence: tuple[tuple[str, int, int, bool], ...]


def load_questions(path: Path) -> list[Question]:
    """Read a question set.

    Args:
        path: JSON Lines with `id`, `question`, `answers`, `docs` (a list of `title` and `sents`)
            and `support` (pairs of paragraph and sentence number).

    Raises:
        InputError: The file is missing or a row is not of that form.
    """
    questions: list[Question] = []
    try:
        with path.open(encoding="utf-8") as lines:
            questions.extend(_question(json.loads(line)) for line in lines)
    except OSError as error:
        raise InputError(f"The question set {path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{path}, line {len(questions) + 1}, is no question with evidence: {error!r}"
        ) from error
    return questions


def build_contexts(
    questions: Sequence[Question], paragraphs: int, count: int | None, seed: int
) -> list[Context]:
    """Mix each question's own paragraphs with other questions' until there are `paragraphs`.

    Args:
        questions: The set.
        paragraphs: Size of a context.
        count: Contexts at most, the first ones after shuffling; all where None.
        seed: Of the shuffling and mixing.
    """
    order = list(questions)
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret
    return [_context(question, questions, paragraphs, seed) for question in order[:count]]


def _question(row: dict[str, Any]) -> Question:
    paragraphs = tuple(Paragraph(d["title"], tuple(d["sents"])) for d in row["docs"])
    support = tuple(sorted({(int(p), int(s)) for p, s in row["support"]}))
    for paragraph, sentence in support:
        paragraphs[paragraph].range(sentence)
    return Question(row["id"], row["question"], tuple(row.get("answers", ())), paragraphs, support)


def _context(question: Question, questions: Sequence[Question], size: int, seed: int) -> Context:
    generator = random.Random(f"{seed} {question.id}")  # noqa: S311
    chosen = list(dict.fromkeys(question.paragraphs))
    seen = set(chosen)
    pool = [p for other in generator.sample(questions, len(questions)) for p in other.paragraphs]
    for paragraph in pool:
        if len(chosen) >= size:
            break
        if paragraph not in seen:
            seen.add(paragraph)
            chosen.append(paragraph)
    generator.shuffle(chosen)
    names = {paragraph: f"p{i:03d}" for i, paragraph in enumerate(chosen)}
    documents = tuple(
        Document(paragraph.text, names[paragraph], {"title": paragraph.title})
        for paragraph in chosen
    )
    evidence = []
    for place, sentence in question.support:
        paragraph = question.paragraphs[place]
        start, end = paragraph.range(sentence)
        evidence.append((names[paragraph], start, end, sentence == WHOLE_PARAGRAPH))
    return Context(question, documents, tuple(evidence))
