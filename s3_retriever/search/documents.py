"""What documents as wholes add to the scores of their sentences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from s3_retriever.recipe import DocumentRecipe
from s3_retriever.search.largest import nth_largest
from s3_retriever.search.ranking import Ranking


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
