"""Contexts from question sets."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from s3_retriever_bench.datasets.labelled import WHOLE, Labelled, QuestionSet, Source
from s3_retriever_bench.datasets.split import Split, split_of
from s3_retriever_bench.task import Context, Question, Task
from s3_retriever.calibration.sample import Evidence
from s3_retriever.document import Document
from s3_retriever.errors import InputError


@dataclass(frozen=True, slots=True)
class Choice:
    """Which questions are asked, and of how much text.

    Attributes:
        split: `dev`, `test` or `all`.
        questions: Questions of a set at most, the first ones after shuffling; all where None.
        paragraphs: Paragraphs of a mixed context.
        corpus: Documents of a shared corpus at most, those with evidence first; all where None.
        seed: Of shuffling and mixing.
    """

    split: Split = "test"
    questions: int | None = None
    paragraphs: int = 60
    corpus: int | None = None
    seed: int = 0


def build_task(questions: QuestionSet, choice: Choice) -> Task:
    """Put the chosen questions of a set among their documents.

    - Form `paragraphs`: a context for each question, its own paragraphs and those of other
      questions of the split, shuffled.
    - Form `documents`: a context for each document, with all questions asked of it. What is
      labelled are sections or turns, which are too long for a small budget; one counts as found
      when any part of it is, and recall is the share of labelled sections or turns that are hit.
    - Form `corpus`: one context with all documents and all questions.

    Raises:
        InputError: There is no question in the split.
    """
    rows = [row for row in questions.rows if _chosen(questions, row, choice.split)]
    if not rows:
        raise InputError(f"{questions.name} has no question in the split {choice.split!r}.")
    asked = list(rows)
    random.Random(choice.seed).shuffle(asked)  # noqa: S311 - no secret
    asked = asked[: choice.questions]
    if questions.form == "paragraphs":
        contexts = [_mixed(row, rows, choice) for row in asked]
    elif questions.form == "documents":
        contexts = _own_documents(asked)
    else:
        contexts = [_shared_corpus(asked, questions.corpus, choice)]
    return Task(questions.name, contexts)


def _chosen(questions: QuestionSet, row: Labelled, split: Split) -> bool:
    return split in ("all", split_of(_group(questions, row)))


def _group(questions: QuestionSet, row: Labelled) -> str:
    return row.sources[0].name if questions.form == "documents" else row.id


def _mixed(row: Labelled, rows: Sequence[Labelled], choice: Choice) -> Context:
    generator = random.Random(f"{choice.seed} {row.id}")  # noqa: S311
    chosen = dict.fromkeys(row.sources)
    for other in generator.sample(rows, len(rows)):
        for source in other.sources:
            if len(chosen) < choice.paragraphs:
                chosen.setdefault(source)
    shuffled = generator.sample(list(chosen), len(chosen))
    names = {source: f"p{number:03d}" for number, source in enumerate(shuffled)}
    return Context(_documents(names), (_question(row, names, row.id),))


def _own_documents(rows: Iterable[Labelled]) -> list[Context]:
    asked: dict[tuple[Source, ...], list[Labelled]] = {}
    for row in rows:
        asked.setdefault(row.sources, []).append(row)
    contexts = []
    for sources, group in asked.items():
        names = {source: source.name for source in sources}
        questions = tuple(_question(row, names, sources[0].name) for row in group)
        contexts.append(Context(_documents(names), questions))
    return contexts


def _shared_corpus(rows: Sequence[Labelled], corpus: Sequence[Source], choice: Choice) -> Context:
    needed = dict.fromkeys(source for row in rows for source, _ in row.support)
    generator = random.Random(choice.seed)  # noqa: S311
    for source in generator.sample(corpus, len(corpus)):
        if choice.corpus is None or len(needed) < choice.corpus:
            needed.setdefault(source)
    names = {source: source.name for source in needed}
    questions = tuple(_question(row, names, row.id) for row in rows)
    return Context(_documents(names), questions)


def _documents(names: dict[Source, str]) -> tuple[Document, ...]:
    return tuple(
        Document(source.text, name, {"title": source.title}) for source, name in names.items()
    )


def _question(row: Labelled, names: dict[Source, str], group: str) -> Question:
    evidence = tuple(
        Evidence(names[source], *source.range(piece), piece == WHOLE or not source.sentences)
        for source, piece in row.support
    )
    return Question(row.id, row.question, row.answers, evidence, group)
