"""Ranking a snapshot for a question: the host reads it, and the index does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from s3_retriever.codebook import Encoder
from s3_retriever.codebook.encoder import QuestionFeatures
from s3_retriever.index import Snapshot
from s3_retriever.recipe import Recipe
from s3_retriever.search import Coactivation, Mode, question_weights
from s3_retriever.search.documents import with_documents
from s3_retriever.search.hop import Hop, take_hop, with_hop
from s3_retriever.search.likeness import likeness_of
from s3_retriever.search.ranking import Ranking, rank
from s3_retriever.search.sentences import Sentences


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
