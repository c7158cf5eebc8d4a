"""The pipeline: from a question to spans, one stage after another, from top to bottom.

    filter ─► signals ─► fusion ─► second hop ─► documents ─► relevance ─► redundancy ─► spans

Each stage is a function; its arithmetic is in a file of its own in this room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import cast

import numpy as np
from numpy.typing import NDArray

from s3_retriever.features import QuestionEncoder
from s3_retriever.index import Snapshot
from s3_retriever.recipe import DocumentBoost, Interleave, Recipe, ZScore
from s3_retriever.search.attention import HeadAttention, best_sentences
from s3_retriever.search.documents import DocumentResult, select_documents
from s3_retriever.search.filtering import admitted
from s3_retriever.search.fusion import interleave, nth_largest, rounded, weigh
from s3_retriever.search.hop import add_hop
from s3_retriever.search.ranking import Ranking
from s3_retriever.search.selection import Limits, Span, select
from s3_retriever.search.signals import (
    Coactivation,
    count_terms,
    question_weights,
    similarity,
    term_gains,
)
from s3_retriever.types import Contribution, GroupBy, Mode, Scores, Source, Where


def search(
    snapshot: Snapshot,
    question: str,
    recipe: Recipe,
    encoder: QuestionEncoder | None,
    limits: Limits,
    *,
    mode: Mode = "hybrid",
    where: Where | None = None,
    group_by: GroupBy | None = None,
) -> list[Span] | list[DocumentResult]:
    """Find the spans that answer a question, or the documents that have them.

    Args:
        snapshot: What is searched.
        question: The question.
        recipe: How it is scored.
        encoder: Reads the question; None in mode `bm25`, which needs no host.
        limits: How much to return.
        mode: `s3` (co-activation of features), `bm25`, or `hybrid`, which fuses both.
        where: Metadata that documents must have, or a function of a document's metadata.
        group_by: `document` returns documents, each with its best spans.

    Raises:
        InputError: `where` is neither a mapping nor a function.
    """
    allowed = admitted(snapshot, where)
    if not allowed.any():
        return []
    ranking = rank(snapshot, question, recipe, encoder, mode, allowed)
    choose = select if group_by is None else select_documents
    return choose(ranking, recipe, limits)


def rank(
    snapshot: Snapshot,
    question: str,
    recipe: Recipe,
    encoder: QuestionEncoder | None,
    mode: Mode,
    allowed: NDArray[np.bool_],
) -> Ranking:
    """Score all sentences of a snapshot.

    Args:
        snapshot: What is ranked.
        question: The question.
        recipe: How it is scored.
        encoder: Reads the question; None in mode `bm25`.
        mode: `s3`, `bm25` or `hybrid`. Mode `bm25` is one signal and one pass.
        allowed: Sentences that may be returned, bool [n].
    """
    ranking = _raw_scores(snapshot, question, recipe, encoder, mode, allowed)
    if mode == "bm25":
        return replace(ranking, scores=rounded(ranking.raw_scores["bm25"]))
    ranking = _fuse(ranking, recipe)
    if recipe.hop is not None:
        ranking = add_hop(ranking, question, recipe, recipe.hop)
    if recipe.advanced.document_boost is not None and mode == "hybrid":
        ranking = _boost_documents(ranking, recipe.advanced.document_boost)
    return replace(ranking, scores=rounded(ranking.scores))


def _raw_scores(
    snapshot: Snapshot,
    question: str,
    recipe: Recipe,
    encoder: QuestionEncoder | None,
    mode: Mode,
    allowed: NDArray[np.bool_],
) -> Ranking:
    """The first stage: every signal scores every sentence."""
    raw_scores: dict[Source, Scores] = {}
    encoded = coactivation = terms = None
    if mode != "bm25":
        assert encoder is not None
        encoded = encoder.question(question, recipe)
        coactivation = Coactivation(snapshot, question_weights(encoded.features, recipe), recipe)
        raw_scores["s3"] = coactivation.sentences()
    if mode != "s3":
        terms = term_gains(snapshot, count_terms(question, snapshot.languages))
        raw_scores["bm25"] = terms.scores(len(snapshot))
    if mode == "hybrid" and isinstance(recipe.fusion, Interleave) and recipe.fusion.edge_tokens:
        raw_scores["edge"] = _edges(snapshot, allowed, recipe.fusion.edge_tokens)
    matched = np.zeros(len(snapshot), dtype=np.bool_)
    for scores in raw_scores.values():
        matched |= scores > 0
    # Every sentence is a little similar to every question, so similarity alone is no match.
    if encoded is not None and (cosines := similarity(snapshot, encoded)) is not None:
        raw_scores["sentence"] = cosines
    attention = None
    if recipe.heads is not None and encoded is not None:
        scored = allowed
        if snapshot.n_tokens > recipe.heads.candidates:
            assert isinstance(recipe.fusion, ZScore)
            others = _weigh(raw_scores, recipe, recipe.fusion, allowed)
            total = np.where(allowed, reduce(np.add, others.values()), -np.inf)
            scored = best_sentences(snapshot, total, recipe.heads.candidates)
        attention = HeadAttention(snapshot, encoded.queries, scored)
        raw_scores["heads"] = attention.sentences()
        matched |= raw_scores["heads"] > 0
    return Ranking(
        snapshot=snapshot,
        scores=np.zeros(len(snapshot)),
        eligible=allowed & matched,
        raw_scores=raw_scores,
        contributions={},
        question=encoded,
        coactivation=coactivation,
        terms=terms,
        attention=attention,
    )


def _edges(snapshot: Snapshot, allowed: NDArray[np.bool_], tokens: int) -> Scores:
    """1 for the sentences at the first and last `tokens` tokens (M_bias of the paper), else 0."""
    scores = np.zeros(len(snapshot))
    numbers = np.flatnonzero(allowed)
    sizes = snapshot.column("n_tokens")[numbers].astype(np.int64)
    before = np.cumsum(sizes) - sizes
    after = np.cumsum(sizes[::-1])[::-1] - sizes
    scores[numbers[(before < tokens) | (after < tokens)]] = 1.0
    return scores


def _fuse(ranking: Ranking, recipe: Recipe) -> Ranking:
    """The second stage: signals become one score."""
    if isinstance(recipe.fusion, Interleave):
        return replace(ranking, scores=interleave(ranking.raw_scores, ranking.eligible))
    weighed = _weigh(ranking.raw_scores, recipe, recipe.fusion, ranking.eligible)
    contributions = cast("dict[Contribution, Scores]", weighed)
    # The second hop starts from the best of these.
    scores = rounded(reduce(np.add, contributions.values()))
    return replace(ranking, scores=scores, contributions=contributions)


def _weigh(
    raw_scores: Mapping[Source, Scores], recipe: Recipe, fusion: ZScore, chosen: NDArray[np.bool_]
) -> dict[Source, Scores]:
    """What each signal contributes with the weights of a recipe."""
    weights: dict[Source, float] = {"bm25": fusion.bm25_weight}
    if recipe.sentence is not None:
        weights["sentence"] = recipe.sentence.weight
    if recipe.heads is not None:
        weights["heads"] = recipe.heads.weight
    return weigh(raw_scores, weights, chosen, fusion.candidates)


def _boost_documents(ranking: Ranking, boost: DocumentBoost) -> Ranking:
    """The fourth stage: sentences of the best documents gain their document's margin.

    A document scores what the best of its eligible sentences scores. All of its sentences gain its
    margin over the best document after the first `boost.best`.
    """
    starts = ranking.snapshot.document_starts
    if len(starts) <= boost.best:
        return ranking
    scores = np.where(ranking.eligible, ranking.scores, -np.inf)
    documents = np.maximum.reduceat(scores, starts)
    next_best = nth_largest(documents, boost.best)
    if next_best == -np.inf:
        return ranking
    added = np.zeros(len(scores))
    ends = np.append(starts[1:], len(scores))
    for document in np.flatnonzero(documents > next_best):
        added[starts[document] : ends[document]] = boost.weight * (documents[document] - next_best)
    return replace(
        ranking,
        scores=ranking.scores + added,
        contributions={**ranking.contributions, "document": added},
    )
