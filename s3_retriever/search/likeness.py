"""Likeness: how close the mean state of each sentence is to the question's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from s3_retriever.codebook.encoder import QuestionFeatures
from s3_retriever.index import Snapshot
from s3_retriever.recipe import Recipe


def likeness_of(
    snapshot: Snapshot, question: Mapping[str, QuestionFeatures], recipe: Recipe
) -> NDArray[np.float64] | None:
    """The cosine of each sentence's mean state, as its code tells it, and the question's.

    Args:
        snapshot: The sentences.
        question: Features of the question, and where it points at the recipe's tap of sentences.
        recipe: Names the tap.

    Returns:
        float64 [n], about -1 to 1; None where the recipe has no such tap.
    """
    if recipe.sentence is None:
        return None
    tap = recipe.sentence.tap
    (direction,) = question[tap].values
    parts = [segment.likeness(tap, direction) for segment in snapshot.segments]
    return np.concatenate(parts) if parts else np.zeros(0)
