"""Parts: one pipeline for an index in one place and for one whose documents are spread over many.

Every part runs the same steps on its own sentences. Where a step depends on all of them, it asks:
it yields what its own part knows and how the parts' knowledge becomes one answer, and goes on with
that answer. An index by itself is a collection of one part, whose questions it answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from s3_retriever.index import Snapshot

_T = TypeVar("_T")
_A = TypeVar("_A")
_B = TypeVar("_B")


class Ask(NamedTuple):
    """What a part asks of all parts.

    Attributes:
        combine: Makes the answer of what every part knows, in the order of the parts. It can be
            pickled. None for what only the leader of the search can answer: a second look at
            candidates.
        known: What this part knows.
        each: Whether `combine` returns an answer for each part.
    """

    combine: Callable[[list[Any]], Any] | None
    known: Any
    each: bool


# Steps of a search on one part, which end in a result.
Steps = Generator[Ask, Any, _T]


def together(combine: Callable[[list[_A]], _B], known: _A) -> Steps[_B]:
    """Ask what all parts know together."""
    answer: _B = yield Ask(combine, known, each=False)
    return answer


def apart(combine: Callable[[list[_A]], list[_B]], known: _A) -> Steps[_B]:
    """Ask what follows for this part from what all parts know."""
    answer: _B = yield Ask(combine, known, each=True)
    return answer


def answers(asks: Sequence[Ask], look: Callable[[list[Any]], Any] | None = None) -> list[Any]:
    """The answer for each part, given what all of them ask at one point.

    Args:
        asks: What they ask.
        look: Takes a second look; not needed if none of them asks for it.
    """
    first = asks[0]
    combine = first.combine or look
    assert combine is not None
    combined = combine([ask.known for ask in asks])
    return list(combined) if first.each else [combined] * len(asks)


def alone(steps: Steps[_T], look: Callable[[list[Any]], Any] | None = None) -> _T:
    """Take the steps of a part that is the whole collection; `look` is that of `answers`."""
    answer = None
    while True:
        try:
            ask = steps.send(answer)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        (answer,) = answers([ask], look)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much there is in a collection.

    Attributes:
        rows: Sentences, those of deleted documents included.
        listed: Documents with sentences, deleted ones included.
        documents: Live documents.
        sentences: Their sentences.
        tokens: Their tokens.
        terms: Terms of their sentences.
        languages: Languages in which they were analysed.
    """

    rows: int = 0
    listed: int = 0
    documents: int = 0
    sentences: int = 0
    tokens: int = 0
    terms: int = 0
    languages: frozenset[str] = frozenset()

    @classmethod
    def of(cls, snapshot: Snapshot) -> Sizes:
        """The sizes of a snapshot."""
        return cls(
            rows=len(snapshot),
            listed=len(snapshot.document_starts),
            documents=snapshot.n_documents,
            sentences=snapshot.n_sentences,
            tokens=snapshot.n_tokens,
            terms=snapshot.n_terms,
            languages=snapshot.languages,
        )

    def __add__(self, other: Sizes) -> Sizes:
        return Sizes(
            self.rows + other.rows,
            self.listed + other.listed,
            self.documents + other.documents,
            self.sentences + other.sentences,
            self.tokens + other.tokens,
            self.terms + other.terms,
            self.languages | other.languages,
        )

    @property
    def mean_terms(self) -> float:
        """Mean length of the live sentences in terms, 0 if there are none."""
        return self.terms / self.sentences if self.sentences else 0.0


def add_up(several: Sequence[Any]) -> Any:
    """The sum of what parts know: numbers, arrays, `Sizes`, or lists and mappings of them."""
    first = several[0]
    if isinstance(first, dict):
        return {key: add_up([each[key] for each in several]) for key in first}
    if isinstance(first, (list, tuple)):
        return [add_up(column) for column in zip(*several, strict=True)]
    if isinstance(first, np.ndarray):
        return np.sum(several, axis=0)
    total = first
    for each in several[1:]:
        total = total + each
    return total
