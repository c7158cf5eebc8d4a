"""Gathering: the searches on all parts of a collection become one result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import reduce
from itertools import accumulate
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from s3_retriever.search.documents import DocumentResult, Documents, choose_documents
from s3_retriever.search.explanation import Explanation, Peak, lost, not_here
from s3_retriever.search.filtering import Unknown
from s3_retriever.search.heat import Heat
from s3_retriever.search.judging import verdict
from s3_retriever.search.part import DocumentRows, Ranked, Request, Rows
from s3_retriever.search.parts import Ask, answers
from s3_retriever.search.reranking import SecondLook
from s3_retriever.search.selection import Candidates, Limits, choose
from s3_retriever.search.span import Span, SpanList
from s3_retriever.types import Scores

_Rows = TypeVar("_Rows", Rows, DocumentRows)

# How many of its best sentences, or documents, a part hands out at first, and at most at once.
FIRST = 24
_MOST = 1_024


class Parts(Protocol):
    """The searches on all parts, each a `PartSearch` somewhere."""

    def call(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Call a method of the searches on some parts, given its arguments, all at once."""


def search_parts(
    parts: Parts, n: int, request: Request, look: SecondLook | None = None
) -> list[Span] | list[DocumentResult]:
    """Find spans, or documents, in n parts as `search` does in one snapshot."""
    ranked = _rank(parts, n, _answering(look, request))
    recipe, limits = request.query.recipe, request.limits
    if request.group_by is not None:
        return choose_documents(_GatheredDocuments(parts, ranked), limits)
    view = _Gathered(parts, ranked, limits)
    picks = choose(view, recipe, limits)
    placed = [view.place(each.peak) for each in picks]
    wanted: dict[int, list[Any]] = {}
    for each, place in zip(picks, placed, strict=True):
        shift = view.offsets[place]
        local = replace(
            each, first=each.first - shift, last=each.last - shift, peak=each.peak - shift
        )
        wanted.setdefault(place, []).append(local)
    spans = parts.call("spans", {place: (own, view.known) for place, own in wanted.items()})
    queues = {place: deque(made) for place, made in spans.items()}
    return SpanList(queues[place].popleft() for place in placed)


def explain_parts(
    parts: Parts,
    n: int,
    request: Request,
    question_tokens: Sequence[str],
    span: Span,
    look: SecondLook | None = None,
) -> Explanation:
    """Explain a span in n parts as `explain` does in one snapshot.

    Raises:
        InputError: The span is in none of them.
    """
    ranked = _rank(parts, n, _answering(look, request))
    view = _Gathered(parts, ranked, request.limits)
    owned = parts.call("explain", dict.fromkeys(range(n), (span, question_tokens)))
    place = next((place for place, own in owned.items() if own is not None), None)
    if place is None:
        raise not_here(span)
    explanation: Explanation = owned[place][0]
    peak: Peak = owned[place][1]
    bridge = None
    if peak.bridge is not None:
        found = parts.call("bridge", dict.fromkeys(range(n), (peak.bridge.span_id, view.known)))
        bridge = next((each for each in found.values() if each is not None), None)
    peak = peak._replace(number=peak.number + view.offsets[place])
    contributions = {**explanation.contributions, **lost(request.query.recipe, view, peak)}
    return replace(explanation, contributions=contributions, bridge=bridge)


def heat_parts(parts: Parts, n: int, document_id: str) -> Heat | None:
    """Score the tokens of a document in n parts; None if none of them has it."""
    _rank(parts, n)
    found = parts.call("heat", dict.fromkeys(range(n), (document_id,)))
    return next((each for each in found.values() if each is not None), None)


def _answering(look: SecondLook | None, request: Request) -> Callable[[list[Any]], Any] | None:
    """What answers the parts that ask for a second look."""
    return None if look is None else look.at(request.query.question)


def _rank(parts: Parts, n: int, look: Callable[[list[Any]], Any] | None = None) -> list[Ranked]:
    """Let all parts score their sentences; `look` is that of `answers`."""
    replies = parts.call("advance", dict.fromkeys(range(n), (None, FIRST)))
    while isinstance(replies[0], Ask):
        asked = answers([replies[place] for place in range(n)], look)
        replies = parts.call("advance", {at: (asked[at], FIRST) for at in range(n)})
    ranked: list[Ranked] = [replies[place] for place in range(n)]
    if any(each.size for each in ranked):
        reduce(Unknown.__add__, [each.unknown for each in ranked]).warn()
    return ranked


class _Row(NamedTuple):
    """What is known of a sentence."""

    score: float
    first_score: float
    log_odds: float | None
    tokens: int
    document: slice
    shares: Scores | None
    texts: list[str]


class _Merged(Generic[_Rows]):
    """The rows of all parts by falling score, earlier ones first among equals.

    Args:
        parts: Where more rows come from.
        method: The method that hands them out.
        best: The first rows of each part.
    """

    def __init__(self, parts: Parts, method: str, best: Sequence[_Rows]) -> None:
        self._parts = parts
        self._method = method
        self._first: Sequence[_Rows] = best

    def __iter__(self) -> Iterator[list[tuple[int, int, _Rows]]]:
        """Places, positions in rows, and the rows, as many at once as are known to be next."""
        waiting: list[tuple[float, int, int, _Rows]] = []
        fresh = dict(enumerate(self._first))
        size = 2 * FIRST
        ends: dict[int, tuple[float, int]] = {}
        while True:
            for place, rows in fresh.items():
                scores = rows.scores.tolist()
                waiting += [(-score, place, at, rows) for at, score in enumerate(scores)]
                ends.pop(place, None)
                if rows.more:
                    ends[place] = (-scores[-1], place)
            waiting.sort(key=lambda each: each[:2])
            limit = min(ends.values(), default=None)
            known = len(waiting)
            if limit is not None:
                known = sum(each[:2] <= limit for each in waiting)
            if known:
                yield [(place, at, rows) for _, place, at, rows in waiting[:known]]
                del waiting[:known]
            if limit is None:
                return
            short = [place for place, end in ends.items() if end == limit]
            fresh = self._parts.call(self._method, dict.fromkeys(short, (size,)))
            size = min(2 * size, _MOST)


class _Gathered(Candidates):
    """The candidates of all parts, numbered through.

    Args:
        parts: The searches.
        ranked: What each of them knows.
        limits: What the search returns.

    Attributes:
        offsets: Number of the first sentence of each part, and the total.
        known: What the parts know together.
    """

    def __init__(self, parts: Parts, ranked: Sequence[Ranked], limits: Limits) -> None:
        self.offsets = [0, *accumulate(each.size for each in ranked)]
        self.known = verdict([each.measures for each in ranked])
        self._parts = parts
        self._ranked = ranked
        self._best = [each.best for each in ranked if isinstance(each.best, Rows)]
        self._context = limits.context
        self._rows: dict[int, _Row] = {}
        self._runs: dict[tuple[int, int], tuple[int, list[str]]] = {}

    @property
    @override
    def n_shares(self) -> int:
        return self._ranked[0].n_shares

    @property
    @override
    def repeatable(self) -> bool:
        return self._ranked[0].repeatable

    @property
    @override
    def best_relevance(self) -> float:
        return self.known.relevance.best

    def place(self, number: int) -> int:
        """The part that a sentence is in."""
        return int(np.searchsorted(self.offsets, number, side="right")) - 1

    @override
    def sorted(self) -> Iterator[NDArray[np.int64]]:
        for chunk in _Merged(self._parts, "rows", self._best):
            numbers = []
            for place, at, rows in chunk:
                shift = self.offsets[place]
                number = int(rows.numbers[at]) + shift
                start, stop = rows.documents[at].tolist()
                self._rows[number] = _Row(
                    score=float(rows.scores[at]),
                    first_score=float(rows.first_scores[at]),
                    log_odds=None if rows.log_odds is None else float(rows.log_odds[at]),
                    tokens=0 if rows.tokens is None else rows.tokens[at],
                    document=slice(start + shift, stop + shift),
                    shares=None if rows.shares is None else rows.shares[at],
                    texts=[] if rows.texts is None else [rows.texts[at]],
                )
                numbers.append(number)
            yield np.array(numbers, dtype=np.int64)

    @override
    def score(self, number: int) -> float:
        return self._rows[number].score

    @override
    def relevance(self, number: int) -> float:
        row = self._rows[number]
        return self.known.relevance.of(row.first_score, row.log_odds)

    @override
    def shares(self, numbers: NDArray[np.int64]) -> Scores:
        return np.array([self._rows[number].shares for number in numbers.tolist()])

    @override
    def document_of(self, number: int) -> slice:
        return self._rows[number].document

    @override
    def widened(self, number: int, radius: int, covered: AbstractSet[int]) -> tuple[int, int]:
        if radius == 0 and self._context == "sentence":
            return number, number
        document, place = self.document_of(number), self.place(number)
        shift = self.offsets[place]
        within = [at - shift for at in covered if document.start <= at < document.stop]
        reply = self._parts.call("widened", {place: (number - shift, radius, within)})
        first, last, tokens, texts = reply[place]
        self._runs[first + shift, last + shift] = tokens, texts
        return first + shift, last + shift

    @override
    def tokens(self, first: int, last: int) -> int:
        return self._rows[first].tokens if first == last else self._runs[first, last][0]

    @override
    def texts(self, first: int, last: int) -> list[str]:
        return self._rows[first].texts if first == last else self._runs[first, last][1]


class _GatheredDocuments(Documents):
    """The documents of all parts."""

    def __init__(self, parts: Parts, ranked: Sequence[Ranked]) -> None:
        self._offsets = [0, *accumulate(each.size for each in ranked)]
        self._known = verdict([each.measures for each in ranked])
        self._parts = parts
        self._best = [each.best for each in ranked if isinstance(each.best, DocumentRows)]

    @property
    @override
    def best_relevance(self) -> float:
        return self._known.relevance.best

    @override
    def best_first(self) -> Iterator[tuple[int, float]]:
        for chunk in _Merged(self._parts, "documents", self._best):
            for place, at, rows in chunk:
                yield int(rows.starts[at]) + self._offsets[place], float(rows.scores[at])

    @override
    def spans(self, start: int, limits: Limits, said: set[str]) -> tuple[Span, ...]:
        place = int(np.searchsorted(self._offsets, start, side="right")) - 1
        arguments = (start - self._offsets[place], limits, said, self._known)
        made, now = self._parts.call("document_spans", {place: arguments})[place]
        said |= now
        return tuple(made)
