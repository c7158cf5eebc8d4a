"""Ranking a snapshot for a question: the host reads the question, then the bridges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from s3_retriever.codebook import Encoder
from s3_retriever.index import Snapshot
from s3_retriever.recipe import Recipe
from s3_retriever.search import Coactivation, Mode, question_weights
from s3_retriever.search.hop import Hop, find_bridges, take_hop, titled, with_hop
from s3_retriever.search.ranking import Ranking, rank
from s3_retriever.search.sentences import Sentences


def rank_question(
    encoder: Encoder,
    snapshot: Snapshot,
    question: str,
    recipe: Recipe,
    mode: Mode,
    allowed: NDArray[np.bool_],
) -> tuple[Ranking, Hop | None]:
    """Rank all sentences, in one pass or in two.

    Args:
        encoder: Reads the question and the bridges; not needed in mode `bm25`.
        snapshot: What to rank.
        question: The question.
        recipe: How it is scored.
        mode: `s3`, `bm25` or `hybrid`. BM25 alone takes one pass.
        allowed: Sentences that may be returned [n].

    Returns:
        The ranking, and the second hop where the recipe has one and the first pass found
        something.
    """
    sentences = Sentences(snapshot)
    if mode == "bm25":
        return rank(sentences, question, None, recipe, mode, allowed), None
    features = question_weights(encoder.question(question, recipe), recipe)
    coactivation = Coactivation(snapshot, features, recipe)
    first = rank(sentences, question, coactivation, recipe, mode, allowed)
    hop = recipe.second_hop
    bridges = find_bridges(first, hop) if hop else []
    if hop is None or not bridges:
        return first, None
    read = encoder.questions([titled(bridge) for bridge in bridges], recipe)
    found = take_hop(first, snapshot, question, bridges, read, recipe, hop)
    return with_hop(first, found), found
