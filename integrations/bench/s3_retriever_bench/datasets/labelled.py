"""Rows of question sets: what all data sets are brought to before contexts are built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

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
