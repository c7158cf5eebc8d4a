"""Ranking a snapshot for a question: the host reads it, and the index does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from s3_retriever.encoder import Encoder
from s3_retriever.encoder.encoder import QuestionFeatures
from s3_retriever.index import Snapshot
from s3_retriever.index.snapshot import Sentences
from s3_retriever.recipe import DocumentRecipe, Recipe
from s3_retriever.search import Coactivation, Mode, question_weights
from s3_retriever.search.fusion import nth_largest
from s3_retriever.search.hop import Hop, take_hop, with_hop
from s3_retriever.search.ranking import Ranking, rank
from s3_retriever.search.signals import likeness_of


def with_documents(ranking: Ranking, recipe: DocumentRecipe) -> Ranking:
    """A ranking in which all sentences of the best documents gain.

    A document scores as the best of its sentences that may be returned. What it exceeds the best
    of the documents after the first few by is added to its sentences.

    Args:
        ranking: Of sentences, whose scores are a sum.
        recipe: How many documents gain, and how much.
    """
    starts = ranking.sentences.document_starts
    if len(starts) <= recipe.best:
        return ranking
    scores = np.where(ranking.eligible, ranking.scores, -np.inf)
    documents = np.maximum.reduceat(scores, starts)
    next_best = nth_largest(documents, recipe.best)
    if next_best == -np.inf:
        return ranking
    part = np.zeros(len(scores))
    ends = np.append(starts[1:], len(scores))
    for document in np.flatnonzero(documents > next_best):
        sentences = slice(starts[document], ends[document])
        part[sentences] = recipe.weight * (documents[document] - next_best)
    return replace(
        ranking,
        scores=ranking.scores + part,
        parts={**ranking.parts, "document": part},
    )


class Ranked(NamedTuple):
    """What a question came to.

    Attributes:
        ranking: All sentences.
        hop: The second hop, where the recipe has one and the first pass found something.
        features: Of the question, by tap name; empty in mode `bm25`, which reads none.
    """

    ranking: Ranking
    hop: Hop | None
    features: Mapping[str, QuestionFeatures]


def rank_question(
    encoder: Encoder,
    snapshot: Snapshot,
    question: str,
    recipe: Recipe,
    mode: Mode,
    allowed: NDArray[np.bool_],
) -> Ranked:
    """Rank all sentences, in one pass or in two.

    Args:
        encoder: Reads the question; not needed in mode `bm25`.
        snapshot: What to rank.
        question: The question.
        recipe: How it is scored.
        mode: `s3`, `bm25` or `hybrid`. BM25 alone takes one pass.
        allowed: Sentences that may be returned [n].
    """
    sentences = Sentences.of(snapshot)
    if mode == "bm25":
        return Ranked(rank(sentences, question, None, recipe, mode, allowed), None, {})
    features = encoder.question(question, recipe)
    coactivation = Coactivation(snapshot, question_weights(features, recipe), recipe)
    likeness = likeness_of(snapshot, features, recipe)
    first = rank(sentences, question, coactivation, recipe, mode, allowed, likeness)
    hop = recipe.second_hop
    found = take_hop(first, snapshot, question, recipe, hop) if hop else None
    ranking = with_hop(first, found) if found else first
    if recipe.document is not None and mode == "hybrid":
        ranking = with_documents(ranking, recipe.document)
    return Ranked(ranking, found, features)
