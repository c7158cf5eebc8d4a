"""Relevance: how likely sentences are to be evidence, from 0 to 1, the same for every question."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from s3_retriever.search.ranking import Ranking
from s3_retriever.types import Scores


def relevance_of(ranking: Ranking, numbers: NDArray[np.int64]) -> Scores:
    """The relevance of some sentences.

    Args:
        ranking: Scores of all sentences.
        numbers: Sentences [n].

    Returns:
        float64 [n], 0 to 1.
    """
    best = np.zeros(len(numbers))
    if "sentence" in ranking.raw_scores:
        best = np.clip(ranking.raw_scores["sentence"][numbers], 0.0, 1.0)
    if ranking.terms is not None:
        gains = ranking.raw_scores["bm25"]
        highest = float(gains.max(initial=0.0))
        if highest > 0:
            best = np.maximum(best, 0.5 * gains[numbers] / highest)
    return best
