"""Question sets with labelled evidence: reading JSON Lines, and building tasks from them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from s3_retriever.calibration.evaluation import Located
from s3_retriever.calibration.questions import GoldSpan
from s3_retriever.document import Document
from s3_retriever.errors import InputError
from s3_retriever.types import Split


class Piece(Located, Protocol):
    """A piece of a document with its text and size; `Span` is one."""

    @property
    def text(self) -> str:
        """The document's text from `start` to `end`."""

    @property
    def tokens(self) -> int:
        """Length in tokens of the host."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question with labelled evidence.

    Attributes:
        id: Its id in the question set.
        text: What is asked.
        answers: Strings that answer it; may be empty.
        evidence: Where the documents answer it.
        group: Its id, or its document's name if several questions are asked of a document.
            Questions of a group are not independent: dev and test share no group.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    evidence: tuple[GoldSpan, ...]
    group: str


@dataclass(frozen=True, slots=True)
class Context:
    """Documents that are searched together, and the questions asked of them."""

    documents: tuple[Document, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """A named list of contexts."""

    name: str
    contexts: Sequence[Context]

    def questions(self) -> Iterator[Question]:
        """All questions, in the order they are asked."""
        for context in self.contexts:
            yield from context.questions

    def digest(self) -> str:
        """A hash of documents and questions, which keeps results of different tasks apart."""
        digest = hashlib.blake2b(digest_size=8)
        for context in self.contexts:
            for document in context.documents:
                digest.update(f"{document.id}\0{document.title}\0{document.text}\0".encode())
            for question in context.questions:
                digest.update(f"{question.id}\0{question.text}\0{question.evidence}\0".encode())
        return digest.hexdigest()


# The number that stands for all pieces of a source.
WHOLE = -1

# `paragraphs`: each question comes with its own, and others are mixed in. `documents`: each
# question is asked of one long document. `corpus`: all questions are asked of all documents.
Form = Literal["paragraphs", "documents", "corpus"]


@dataclass(frozen=True)
class Source:
    """A text in labelled pieces.

    Attributes:
        name: Its id, or its title if it has no id.
        title: The title of its document; empty if the title would not help a search.
        pieces: Its sentences, or the sections or turns of a long document.
        sentences: Whether the pieces are sentences.
    """

    name: str
    title: str
    pieces: tuple[str, ...]
    sentences: bool = True

    @cached_property
    def text(self) -> str:
        """All pieces: sentences joined by spaces, sections and turns by line breaks."""
        return (" " if self.sentences else "\n").join(piece.strip() for piece in self.pieces)

    @cached_property
    def _starts(self) -> list[int]:
        return list(accumulate((len(piece.strip()) + 1 for piece in self.pieces), initial=0))

    def range(self, piece: int) -> tuple[int, int]:
        """The characters of `text` that a piece covers; all of them for `WHOLE`.

        Raises:
            IndexError: There is no such piece.
        """
        if piece == WHOLE:
            return 0, len(self.text)
        if not 0 <= piece < len(self.pieces):
            raise IndexError(f"{self.name!r} has no piece {piece}")
        return self._starts[piece], self._starts[piece + 1] - 1


@dataclass(frozen=True, slots=True)
class Labelled:
    """A question of a set, before its documents are put together.

    Attributes:
        id: Its id in the question set.
        question: What is asked.
        answers: Strings that answer it; may be empty.
        sources: The texts that it comes with; empty in a corpus.
        support: The evidence: sources and numbers of their pieces.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    sources: tuple[Source, ...]
    support: tuple[tuple[Source, int], ...]


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions, and the documents they share.

    Attributes:
        name: Shown in reports.
        form: Which documents a question is asked of.
        rows: The questions that have evidence.
        corpus: All documents of form `corpus`; empty otherwise.
    """

    name: str
    form: Form
    rows: Sequence[Labelled]
    corpus: tuple[Source, ...] = ()


def form_of(row: Mapping[str, Any]) -> Form:
    """The form of the set that a row comes from, recognised by its keys."""
    if "docs" in row:
        return "paragraphs"
    return "documents" if "doc_ids" in row else "corpus"


def parse_sources(rows: Iterable[Mapping[str, Any]], form: Form) -> dict[str, Source]:
    """Sources by name, from rows with `title`, `sents` and, in a corpus, `doc_id`.

    A document that is searched alone loses its title, which would not help a search.
    """
    sources: dict[str, Source] = {}
    for row in rows:
        name = str(row.get("doc_id", row["title"]))
        title = "" if form == "documents" else row["title"]
        sources[name] = Source(name, title, tuple(row["sents"]), form != "documents")
    return sources


def parse_row(row: Mapping[str, Any], known: Mapping[str, Source]) -> Labelled:
    """A question with its evidence.

    Args:
        row: `id`, `question`, `support` (pairs of a source and the number of a piece) and
            optionally `answers`. `support` gives a source by its index in `docs` (the sources
            themselves) or in `doc_ids` (names of known sources), or, if the row has neither, by
            its name.
        known: Sources by name.

    Raises:
        KeyError, IndexError, TypeError, ValueError: The row does not have that form.
    """
    form = form_of(row)
    if form == "paragraphs":
        own = tuple(Source(d["title"], d["title"], tuple(d["sents"])) for d in row["docs"])
    else:
        own = tuple(known[name] for name in row.get("doc_ids", ()))
    pairs = sorted({(str(place), int(piece)) for place, piece in row["support"]})
    support = tuple(
        (known[place] if form == "corpus" else own[int(place)], piece) for place, piece in pairs
    )
    for source, piece in support:
        source.range(piece)
    return Labelled(str(row["id"]), row["question"], tuple(row.get("answers", ())), own, support)


_DEV_TENTHS = 4


def split_of(group: str) -> Split:
    """The split of a group, the same every time: `dev` for about 40 % of groups, else `test`.

    The package's defaults were chosen on `dev` alone.
    """
    digest = int(hashlib.sha256(group.encode()).hexdigest(), 16)
    return "dev" if digest % 10 < _DEV_TENTHS else "test"


_T = TypeVar("_T")


def read_files(source: str) -> QuestionSet:
    """Read a question set and the documents beside it.

    Args:
        source: JSON Lines of questions, in the form of `parse_row`. Questions with `doc_ids` are
            asked of documents in `NAME.docs.jsonl` beside `NAME.jsonl`; questions with neither
            `docs` nor `doc_ids` of all documents in `NAME_corpus.jsonl` beside
            `NAME_claims.jsonl`.

    Raises:
        InputError: A file cannot be read, is empty, or has a row of another form.
    """
    path = Path(source)
    first = next(_each(path, lambda row: row), None)
    if first is None:
        raise InputError(f"The question set {path} is empty; add a question per line.")
    form = _checked(path, 1, form_of, first)
    name = path.stem.removesuffix("_claims")
    known = _documents(path, form)
    rows = list(_each(path, lambda row: parse_row(row, known)))
    labelled: list[Labelled] = [row for row in rows if row.support]
    if not labelled:
        raise InputError(f"No question of {path} has evidence; label some under 'support'.")
    return QuestionSet(name, form, labelled, tuple(known.values()) if form == "corpus" else ())


def _documents(path: Path, form: Form) -> dict[str, Source]:
    if form == "paragraphs":
        return {}
    stem = path.stem.removesuffix("_claims")
    beside = f"{stem}_corpus.jsonl" if form == "corpus" else f"{stem}.docs.jsonl"
    sources: dict[str, Source] = {}
    for parsed in _each(path.with_name(beside), lambda row: parse_sources([row], form)):
        sources |= parsed
    return sources


def _each(path: Path, parse: Callable[[dict[str, Any]], _T]) -> Iterator[_T]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield _checked(path, number, lambda text: parse(json.loads(text)), line)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; name a question set in JSON Lines or a "
            "public one, such as hotpotqa."
        ) from error


def _checked(path: Path, number: int, parse: Callable[[Any], _T], value: Any) -> _T:
    try:
        return parse(value)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"{path}, line {number}, does not have the form of a question set: {error!r}"
        ) from error


@dataclass(frozen=True, slots=True)
class Choice:
    """Which questions are asked, and of how much text.

    Attributes:
        split: `dev`, `test` or `all`.
        questions: Most questions of a set, the first ones after shuffling; None for all.
        paragraphs: Paragraphs of each context of form `paragraphs`.
        corpus: Most documents of a corpus, those with evidence first; None for all.
        seed: Seed of shuffling and mixing.
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
    - Form `documents`: a context for each document, with all questions asked of it. Labels are
      sections or turns, which are too long for a small budget, so any part of them is enough.
    - Form `corpus`: a single context with all documents and all questions.

    Raises:
        InputError: There is no question in the split.
    """
    rows = [row for row in questions.rows if _chosen(questions, row, choice.split)]
    if not rows:
        raise InputError(
            f"{questions.name} has no question in the split {choice.split!r}; choose another split."
        )
    asked = list(rows)
    random.Random(choice.seed).shuffle(asked)  # noqa: S311 - not a secret
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
    return Context(_named_documents(names), (_question(row, names, row.id),))


def _own_documents(rows: Iterable[Labelled]) -> list[Context]:
    asked: dict[tuple[Source, ...], list[Labelled]] = {}
    for row in rows:
        asked.setdefault(row.sources, []).append(row)
    contexts = []
    for sources, group in asked.items():
        names = {source: source.name for source in sources}
        questions = tuple(_question(row, names, sources[0].name) for row in group)
        contexts.append(Context(_named_documents(names), questions))
    return contexts


def _shared_corpus(rows: Sequence[Labelled], corpus: Sequence[Source], choice: Choice) -> Context:
    needed = dict.fromkeys(source for row in rows for source, _ in row.support)
    generator = random.Random(choice.seed)  # noqa: S311
    for source in generator.sample(corpus, len(corpus)):
        if choice.corpus is None or len(needed) < choice.corpus:
            needed.setdefault(source)
    names = {source: source.name for source in needed}
    questions = tuple(_question(row, names, row.id) for row in rows)
    return Context(_named_documents(names), questions)


def _named_documents(names: dict[Source, str]) -> tuple[Document, ...]:
    return tuple(
        Document(source.text, name, {"title": source.title}) for source, name in names.items()
    )


def _question(row: Labelled, names: dict[Source, str], group: str) -> Question:
    evidence = tuple(
        GoldSpan(names[source], *source.range(piece), piece == WHOLE or not source.sentences)
        for source, piece in row.support
    )
    return Question(row.id, row.question, row.answers, evidence, group)
