"""The pipeline: from a question to spans, one stage after another, from top to bottom.

    filter ─► signals ─► fusion ─► second hop ─► documents ─► relevance ─► second look ─►
    redundancy ─► spans

Each stage is a function; its arithmetic is in a file of its own in this room. A stage that depends
on the whole collection asks all of its parts (`search.parts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate, pairwise
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from s3_retriever.features import EncodedQuestion, QuestionEncoder
from s3_retriever.index import Snapshot
from s3_retriever.recipe import DocumentBoost, FeatureAttention, Interleave, Recipe, ZScore
from s3_retriever.search.attention import HeadAttention, best_sentences
from s3_retriever.search.documents import DocumentResult, select_documents
from s3_retriever.search.filtering import admitted
from s3_retriever.search.fusion import (
    Weighed,
    interleave_steps,
    nth_largest,
    rounded,
    weigh_steps,
)
from s3_retriever.search.hop import add_hop
from s3_retriever.search.judging import judged, measured, verdict
from s3_retriever.search.parts import Sizes, Steps, add_up, alone, apart, together
from s3_retriever.search.ranking import Ranking
from s3_retriever.search.reranking import SecondLook, look_again
from s3_retriever.search.selection import Limits, select
from s3_retriever.search.signals import (
    Coactivation,
    FeatureCounts,
    FeatureWeights,
    FoundTerms,
    count_terms,
    feature_frequencies,
    find_terms,
    gains_of,
    question_weights,
    similarity,
)
from s3_retriever.search.span import Span
from s3_retriever.search.tap_attention import TapAttention
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
    look: SecondLook | None = None,
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
        look: Reads the best sentences again, with the question; None for no second look.

    Raises:
        InputError: `where` is neither a mapping nor a function.
    """
    allowed = admitted(snapshot, where)
    if not allowed.any():
        return []
    ranking = rank(snapshot, question, recipe, encoder, mode, allowed, look, limits.min_relevance)
    choose = select if group_by is None else select_documents
    return choose(ranking, recipe, limits)


def rank(
    snapshot: Snapshot,
    question: str,
    recipe: Recipe,
    encoder: QuestionEncoder | None,
    mode: Mode,
    allowed: NDArray[np.bool_],
    look: SecondLook | None = None,
    min_relevance: float = 0.0,
) -> Ranking:
    """Score all sentences of a snapshot.

    Args:
        snapshot: What is ranked.
        question: The question.
        recipe: How it is scored.
        encoder: Reads the question; None in mode `bm25`.
        mode: `s3`, `bm25` or `hybrid`. Mode `bm25` is one signal and one pass.
        allowed: Sentences that may be returned, bool [n].
        look: As in `search`.
        min_relevance: Sentences of a lower relevance get no second look.
    """
    encoded = None
    if mode != "bm25":
        assert encoder is not None
        encoded = encoder.question(question, recipe)
    query = Query(question, encoded, recipe, mode, snapshot.languages)
    ranking, own = measured(alone(rank_steps(snapshot, query, allowed)), recipe)
    if look is not None:
        steps = look_again(ranking, own, look.candidates, min_relevance)
        ranking = alone(steps, look.at(question))
    return judged(ranking, verdict([own]))


@dataclass(frozen=True, slots=True)
class Query:
    """A question as every part of a collection gets it.

    Attributes:
        question: The question.
        encoded: What the host read of it; None in mode `bm25`.
        recipe: How it is scored.
        mode: `s3`, `bm25` or `hybrid`.
        languages: Languages of the collection, the same for every part; if they are not those of
            the parts together, the terms are looked up again.
    """

    question: str
    encoded: EncodedQuestion | None
    recipe: Recipe
    mode: Mode
    languages: frozenset[str]


def rank_steps(snapshot: Snapshot, query: Query, allowed: NDArray[np.bool_]) -> Steps[Ranking]:
    """Score all sentences of a part; see `rank`. They are not judged yet.

    Every stage rounds the scores that it hands on: the next one starts from the same numbers,
    however the parts were added up.
    """
    recipe, mode = query.recipe, query.mode
    ranking = yield from _raw_scores(snapshot, query, allowed)
    if mode == "bm25":
        return replace(ranking, scores=rounded(ranking.raw_scores["bm25"]))
    ranking = yield from _fuse(ranking, recipe)
    if recipe.hop is not None:
        ranking = yield from add_hop(ranking, query.question, recipe, recipe.hop)
    if recipe.advanced.document_boost is not None and mode == "hybrid":
        ranking = yield from _boost_documents(ranking, recipe.advanced.document_boost)
    return ranking


class _Counts(NamedTuple):
    """What parts have of a question's features and terms.

    Attributes:
        sizes: Sizes of the part.
        fires: By tap, on how many tokens each of the question's features fires.
        terms: How many sentences have each of the question's terms.
    """

    sizes: Sizes
    fires: Mapping[str, NDArray[np.int64]]
    terms: NDArray[np.int64]


def _counted(
    snapshot: Snapshot, query: Query, weights: Mapping[str, FeatureWeights]
) -> Steps[tuple[FoundTerms, _Counts]]:
    """Look up a question's terms, and count them and its features in all parts."""
    sizes, languages = Sizes.of(snapshot), query.languages
    fires = feature_frequencies(snapshot, weights)
    while True:
        asked = {} if query.mode == "s3" else count_terms(query.question, languages)
        found = find_terms(snapshot, asked)
        counts = yield from together(_add, _Counts(sizes, fires, found.frequencies))
        if counts.sizes.languages == languages:
            return found, counts
        languages = counts.sizes.languages


def _add(parts: list[_Counts]) -> _Counts:
    return _Counts(*add_up(parts))


def _raw_scores(snapshot: Snapshot, query: Query, allowed: NDArray[np.bool_]) -> Steps[Ranking]:
    """The first stage: every signal scores every sentence."""
    recipe, encoded = query.recipe, query.encoded
    raw_scores: dict[Source, Scores] = {}
    coactivation: Coactivation | TapAttention | None = None
    terms = None
    attends = isinstance(recipe.scoring, FeatureAttention)
    weights = {}
    if encoded is not None and not attends:
        weights = question_weights(encoded.features, recipe)
    found, counts = yield from _counted(snapshot, query, weights)
    if encoded is not None:
        if attends:
            tokens = counts.sizes.tokens
            coactivation = TapAttention(snapshot, encoded.tap_queries, recipe, allowed, tokens)
            yield from coactivation.attend()
        else:
            fires = FeatureCounts(counts.sizes.tokens, counts.fires)
            coactivation = Coactivation(snapshot, weights, recipe, counts=fires)
        raw_scores["s3"] = coactivation.sentences()
    if query.mode != "s3":
        terms = gains_of(snapshot, found, counts.terms, counts.sizes)
        raw_scores["bm25"] = terms.scores(len(snapshot))
    fusion = recipe.fusion
    if query.mode == "hybrid" and isinstance(fusion, Interleave) and fusion.edge_tokens:
        raw_scores["edge"] = yield from _edges(snapshot, allowed, fusion.edge_tokens)
    matched = np.zeros(len(snapshot), dtype=np.bool_)
    for scores in raw_scores.values():
        matched |= scores > 0
    # Every sentence is a little similar to every question, so similarity alone is no match.
    if encoded is not None and (cosines := similarity(snapshot, encoded)) is not None:
        raw_scores["sentence"] = cosines
    attention = None
    if recipe.heads is not None and encoded is not None:
        scored = allowed
        if counts.sizes.tokens > recipe.heads.candidates:
            others = (yield from _weigh(raw_scores, recipe, allowed)).contributions
            total = np.where(allowed, rounded(reduce(np.add, others.values())), -np.inf)
            scored = yield from best_sentences(snapshot, total, recipe.heads.candidates)
        attention = HeadAttention(snapshot, encoded.queries, scored)
        yield from attention.attend()
        raw_scores["heads"] = attention.sentences()
        matched |= raw_scores["heads"] > 0
    return Ranking(
        snapshot=snapshot,
        sizes=counts.sizes,
        scores=np.zeros(len(snapshot)),
        eligible=allowed & matched,
        raw_scores=raw_scores,
        contributions={},
        question=encoded,
        coactivation=coactivation,
        terms=terms,
        attention=attention,
    )


def _edges(snapshot: Snapshot, allowed: NDArray[np.bool_], tokens: int) -> Steps[Scores]:
    """1 for the sentences at the first and last `tokens` tokens (M_bias of the paper), else 0."""
    scores = np.zeros(len(snapshot))
    numbers = np.flatnonzero(allowed)
    sizes = snapshot.column("n_tokens")[numbers].astype(np.int64)
    earlier, later = yield from apart(_around, int(sizes.sum()))
    before = earlier + np.cumsum(sizes) - sizes
    after = later + np.cumsum(sizes[::-1])[::-1] - sizes
    scores[numbers[(before < tokens) | (after < tokens)]] = 1.0
    return scores


def _around(parts: list[int]) -> list[tuple[int, int]]:
    """For each part how many tokens are before it and how many after it."""
    bounds = [0, *accumulate(parts)]
    return [(begin, bounds[-1] - end) for begin, end in pairwise(bounds)]


def _fuse(ranking: Ranking, recipe: Recipe) -> Steps[Ranking]:
    """The second stage: signals become one score."""
    if isinstance(recipe.fusion, Interleave):
        scores = yield from interleave_steps(ranking.raw_scores, ranking.eligible)
        return replace(ranking, scores=rounded(scores))
    weighed = yield from _weigh(ranking.raw_scores, recipe, ranking.eligible)
    contributions = cast("dict[Contribution, Scores]", weighed.contributions)
    scores = rounded(reduce(np.add, contributions.values()))
    return replace(ranking, scores=scores, contributions=contributions, lowest=weighed.lowest)


def _weigh(
    raw_scores: Mapping[Source, Scores], recipe: Recipe, chosen: NDArray[np.bool_]
) -> Steps[Weighed[Source]]:
    """What each signal contributes with the weights of a recipe."""
    fusion = recipe.fusion
    assert isinstance(fusion, ZScore)
    weights: dict[Source, float] = {"bm25": fusion.bm25_weight}
    if recipe.sentence is not None:
        weights["sentence"] = recipe.sentence.weight
    if recipe.heads is not None:
        weights["heads"] = recipe.heads.weight
    return (yield from weigh_steps(raw_scores, weights, chosen, fusion.candidates))


def _boost_documents(ranking: Ranking, boost: DocumentBoost) -> Steps[Ranking]:
    """The fourth stage: sentences of the best documents gain their document's margin.

    A document scores what the best of its eligible sentences scores. All of its sentences gain its
    margin over the best document after the first `boost.best`.
    """
    starts = ranking.snapshot.document_starts
    scores = np.where(ranking.eligible, ranking.scores, -np.inf)
    documents = np.maximum.reduceat(scores, starts) if len(starts) else np.zeros(0)
    best = documents
    if len(documents) > boost.best:
        least = nth_largest(documents, boost.best)
        best = documents[documents > least]
        best = np.append(best, np.full(boost.best + 1 - len(best), least))
    every = np.sort((yield from together(np.concatenate, best)))
    if len(every) <= boost.best or every[-boost.best - 1] == -np.inf:
        return ranking
    next_best = every[-boost.best - 1]
    added, scores = np.zeros(len(scores)), ranking.scores.copy()
    ends = np.append(starts[1:], len(scores))
    for document in np.flatnonzero(documents > next_best):
        own = slice(starts[document], ends[document])
        added[own] = boost.weight * (documents[document] - next_best)
        scores[own] = rounded(scores[own] + added[own])
    return replace(
        ranking,
        scores=scores,
        contributions={**ranking.contributions, "document": added},
    )
