"""The second hop: what the best spans of a first pass lead on to in other documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from s3_retriever.document import title_of
from s3_retriever.index import Snapshot
from s3_retriever.recipe import Recipe, SecondHop
from s3_retriever.search.fusion import moments, nth_largest
from s3_retriever.search.ranking import Ranking
from s3_retriever.search.selection import BestFirst, Pick, Span, pick, span_of
from s3_retriever.search.signals import Coactivation, FeatureWeights, bm25_each, count_terms

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Hop:
    """What the second pass found.

    Attributes:
        first: The first pass.
        bridges: Sentences that it set out from, by number, best first.
        scores: What each bridge adds to each sentence, float64 [bridges, n].
    """

    first: Ranking
    bridges: tuple[int, ...]
    scores: Scores

    def leader(self, number: int) -> Span | None:
        """The bridge that adds most to a sentence; None where none does."""
        best = int(self.scores[:, number].argmax())
        if self.scores[best, number] <= 0:
            return None
        bridge = self.bridges[best]
        score = float(self.first.scores[bridge])
        return span_of(self.first, Pick(bridge, bridge, bridge, score))


def take_hop(
    first: Ranking, snapshot: Snapshot, question: str, recipe: Recipe, hop: SecondHop
) -> Hop | None:
    """Score what the best spans have beyond the question, in other documents than their own.

    What a bridge has is read from the index: the features that fire in its sentence, and the
    terms of its text and its document's title. The host does not run again.

    Args:
        first: The first pass, of mode `s3` or `hybrid`.
        snapshot: What it ranked.
        question: The question.
        recipe: How it is scored.
        hop: How bridges are.

    Returns:
        What it found; None where the first pass found nothing to set out from.
    """
    best = islice(pick(BestFirst(first)), hop.bridges)
    bridges = [_Bridge(first, one.peak) for one in best]
    if not bridges:
        return None
    found = [_coactivation(first, snapshot, bridge, recipe, hop) for bridge in bridges]
    signals = [(hop.weight, [scored.sentences() for scored in found])]
    if "bm25" in first.signals:
        terms = count_terms(question)
        rows = bm25_each(first.sentences, [bridge.terms(terms) for bridge in bridges])
        signals.append((hop.lexical_weight, rows))
    total = np.zeros((len(bridges), len(first.scores)))
    outside = np.flatnonzero(~first.eligible)
    for weight, rows in signals:
        for row, bridge in zip(rows, bridges, strict=True):
            row[bridge.document] = 0.0
            row[outside] = 0.0
        _add_excess(total, rows, weight, first.eligible, hop.neighbours)
    return Hop(first, tuple(bridge.number for bridge in bridges), total)


def with_hop(first: Ranking, hop: Hop) -> Ranking:
    """A ranking with what the best bridge adds to each score of the first pass.

    The bridges get as much as the best of what they lead to: what was found directly stays in
    front of what follows from it.
    """
    led = hop.scores.max(axis=0)
    part = led.copy()
    part[list(hop.bridges)] = led.max()
    led[list(hop.bridges)] = 0.0
    return replace(
        first,
        scores=first.scores + part,
        signals={**first.signals, "hop": led},
        parts={**first.parts, "hop": part},
    )


class _Bridge:
    """A sentence that the second pass sets out from.

    Attributes:
        number: Of the sentence.
        document: Numbers of all sentences of its document.
    """

    def __init__(self, first: Ranking, number: int) -> None:
        place, self._segment, self._ordinal = first.sentences.locate(number)
        self._document = int(self._segment.sentences[self._ordinal]["document"])
        document = self._segment.documents[self._document]
        start = int(first.sentences.bounds[place]) + int(document["first_sentence"])
        self.number = number
        self.document = slice(start, start + int(document["n_sentences"]))

    def features(self, tap: str, known: NDArray[np.int64], weight: float) -> FeatureWeights:
        """The features of its sentence that are not known, by the tokens on which they fire."""
        # Activations are not kept; in a question it is their sum over its tokens that counts.
        features, tokens = self._segment.sentence_features(tap, self._ordinal)
        new = ~np.isin(features, known, kind="table")
        return FeatureWeights(features[new], weight * tokens[new].astype(np.float64))

    def terms(self, known: Mapping[str, int]) -> dict[str, int]:
        """The terms of its text and title that are not known, once each."""
        title = title_of(self._segment.document(self._document).metadata)
        text = f"{title} {self._segment.text(self._ordinal, self._ordinal)}"
        return {term: 1 for term in count_terms(text) if term not in known}


def _coactivation(
    first: Ranking, snapshot: Snapshot, bridge: _Bridge, recipe: Recipe, hop: SecondHop
) -> Coactivation:
    assert first.coactivation is not None
    weights = {
        tap: bridge.features(tap, part.features, recipe.taps[tap].weight)
        for tap, part in first.coactivation.question.items()
    }
    return Coactivation(snapshot, weights, recipe.model_copy(update={"idf_power": hop.idf_power}))


def _add_excess(
    total: Scores,
    rows: Sequence[Scores],
    weight: float,
    chosen: NDArray[np.bool_],
    neighbours: int,
) -> None:
    """Add what the best of each row exceed the next one, in standard deviations, to the totals."""
    _, deviation = moments(reduce(np.maximum, rows), chosen)
    if deviation == 0 or total.shape[1] <= neighbours:
        return
    for bridge, row in enumerate(rows):
        next_best = nth_largest(row, neighbours)
        best = np.flatnonzero(row > next_best)
        total[bridge, best] += weight * (row[best] - next_best) / deviation
