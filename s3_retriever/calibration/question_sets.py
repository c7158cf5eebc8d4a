"""Question sets with labelled evidence, from JSON Lines files, and the contexts built of them."""

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
        id: The data set's id.
        text: What is asked.
        answers: Strings that answer it; may be empty.
        evidence: Where the documents answer it.
        group: Questions of one group are not independent (they ask the same document); dev and
            test share no group, and intervals come from resampling groups.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    evidence: tuple[GoldSpan, ...]
    group: str


@dataclass(frozen=True, slots=True)
class Context:
    """Documents, indexed once by every method, and the questions asked of them."""

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
        """Identifies documents and questions, so that results are never mixed up."""
        digest = hashlib.blake2b(digest_size=8)
        for context in self.contexts:
            for document in context.documents:
                digest.update(f"{document.id}\0{document.title}\0{document.text}\0".encode())
            for question in context.questions:
                digest.update(f"{question.id}\0{question.text}\0{question.evidence}\0".encode())
        return digest.hexdigest()


# Sets that `public_sets` loads by name.
PUBLIC_NAMES = ("hotpotqa", "2wikimultihopqa", "musique", "fairytaleqa", "qmsum", "scifact")

WHOLE = -1

# `paragraphs`: each question brings some, other questions' are mixed in. `documents`: each
# question is asked of one long document. `corpus`: all questions are asked of all documents.
Form = Literal["paragraphs", "documents", "corpus"]


@dataclass(frozen=True)
class Source:
    """A text in labelled pieces.

    Attributes:
        name: Its title, or its id where it has one.
        title: Its title; empty where it says nothing about the text.
        pieces: Sentences, or the sections or turns of a long document.
        sentences: Whether the pieces are sentences.
    """

    name: str
    title: str
    pieces: tuple[str, ...]
    sentences: bool = True

    @cached_property
    def text(self) -> str:
        """Sentences separated by a blank, sections and turns by a line break."""
        return (" " if self.sentences else "\n").join(piece.strip() for piece in self.pieces)

    @cached_property
    def _starts(self) -> list[int]:
        return list(accumulate((len(piece.strip()) + 1 for piece in self.pieces), initial=0))

    def range(self, piece: int) -> tuple[int, int]:
        """Characters of `text` that a piece covers; of all of it for `WHOLE`.

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
    """A question and which pieces of which sources are its evidence."""

    id: str
    question: str
    answers: tuple[str, ...]
    sources: tuple[Source, ...]
    support: tuple[tuple[Source, int], ...]


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """A question set.

    Attributes:
        name: Shown in reports.
        form: How contexts are built.
        rows: The questions that have evidence.
        corpus: With form `corpus`, all documents.
    """

    name: str
    form: Form
    rows: Sequence[Labelled]
    corpus: tuple[Source, ...] = ()


def form_of(row: Mapping[str, Any]) -> Form:
    """The form of the set that a row comes from, told by its keys."""
    if "docs" in row:
        return "paragraphs"
    return "documents" if "doc_ids" in row else "corpus"


def parse_sources(rows: Iterable[Mapping[str, Any]], form: Form) -> dict[str, Source]:
    """Sources by id: rows with `title`, `sents` and, in a corpus, `doc_id`.

    The title of a document that is searched alone is no help, so it is left out.
    """
    found: dict[str, Source] = {}
    for row in rows:
        name = str(row.get("doc_id", row["title"]))
        title = "" if form == "documents" else row["title"]
        found[name] = Source(name, title, tuple(row["sents"]), form != "documents")
    return found


def parse_row(row: Mapping[str, Any], known: Mapping[str, Source]) -> Labelled:
    """A question with its evidence.

    Args:
        row: `id`, `question`, `support` (pairs of a source and the number of its piece),
            optionally `answers`, and `docs` (the sources themselves, known by their place),
            `doc_ids` (names of known sources, known by their place) or neither (known sources,
            known by their id).
        known: Sources by id.

    Raises:
        KeyError, IndexError, TypeError, ValueError: It is not of that form.
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
    """`dev` for about 40 % of all groups, else `test`; for the same group always the same.

    Defaults of the package are chosen on `dev` only. A group is a question; where several
    questions are asked of one long document, the document.
    """
    digest = int(hashlib.sha256(group.encode()).hexdigest(), 16)
    return "dev" if digest % 10 < _DEV_TENTHS else "test"


_T = TypeVar("_T")


def read_files(source: str) -> QuestionSet:
    """Read a question set and the documents beside it.

    Args:
        source: JSON Lines of questions; `parse_row` says their form. Questions with `doc_ids`
            are asked of documents in `NAME.docs.jsonl`, those with neither `docs` nor `doc_ids`
            of all documents in `NAME_corpus.jsonl` (where the file is `NAME_claims.jsonl`).

    Raises:
        InputError: A file is missing or a row is not of the form.
    """
    path = Path(source)
    first = next(_each(path, lambda row: row), None)
    if first is None:
        raise InputError(f"The question set {path} is empty.")
    form = _checked(path, 1, form_of, first)
    name = path.stem.removesuffix("_claims")
    known = _documents(path, form)
    rows = list(_each(path, lambda row: parse_row(row, known)))
    labelled: list[Labelled] = [row for row in rows if row.support]
    if not labelled:
        raise InputError(f"No question of {path} has evidence, so there is nothing to measure.")
    return QuestionSet(name, form, labelled, tuple(known.values()) if form == "corpus" else ())


def _documents(path: Path, form: Form) -> dict[str, Source]:
    if form == "paragraphs":
        return {}
    stem = path.stem.removesuffix("_claims")
    beside = f"{stem}_corpus.jsonl" if form == "corpus" else f"{stem}.docs.jsonl"
    return {
        name: source
        for one in _each(path.with_name(beside), lambda row: parse_sources([row], form))
        for name, source in one.items()
    }


def _each(path: Path, parse: Callable[[dict[str, Any]], _T]) -> Iterator[_T]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield _checked(path, number, lambda text: parse(json.loads(text)), line)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; name a question set in JSON Lines, or one "
            f"of {', '.join(PUBLIC_NAMES)}."
        ) from error


def _checked(path: Path, number: int, parse: Callable[[Any], _T], value: Any) -> _T:
    try:
        return parse(value)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"{path}, line {number}, is not of the form that s3 bench reads: {error!r}"
        ) from error


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
