"""The second hop: what the best spans of a first pass lead on to in other documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from s3_retriever.codebook.encoder import QuestionFeatures
from s3_retriever.document import title_of
from s3_retriever.index import Snapshot
from s3_retriever.recipe import Recipe, SecondHop
from s3_retriever.search.coactivation import Coactivation, FeatureWeights, question_weights
from s3_retriever.search.fusion import moments
from s3_retriever.search.largest import nth_largest
from s3_retriever.search.lexical import bm25, count_terms
from s3_retriever.search.ranking import Ranking
from s3_retriever.search.spans import Span, locate_span, select

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Hop:
    """What the second pass found.

    Attributes:
        bridges: The spans that it set out from, best first.
        numbers: Their sentences.
        scores: What each bridge adds to each sentence, float64 [bridges, n].
    """

    bridges: tuple[Span, ...]
    numbers: tuple[int, ...]
    scores: Scores

    def leader(self, number: int) -> Span | None:
        """The bridge that adds most to a sentence; None where none does."""
        best = int(self.scores[:, number].argmax())
        return self.bridges[best] if self.scores[best, number] > 0 else None


def find_bridges(first: Ranking, hop: SecondHop) -> list[Span]:
    """The spans of a first pass that the second one sets out from, best first."""
    return select(first, k=hop.bridges, token_budget=None, radius=0, order="score")


def titled(bridge: Span) -> tuple[str, str]:
    """A bridge as the host reads a question: its document's title, and its text."""
    return title_of(bridge.metadata), bridge.text


def take_hop(
    first: Ranking,
    snapshot: Snapshot,
    question: str,
    bridges: Sequence[Span],
    features: Sequence[Mapping[str, QuestionFeatures]],
    recipe: Recipe,
    hop: SecondHop,
) -> Hop:
    """Score what the bridges have beyond the question, in other documents than their own.

    Args:
        first: The first pass, of mode `s3` or `hybrid`.
        snapshot: What it ranked.
        question: The question.
        bridges: Spans of the first pass.
        features: Features of each bridge.
        recipe: How questions are scored.
        hop: How bridges are.
    """
    assert first.coactivation is not None
    known = {tap: part.features for tap, part in first.coactivation.question.items()}
    found = [_coactivation(snapshot, part, known, recipe, hop) for part in features]
    signals = [(hop.weight, [scored.sentences() for scored in found])]
    if "bm25" in first.signals:
        terms = count_terms(question)
        signals.append((hop.lexical_weight, [_lexical(first, span, terms) for span in bridges]))
    numbers, own = zip(*(_place(first, snapshot, span) for span in bridges), strict=True)
    total = np.zeros((len(bridges), len(first.scores)))
    for weight, rows in signals:
        for row, document in zip(rows, own, strict=True):
            row[document] = 0.0
            row *= first.eligible
        _add_excess(total, rows, weight, first.eligible, hop.neighbours)
    return Hop(tuple(bridges), numbers, total)


def with_hop(first: Ranking, hop: Hop) -> Ranking:
    """A ranking with what the best bridge adds to each score of the first pass.

    The bridges get as much as the best of what they lead to: what was found directly stays in
    front of what follows from it.
    """
    led = hop.scores.max(axis=0)
    part = led.copy()
    part[list(hop.numbers)] = led.max()
    led[list(hop.numbers)] = 0.0
    return replace(
        first,
        scores=first.scores + part,
        signals={**first.signals, "hop": led},
        parts={**first.parts, "hop": part},
    )


def _coactivation(
    snapshot: Snapshot,
    features: Mapping[str, QuestionFeatures],
    known: Mapping[str, NDArray[np.int64]],
    recipe: Recipe,
    hop: SecondHop,
) -> Coactivation:
    weights = question_weights(features, recipe)
    fresh = {tap: _without(part, known[tap]) for tap, part in weights.items()}
    return Coactivation(snapshot, fresh, recipe.model_copy(update={"idf_power": hop.idf_power}))


def _without(weights: FeatureWeights, known: NDArray[np.int64]) -> FeatureWeights:
    new = ~np.isin(weights.features, known)
    return FeatureWeights(weights.features[new], weights.weights[new])


def _lexical(first: Ranking, bridge: Span, known: Mapping[str, int]) -> Scores:
    terms = count_terms(" ".join(titled(bridge)))
    return bm25(first.sentences, {term: 1 for term in terms if term not in known})


def _place(first: Ranking, snapshot: Snapshot, bridge: Span) -> tuple[int, slice]:
    """Number of a bridge's sentence, and those of all sentences of its document."""
    place, segment, sentence, _ = locate_span(snapshot, bridge)
    document = segment.documents[int(segment.sentences[sentence]["document"])]
    offset = int(first.sentences.bounds[place])
    start = offset + int(document["first_sentence"])
    return offset + sentence, slice(start, start + int(document["n_sentences"]))


def _add_excess(
    total: Scores,
    rows: Sequence[Scores],
    weight: float,
    chosen: NDArray[np.bool_],
    neighbours: int,
) -> None:
    """Add what the best of each row exceed the next one, in standard deviations, to the totals."""
    _, deviation = moments(np.maximum.reduce(rows), chosen)
    if deviation == 0 or total.shape[1] <= neighbours:
        return
    for bridge, row in enumerate(rows):
        next_best = nth_largest(row, neighbours)
        best = np.flatnonzero(row > next_best)
        total[bridge, best] += weight * (row[best] - next_best) / deviation
