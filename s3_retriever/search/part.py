"""`PartSearch`: one search on one part of a collection, which somebody else leads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3_retriever.errors import InputError
from s3_retriever.index import Snapshot
from s3_retriever.search.documents import DocumentsHere, best_documents, document_scores
from s3_retriever.search.explanation import Explanation, Peak, bridge_span, explain_here
from s3_retriever.search.filtering import Unknown, admitted
from s3_retriever.search.heat import Heat, heat
from s3_retriever.search.judging import Measures, Verdict, judged, measured
from s3_retriever.search.parts import Ask, Steps
from s3_retriever.search.pipeline import Query, rank_steps
from s3_retriever.search.ranking import Ranking
from s3_retriever.search.reranking import look_again
from s3_retriever.search.selection import Here, Limits, Pick, span_of
from s3_retriever.search.selection import span_id as id_of
from s3_retriever.search.span import Span
from s3_retriever.types import GroupBy, Scores, Where


@dataclass(frozen=True, slots=True)
class Request:
    """A search as every part gets it.

    Attributes:
        query: The question.
        limits: How much to return.
        where: As in `search`.
        group_by: As in `search`.
        rerank: How many of the best sentences get a second look; None for none.
    """

    query: Query
    limits: Limits
    where: Where | None = None
    group_by: GroupBy | None = None
    rerank: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The next best sentences of a part, n of them.

    Attributes:
        numbers: Their numbers in the part, int64 [n].
        scores: float64 [n].
        first_scores: Those before a second look, float64 [n].
        log_odds: float64 [n]; None for a host whose log-odds are not known.
        tokens: What each takes of the budget; None without a budget.
        documents: Numbers of the first sentence of its document and after its last, int64 [n, 2].
        shares: What each feature and term adds, float64 [n, shares]; None if repetition costs
            nothing.
        texts: Texts, white space normalised; None if they may repeat.
        more: Whether there may be more sentences.
    """

    numbers: NDArray[np.int64]
    scores: Scores
    first_scores: Scores
    log_odds: Scores | None
    tokens: list[int] | None
    documents: NDArray[np.int64]
    shares: Scores | None
    texts: list[str] | None
    more: bool


@dataclass(frozen=True, slots=True, eq=False)
class DocumentRows:
    """The next best documents of a part, n of them.

    Attributes:
        starts: Number in the part of each one's first sentence, int64 [n].
        scores: float64 [n].
        more: Whether there may be more documents.
    """

    starts: NDArray[np.int64]
    scores: Scores
    more: bool


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """What a part knows when all sentences have their scores.

    Attributes:
        size: Number of its sentences.
        measures: What it adds to the judgement.
        n_shares: How many features and terms the question has.
        repeatable: Whether repetition costs nothing.
        unknown: What the filter names that its documents do not have.
        best: The first of its best sentences, or documents.
    """

    size: int
    measures: Measures
    n_shares: int
    repeatable: bool
    unknown: Unknown
    best: Rows | DocumentRows


class PartSearch:
    """One search on one part.

    Args:
        snapshot: The part.
        request: What is searched for.

    Raises:
        InputError: As `search`.
    """

    def __init__(self, snapshot: Snapshot, request: Request) -> None:
        self._request = request
        self._steps = self._ranked(snapshot, request)

    def advance(self, answer: Any, first: int) -> Ask | Ranked:
        """Go on until the next question to all parts.

        Args:
            answer: The answer to the last one; None at first.
            first: How many of the best sentences, or documents, to return with the scores.
        """
        try:
            return self._steps.send(answer)
        except StopIteration:
            best = self.rows(first) if self._request.group_by is None else self.documents(first)
        return Ranked(
            size=len(self._ranking.scores),
            measures=self._measures,
            n_shares=self._ranking.n_shares,
            repeatable=self._ranking.coactivation is None,
            unknown=self._unknown,
            best=best,
        )

    def rows(self, n: int) -> Rows:
        """The next n best sentences."""
        ranking, limits = self._ranking, self._request.limits
        snapshot = ranking.snapshot
        numbers = np.array(list(islice(self._best, n)), dtype=np.int64)
        places = np.searchsorted(snapshot.document_starts, numbers, side="right") - 1
        bounds = np.append(snapshot.document_starts, len(snapshot))
        shares = None
        if self._request.query.recipe.redundancy is not None and ranking.coactivation is not None:
            ascending, place = np.unique(numbers, return_inverse=True)
            shares = np.zeros((0, ranking.n_shares))
            if len(numbers):
                shares = ranking.shares(ascending)[place]
        return Rows(
            numbers=numbers,
            scores=ranking.scores[numbers],
            first_scores=ranking.own_scores[numbers],
            log_odds=None if ranking.log_odds is None else ranking.log_odds[numbers],
            tokens=None if limits.token_budget is None else self._view.all_tokens(numbers),
            documents=np.stack([bounds[places], bounds[places + 1]], axis=1),
            shares=shares,
            texts=self._view.all_texts(numbers) if limits.unique else None,
            more=len(numbers) == n,
        )

    def documents(self, n: int) -> DocumentRows:
        """The next n best documents."""
        best = list(islice(self._best_documents, n))
        return DocumentRows(
            starts=np.array([start for start, _ in best], dtype=np.int64),
            scores=np.array([score for _, score in best]),
            more=len(best) == n,
        )

    def widened(
        self, number: int, radius: int, covered: Sequence[int]
    ) -> tuple[int, int, int, list[str]]:
        """The run that a sentence is widened to: its ends, its tokens and its texts."""
        first, last = self._view.widened(number, radius, frozenset(covered))
        texts = self._view.texts(first, last) if self._request.limits.unique else []
        return first, last, self._view.tokens(first, last), texts

    def spans(self, picks: Sequence[Pick], known: Verdict) -> list[Span]:
        """The spans that runs of sentences make."""
        ranking = judged(self._ranking, known)
        return [span_of(ranking, chosen) for chosen in picks]

    def document_spans(
        self, start: int, limits: Limits, said: set[str], known: Verdict
    ) -> tuple[tuple[Span, ...], set[str]]:
        """The spans chosen from a document, and the texts that were said then."""
        documents = DocumentsHere(judged(self._ranking, known), self._request.query.recipe)
        return documents.spans(start, limits, said), said

    def explain(
        self, span: Span, question_tokens: Sequence[str]
    ) -> tuple[Explanation, Peak] | None:
        """Explain a span but for its bridge and redundancy; None if it is not in this part."""
        try:
            return explain_here(self._ranking, question_tokens, span, self._request.query.recipe)
        except InputError:
            return None

    def bridge(self, span_id: str, known: Verdict) -> Span | None:
        """The span that a bridge is; None if it is not in this part."""
        ranking = judged(self._ranking, known)
        hop = ranking.hop
        for number in () if hop is None else hop.bridges:
            if hop is not None and id_of(hop.first, number) == span_id:
                return bridge_span(ranking, number)
        return None

    def heat(self, document_id: str) -> Heat | None:
        """Score the tokens of a document; None if it is not in this part."""
        try:
            return heat(self._ranking, document_id)
        except InputError:
            return None

    def _ranked(self, snapshot: Snapshot, request: Request) -> Steps[None]:
        allowed = admitted(snapshot, request.where, warn=False)
        self._unknown = Unknown.of(snapshot, request.where)
        ranking: Ranking = yield from rank_steps(snapshot, request.query, allowed)
        ranking, self._measures = measured(ranking, request.query.recipe)
        if request.rerank is not None:
            floor = request.limits.min_relevance
            ranking = yield from look_again(ranking, self._measures, request.rerank, floor)
        self._ranking = ranking
        self._view = Here(self._ranking, request.limits.context)
        self._best: Iterator[int] = chain.from_iterable(
            numbers.tolist() for numbers in self._view.sorted()
        )
        if request.group_by is not None:
            scores = yield from document_scores(ranking)
            self._best_documents = best_documents(ranking.snapshot, scores)
