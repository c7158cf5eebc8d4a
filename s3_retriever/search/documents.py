"""Documents as results: ranked by their evidence, each with its best spans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Protocol

import numpy as np
from typing_extensions import override

from s3_retriever.display import DIM, frame, label
from s3_retriever.document import title_of
from s3_retriever.index import Snapshot
from s3_retriever.recipe import Recipe
from s3_retriever.search.fusion import rounded, weigh_steps
from s3_retriever.search.parts import Steps, alone
from s3_retriever.search.ranking import Ranking
from s3_retriever.search.selection import Here, Limits, arranged, order_of, pick, span_of
from s3_retriever.search.span import Span, spans_html
from s3_retriever.types import Scores

# Weights of a document's signals; see docs/research-log.md, "Documents".
_WEIGHTS = {"best": 0.5, "bm25": 1.0, "sentence": 1.0}
# How many of its best documents each signal adds to those over which signals are standardised.
_CANDIDATES = 256
# Once this many documents in a row have no span that is relevant and fits, the search ends.
_MISSES = 64


@dataclass(frozen=True, slots=True)
class DocumentResult:
    """A document that a search found, with its best spans.

    Attributes:
        document_id: The document's id.
        title: `metadata["title"]` if it is a string, else empty.
        score: Higher is better; comparable within one search only.
        relevance: That of its most relevant span, 0 to 1.
        spans: Its best spans, at least one.
        metadata: A copy of the document's metadata.
    """

    document_id: str
    title: str
    score: float
    relevance: float
    spans: tuple[Span, ...]
    metadata: Mapping[str, Any] = field(hash=False)

    @property
    def tokens(self) -> int:
        """Length of the spans together, in tokens of the host."""
        return sum(span.tokens for span in self.spans)

    def _repr_html_(self) -> str:
        name, dim = label(self.document_id), f'<div style="{DIM}">'
        head, facts = (label(self.title), f"{name} &nbsp; ") if self.title else (name, "")
        facts += f"score {self.score:.2f}, relevance {self.relevance:.2f}"
        return frame(f"<b>{head}</b>{dim}{facts}</div>{spans_html(self.spans)}")


def select_documents(ranking: Ranking, recipe: Recipe, limits: Limits) -> list[DocumentResult]:
    """Choose documents, best first, until there are `k` or their spans have spent the budget.

    The spans of a document are chosen from its own sentences as `select` does. A document without
    a span that is relevant, fits into the budget and says something new is skipped.

    Args:
        ranking: Scores of all sentences.
        recipe: How spans are chosen.
        limits: Where to stop. The order is that of documents and of the spans of each.
    """
    scores = alone(document_scores(ranking))
    return choose_documents(DocumentsHere(ranking, recipe, scores), limits)


class Documents(Protocol):
    """The documents that may be returned, wherever they are: in this process or not."""

    @property
    def best_relevance(self) -> float:
        """The highest relevance of any of their sentences."""

    def best_first(self) -> Iterator[tuple[int, float]]:
        """The first sentence of each document, by number, and its score, best first."""

    def spans(self, start: int, limits: Limits, said: set[str]) -> tuple[Span, ...]:
        """The spans chosen from a document, given its first sentence; `said` gets their texts."""


def choose_documents(documents: Documents, limits: Limits) -> list[DocumentResult]:
    """The documents that `select_documents` chooses."""
    if documents.best_relevance < limits.min_relevance:
        return []
    found: dict[int, DocumentResult] = {}
    said: set[str] = set()
    misses = 0
    for start, score in documents.best_first():
        spans = documents.spans(start, limits, said)
        if not spans:
            misses += 1
            if misses == _MISSES:
                break
            continue
        misses = 0
        found[start] = _result(spans, score)
        if limits.token_budget is not None:
            limits = replace(limits, token_budget=limits.token_budget - found[start].tokens)
        if limits.token_budget == 0 or len(found) == limits.k:
            break
    return [found[start] for start in (sorted(found) if limits.order == "document" else found)]


class DocumentsHere(Documents):
    """The documents of a ranking of this process.

    Args:
        ranking: Scores of all sentences.
        recipe: How spans are chosen.
        scores: The documents' scores; None if their order is somebody else's concern.
    """

    def __init__(self, ranking: Ranking, recipe: Recipe, scores: Scores | None = None) -> None:
        self._ranking = ranking
        self._recipe = recipe
        self._scores = scores

    @property
    @override
    def best_relevance(self) -> float:
        assert self._ranking.relevance is not None
        return self._ranking.relevance.best

    @override
    def best_first(self) -> Iterator[tuple[int, float]]:
        assert self._scores is not None
        return best_documents(self._ranking.snapshot, self._scores)

    @override
    def spans(self, start: int, limits: Limits, said: set[str]) -> tuple[Span, ...]:
        within = self._ranking.snapshot.document_of(start)
        view = Here(self._ranking, limits.context, within)
        picked = pick(
            order_of(view, self._recipe),
            view,
            limits,
            radius=self._recipe.advanced.radius,
            wanted=lambda number: view.relevance(number) >= limits.min_relevance,
            said=said,
        )
        return tuple(span_of(self._ranking, each) for each in arranged(view, picked, limits))


def best_documents(snapshot: Snapshot, scores: Scores) -> Iterator[tuple[int, float]]:
    """The first sentence of each document, and its score, best first, without those at -inf."""
    starts = snapshot.document_starts
    for place in np.argsort(-scores, kind="stable").tolist():
        if scores[place] == -np.inf:
            return
        yield int(starts[place]), float(scores[place])


def document_scores(ranking: Ranking) -> Steps[Scores]:
    """The score of each document, float64 [documents], as `Snapshot.document_starts` lists them.

    A weighted sum of three standardised signals: its best sentence, BM25 of the whole document, and
    the mean cosine of its sentences with the question, in proportion to their tokens. In mode
    `bm25` it is BM25 alone, and with a second look the best sentence.

    Returns:
        -inf for documents without a sentence that may be returned.
    """
    snapshot, starts = ranking.snapshot, ranking.snapshot.document_starts
    best = np.zeros(0)
    if len(starts):
        best = np.maximum.reduceat(np.where(ranking.eligible, ranking.scores, -np.inf), starts)
    found = best > -np.inf
    signals = {}
    if ranking.coactivation is not None or ranking.first_scores is not None:
        signals["best"] = best
    if ranking.terms is not None:
        signals["bm25"] = yield from ranking.terms.documents(snapshot, ranking.sizes)
    if "sentence" in ranking.raw_scores:
        tokens = snapshot.column("n_tokens").astype(np.float64)
        signals["sentence"] = np.zeros(0)
        if len(starts):
            total = np.add.reduceat(ranking.raw_scores["sentence"] * tokens, starts)
            signals["sentence"] = total / np.add.reduceat(tokens, starts)
    weighed = (yield from weigh_steps(signals, _WEIGHTS, found, _CANDIDATES)).contributions
    return rounded(np.where(found, reduce(np.add, weighed.values()), -np.inf))


def _result(spans: tuple[Span, ...], score: float) -> DocumentResult:
    metadata = spans[0].metadata
    return DocumentResult(
        spans[0].document_id,
        title_of(metadata),
        score,
        max(span.relevance for span in spans),
        spans,
        metadata,
    )
