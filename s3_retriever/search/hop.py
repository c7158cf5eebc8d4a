"""The second hop: what the best spans of a first pass lead to in other documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from s3_retriever.document import title_of
from s3_retriever.quantization import direction_of
from s3_retriever.recipe import Recipe, SecondHop
from s3_retriever.search.fusion import moments, nth_largest
from s3_retriever.search.ranking import Hop, Ranking
from s3_retriever.search.selection import BestFirst, Limits, pick
from s3_retriever.search.signals import (
    Coactivation,
    FeatureWeights,
    QuestionTerm,
    bm25_each,
    cosines,
    count_terms,
)
from s3_retriever.types import Scores


def add_hop(first: Ranking, question: str, recipe: Recipe, hop: SecondHop) -> Ranking:
    """Raise the sentences of other documents that the best spans, the bridges, lead to.

    A bridge's features and terms come from the index; the host does not run again. The bridges
    gain as much as the best sentence they lead to, which keeps them ahead of it.

    Args:
        first: The first pass, of mode `s3` or `hybrid`, fused by `ZScore`.
        question: The question.
        recipe: How it is scored.
        hop: How the second pass is made.

    Returns:
        The ranking of both passes; the first pass itself if it has no spans to start from.
    """
    best = islice(pick(BestFirst(first), Limits()), hop.bridges)
    bridges = [_Bridge(first, each.peak) for each in best]
    if not bridges:
        return first
    scores = _second_pass(first, bridges, question, recipe, hop)
    numbers = [bridge.number for bridge in bridges]
    led = scores.max(axis=0)
    added = led.copy()
    added[numbers] = led.max()
    led[numbers] = 0.0
    return replace(
        first,
        scores=first.scores + added,
        raw_scores={**first.raw_scores, "hop": led},
        contributions={**first.contributions, "hop": added},
        hop=Hop(first, tuple(numbers), scores),
    )


class _Bridge:
    """A sentence that the second pass starts from.

    Attributes:
        number: Number of the sentence.
        document: Numbers of all sentences of its document.
    """

    def __init__(self, first: Ranking, number: int) -> None:
        _, self._segment, self._ordinal = first.snapshot.locate(number)
        self._document = int(self._segment.sentences[self._ordinal]["document"])
        self.number = number
        self.document = first.snapshot.document_of(number)

    def features(self, tap: str, known: NDArray[np.int64], weight: float) -> FeatureWeights:
        """Features of the sentence beyond the known ones, weighted by the tokens they fire on."""
        # The index keeps no activations, so the count takes the place of their sum over tokens.
        features, tokens = self._segment.sentence_features(tap, self._ordinal)
        new = ~np.isin(features, known, kind="table")
        return FeatureWeights(features[new], weight * tokens[new].astype(np.float64))

    def direction(self, question: NDArray[np.float32]) -> NDArray[np.float32]:
        """Direction of the sentence's vector at right angles to the question's [axes]."""
        (vector,) = self._segment.vectors(self._ordinal, self._ordinal + 1)
        own = direction_of(vector)
        beyond = own - (own @ question) * question
        return np.asarray(beyond / max(float(np.linalg.norm(beyond)), 1e-9), dtype=np.float32)

    def terms(
        self, known: Mapping[str, QuestionTerm], languages: frozenset[str]
    ) -> dict[str, QuestionTerm]:
        """Terms of the sentence and title beyond the known ones, once each."""
        title = title_of(self._segment.document(self._document).metadata)
        text = f"{title} {self._segment.text(self._ordinal, self._ordinal)}"
        return {
            name: term._replace(occurrences=1)
            for name, term in count_terms(text, languages).items()
            if name not in known
        }


def _second_pass(
    first: Ranking, bridges: Sequence[_Bridge], question: str, recipe: Recipe, hop: SecondHop
) -> Scores:
    """What each bridge adds to each sentence, float64 [bridges, n]."""
    coactivations = [_coactivation(first, bridge, recipe, hop).sentences() for bridge in bridges]
    passes = [(hop.weight, coactivations)]
    if first.terms is not None:
        languages = first.snapshot.languages
        known = count_terms(question, languages)
        rows = bm25_each(first.snapshot, [bridge.terms(known, languages) for bridge in bridges])
        passes.append((hop.bm25_weight, rows))
    elif hop.similarity_weight and first.question is not None:
        direction = first.question.direction
        if direction is not None:
            rows = [cosines(first.snapshot, bridge.direction(direction)) for bridge in bridges]
            passes.append((hop.similarity_weight, rows))
    total = np.zeros((len(bridges), len(first.scores)))
    ineligible = np.flatnonzero(~first.eligible)
    for weight, rows in passes:
        for row, bridge in zip(rows, bridges, strict=True):
            row[bridge.document] = 0.0
            row[ineligible] = 0.0
        _add_margins(total, rows, weight, first.eligible, hop.neighbours)
    return total


def _coactivation(first: Ranking, bridge: _Bridge, recipe: Recipe, hop: SecondHop) -> Coactivation:
    assert first.coactivation is not None
    weights = {
        tap: bridge.features(tap, part.features, recipe.taps[tap].weight)
        for tap, part in first.coactivation.question.items()
    }
    return Coactivation(first.snapshot, weights, recipe, hop.idf_power)


def _add_margins(
    total: Scores,
    rows: Sequence[Scores],
    weight: float,
    chosen: NDArray[np.bool_],
    neighbours: int,
) -> None:
    """Add the margins of each row's `neighbours` best over its next best, in deviations."""
    _, deviation = moments(reduce(np.maximum, rows), chosen)
    if deviation == 0 or total.shape[1] <= neighbours:
        return
    for bridge, row in enumerate(rows):
        next_best = nth_largest(row, neighbours)
        best = np.flatnonzero(row > next_best)
        total[bridge, best] += weight * (row[best] - next_best) / deviation
