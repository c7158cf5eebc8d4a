"""Co-activation: how strongly the question's features fire in each sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from s3_retriever.codebook.encoder import QuestionFeatures
from s3_retriever.index import Segment, Snapshot
from s3_retriever.recipe import Recipe
from s3_retriever.search.smoothing import smooth


@dataclass(frozen=True, slots=True)
class FeatureWeights:
    """The question's features at one tap.

    Attributes:
        features: Ascending, int64 [f].
        weights: Factor of each, without its IDF, float64 [f].
    """

    features: NDArray[np.int64]
    weights: NDArray[np.float64]


def question_weights(
    question: Mapping[str, QuestionFeatures], recipe: Recipe
) -> dict[str, FeatureWeights]:
    """Pool the features of a question's tokens (w_q of S3-Attention, eq. 7), by tap name."""
    pooled = {}
    for tap, part in recipe.taps.items():
        found = question[tap]
        fires = found.indices >= 0
        features, which = np.unique(found.indices[fires], return_inverse=True)
        weights = np.zeros(len(features))
        pool = np.add if recipe.pooling == "sum" else np.maximum
        pool.at(weights, which, found.values[fires].astype(np.float64))
        pooled[tap] = FeatureWeights(features, part.weight * weights**recipe.weight_power)
    return pooled


class Coactivation:
    """The question's features in a snapshot: document frequencies and scores.

    Args:
        snapshot: What to score.
        question: Weights of the question's features, by tap name.
        recipe: Power of the IDF, and how a sentence scores.

    Attributes:
        weights: By tap name, the weight of each feature with its IDF, float64 [f].
    """

    def __init__(
        self, snapshot: Snapshot, question: Mapping[str, FeatureWeights], recipe: Recipe
    ) -> None:
        self.question = question
        self._recipe = recipe
        self._segments = snapshot.segments
        self.weights = {
            tap: part.weights * _idf(snapshot, tap, part.features) ** recipe.idf_power
            for tap, part in question.items()
        }

    @property
    def n_features(self) -> int:
        """How many features the question has at all taps."""
        return sum(len(weights) for weights in self.weights.values())

    @cached_property
    def tokens(self) -> list[NDArray[np.float64]]:
        """For each segment the smoothed token scores, float64 [tokens]."""
        return [
            smooth(
                self.raw(place),
                segment.documents["first_token"].astype(np.int64),
                self._recipe.kernel,
            )
            for place, segment in enumerate(self._segments)
        ]

    def raw(self, place: int) -> NDArray[np.float64]:
        """Token scores [tokens] of the segment at a place of the snapshot, before smoothing."""
        segment = self._segments[place]
        scores = np.zeros(segment.n_tokens)
        for tap, part in self.question.items():
            segment.add_to_tokens(tap, part.features, self.weights[tap], scores)
        return scores

    def sentences(self) -> NDArray[np.float64]:
        """The score of each sentence of the snapshot [n], as `Recipe.scoring` says."""
        score = self._peaks if self._recipe.scoring == "peak" else self._cover
        parts = [
            score(place, segment)
            for place, segment in enumerate(self._segments)
            if segment.n_sentences
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _peaks(self, place: int, segment: Segment) -> NDArray[np.float64]:
        """The best token of each sentence (S3-Attention's max within a span)."""
        first = segment.sentences["first_token"].astype(np.int64)
        return np.asarray(np.maximum.reduceat(self.tokens[place], first))

    def _cover(self, _place: int, segment: Segment) -> NDArray[np.float64]:
        """The distinct features of each sentence, long sentences discounted."""
        scores = np.zeros(segment.n_sentences)
        for tap, part in self.question.items():
            segment.add_to_sentences(tap, part.features, self.weights[tap], scores)
        # Sentences are short, so that few powers serve all of them.
        lengths = segment.sentence_tokens
        powers = np.arange(1, int(lengths.max()) + 1) ** -self._recipe.length_power
        scores *= powers[lengths - 1]
        return scores

    def shares(self, place: int, ordinals: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each feature adds to the scores of some sentences, where they score as `cover`.

        Args:
            place: Of the sentences' segment in the snapshot.
            ordinals: Sentences of the segment [n], ascending.

        Returns:
            float64 [n, f], the features of tap after tap.
        """
        segment = self._segments[place]
        parts = [
            segment.features_in(tap, part.features, ordinals) * self.weights[tap]
            for tap, part in self.question.items()
        ]
        lengths = segment.sentence_tokens[ordinals].astype(np.float64)
        return np.concatenate(parts, axis=1) * lengths[:, None] ** -self._recipe.length_power

    def contributions(
        self, place: int, start: int, end: int
    ) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Which of the question's features fire on the tokens from `start` to `end`.

        Returns:
            By tap name, token positions [n] and the index [n] of the feature among the tap's
            `weights`.
        """
        found = {}
        for tap, part in self.question.items():
            positions, which = self._segments[place].postings(tap, part.features)
            inside = (positions >= start) & (positions < end)
            found[tap] = (positions[inside], which[inside])
        return found


def _idf(snapshot: Snapshot, tap: str, features: NDArray[np.int64]) -> NDArray[np.float64]:
    """`-log(share of the live tokens on which the feature fires)`, 0 where it never does."""
    frequency = np.zeros(len(features))
    for segment in snapshot.segments:
        frequency += segment.frequencies(tap, features)
    share = frequency / max(snapshot.n_tokens, 1)
    return -np.log(share, where=share > 0, out=np.zeros(len(features)))
