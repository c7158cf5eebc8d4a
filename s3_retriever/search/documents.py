"""Documents as results: ranked by their evidence, each with its best spans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np

from s3_retriever.display import document_html
from s3_retriever.document import title_of
from s3_retriever.recipe import Recipe
from s3_retriever.search.fusion import rounded, weigh
from s3_retriever.search.ranking import Ranking
from s3_retriever.search.relevance import Relevance
from s3_retriever.search.selection import Limits, Span, arranged, order_of, pick, span_of
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
        return document_html(self)


def select_documents(ranking: Ranking, recipe: Recipe, limits: Limits) -> list[DocumentResult]:
    """Choose documents, best first, until there are `k` or their spans have spent the budget.

    The spans of a document are chosen from its own sentences as `select` does. A document without
    a span that is relevant, fits into the budget and says something new is skipped.

    Args:
        ranking: Scores of all sentences.
        recipe: How spans are chosen.
        limits: Where to stop. The order is that of documents and of the spans of each.
    """
    relevance = Relevance(ranking, recipe)
    if relevance.best < limits.min_relevance:
        return []
    scores = document_scores(ranking)
    found: dict[int, DocumentResult] = {}
    least = limits.min_relevance
    said: set[str] = set()
    misses = 0
    for place in _best_first(scores):
        start = int(ranking.snapshot.document_starts[place])
        picked = pick(
            order_of(ranking, recipe, ranking.snapshot.document_of(start)),
            limits,
            radius=recipe.advanced.radius,
            wanted=lambda number: relevance[number] >= least,
            said=said,
        )
        chosen = arranged(ranking, picked, limits)
        if not chosen:
            misses += 1
            if misses == _MISSES:
                break
            continue
        misses = 0
        spans = tuple(span_of(ranking, each, relevance[each.peak]) for each in chosen)
        found[start] = _result(spans, float(scores[place]))
        if limits.token_budget is not None:
            limits = replace(limits, token_budget=limits.token_budget - found[start].tokens)
        if limits.token_budget == 0 or len(found) == limits.k:
            break
    return [found[start] for start in (sorted(found) if limits.order == "document" else found)]


def document_scores(ranking: Ranking) -> Scores:
    """The score of each document, float64 [documents], as `Snapshot.document_starts` lists them.

    A weighted sum of three standardised signals: its best sentence, BM25 of the whole document, and
    the mean cosine of its sentences with the question, in proportion to their tokens. In mode
    `bm25` it is BM25 alone.

    Returns:
        -inf for documents without a sentence that may be returned.
    """
    snapshot, starts = ranking.snapshot, ranking.snapshot.document_starts
    best = np.maximum.reduceat(np.where(ranking.eligible, ranking.scores, -np.inf), starts)
    found = best > -np.inf
    signals = {}
    if ranking.coactivation is not None:
        signals["best"] = best
    if ranking.terms is not None:
        signals["bm25"] = ranking.terms.documents(snapshot)
    if "sentence" in ranking.raw_scores:
        tokens = snapshot.column("n_tokens").astype(np.float64)
        total = np.add.reduceat(ranking.raw_scores["sentence"] * tokens, starts)
        signals["sentence"] = total / np.add.reduceat(tokens, starts)
    weighed = weigh(signals, _WEIGHTS, found, _CANDIDATES)
    return rounded(np.where(found, reduce(np.add, weighed.values()), -np.inf))


def _best_first(scores: Scores) -> Iterator[int]:
    """Documents by falling score, earlier ones first among equals, without those at -inf."""
    for place in np.argsort(-scores, kind="stable").tolist():
        if scores[place] == -np.inf:
            return
        yield place


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
