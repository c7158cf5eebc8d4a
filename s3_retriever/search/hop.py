"""The second hop: what the best spans of a first pass lead to in other documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from s3_retriever.document import title_of
from s3_retriever.quantization import direction_of
from s3_retriever.recipe import Recipe, SecondHop
from s3_retriever.search.fusion import Spread, add_spreads, nth_largest, rounded
from s3_retriever.search.parts import Steps, add_up, apart, together
from s3_retriever.search.ranking import Bridge, Hop, Ranking
from s3_retriever.search.selection import BestFirst, Here, Limits, pick, span_id
from s3_retriever.search.signals import (
    Coactivation,
    FeatureCounts,
    FeatureWeights,
    QuestionTerm,
    cosines,
    count_terms,
    feature_frequencies,
    find_terms,
    gains_of,
    united_terms,
)
from s3_retriever.types import Scores


def add_hop(first: Ranking, question: str, recipe: Recipe, hop: SecondHop) -> Steps[Ranking]:
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
    view = Here(first)
    best = [each.peak for each in islice(pick(BestFirst(view), view, Limits()), hop.bridges)]
    own = [(view.score(number), *view.texts(number, number)) for number in best]
    chosen = yield from apart(partial(_best, hop.bridges), own)
    known = {} if first.terms is None else count_terms(question, first.sizes.languages)
    found = {rank: _lead(first, best[at], recipe, known) for rank, at in chosen.items()}
    leads = yield from apart(_shared, found)
    if not leads:
        return first
    passes = yield from _second_pass(first, leads, recipe, hop)
    tops = [_tops(rows, first.eligible, hop.neighbours) for _, rows in passes]
    weights = [weight for weight, _ in passes]
    margins = yield from apart(
        partial(_margins, hop.neighbours, weights), (first.snapshot.n_sentences, tops)
    )
    return _raised(first, leads, margins)


@dataclass(frozen=True, slots=True, eq=False)
class _Lead:
    """A sentence that the second pass may start from.

    Attributes:
        bridge: What it is in its part.
        document: Numbers of all sentences of its document; of none in other parts.
        features: By tap, its features beyond the question's, weighted by the tokens they fire on.
        terms: Terms of the sentence and its title beyond the question's, once each.
        direction: Direction of its vector at right angles to the question's [axes]; None without
            sentence vectors.
    """

    bridge: Bridge
    document: slice
    features: Mapping[str, FeatureWeights]
    terms: Mapping[str, QuestionTerm]
    direction: NDArray[np.float32] | None


def _lead(first: Ranking, number: int, recipe: Recipe, known: Mapping[str, QuestionTerm]) -> _Lead:
    assert isinstance(first.coactivation, Coactivation)
    _, segment, ordinal = first.snapshot.locate(number)
    text = segment.text(ordinal, ordinal)
    features = {}
    for tap, part in first.coactivation.question.items():
        # The index keeps no activations, so the count takes the place of their sum over tokens.
        fires, tokens = segment.sentence_features(tap, ordinal)
        new = ~np.isin(fires, part.features, kind="table")
        weights = recipe.taps[tap].weight * tokens[new].astype(np.float64)
        features[tap] = FeatureWeights(fires[new], weights)
    terms: dict[str, QuestionTerm] = {}
    direction = None
    if first.terms is not None:
        document = int(segment.sentences[ordinal]["document"])
        title = title_of(segment.document(document).metadata)
        counted = count_terms(f"{title} {text}", first.sizes.languages)
        terms = {
            name: term._replace(occurrences=1)
            for name, term in counted.items()
            if name not in known
        }
    elif first.question is not None and first.question.direction is not None:
        (vector,) = segment.vectors(ordinal, ordinal + 1)
        direction = _beyond(direction_of(vector), first.question.direction)
    return _Lead(
        bridge=Bridge(span_id(first, number), number),
        document=first.snapshot.document_of(number),
        features=features,
        terms=terms,
        direction=direction,
    )


def _beyond(own: NDArray[np.float32], question: NDArray[np.float32]) -> NDArray[np.float32]:
    """The part of a direction at right angles to the question's, of unit length [axes]."""
    beyond = own - (own @ question) * question
    return np.asarray(beyond / max(float(np.linalg.norm(beyond)), 1e-9), dtype=np.float32)


def _best(limit: int, parts: Sequence[Sequence[tuple[float, str]]]) -> list[dict[int, int]]:
    """Which sentences of each part, given by scores and texts, are the best of all, by rank.

    No text is taken twice.
    """
    every = [
        (-score, place, at, text)
        for place, sentences in enumerate(parts)
        for at, (score, text) in enumerate(sentences)
    ]
    chosen: list[dict[int, int]] = [{} for _ in parts]
    texts: set[str] = set()
    for _, place, at, text in sorted(every):
        if len(texts) < limit and text not in texts:
            chosen[place][len(texts)] = at
            texts.add(text)
    return chosen


def _shared(parts: Sequence[Mapping[int, _Lead]]) -> list[list[_Lead]]:
    """For each part the leads of all by rank, those of other parts without a place."""
    ranks = sorted(rank for leads in parts for rank in leads)
    elsewhere = {
        rank: replace(lead, bridge=lead.bridge._replace(number=None), document=slice(0, 0))
        for leads in parts
        for rank, lead in leads.items()
    }
    return [[leads.get(rank, elsewhere[rank]) for rank in ranks] for leads in parts]


def _second_pass(
    first: Ranking, leads: Sequence[_Lead], recipe: Recipe, hop: SecondHop
) -> Steps[list[tuple[float, list[Scores]]]]:
    """The weight of each kind of score, and how every lead scores each sentence [n]."""
    snapshot = first.snapshot
    fires = [feature_frequencies(snapshot, lead.features) for lead in leads]
    found = find_terms(snapshot, united_terms(lead.terms for lead in leads))
    every, frequencies = yield from together(add_up, (fires, found.frequencies))
    rows = [
        Coactivation(
            snapshot,
            lead.features,
            recipe,
            hop.idf_power,
            FeatureCounts(first.sizes.tokens, counts),
        ).sentences()
        for lead, counts in zip(leads, every, strict=True)
    ]
    passes = [(hop.weight, rows)]
    if first.terms is not None:
        gains = gains_of(snapshot, found, frequencies, first.sizes)
        rows = gains.scores_of([lead.terms for lead in leads], len(snapshot))
        passes.append((hop.bm25_weight, rows))
    elif hop.similarity_weight:
        rows = [cosines(snapshot, lead.direction) for lead in leads if lead.direction is not None]
        if rows:
            passes.append((hop.similarity_weight, rows))
    ineligible, dead = np.flatnonzero(~first.eligible), np.flatnonzero(~snapshot.live)
    for _, rows in passes:
        for row, lead in zip(rows, leads, strict=True):
            row[lead.document] = 0.0
            row[ineligible] = 0.0
            # Whether deleted sentences are still there makes no difference.
            row[dead] = -np.inf
    return passes


class _Tops(NamedTuple):
    """What stands out in one kind of score in a part.

    Attributes:
        spread: That of the best score of each sentence with any lead.
        rows: For every lead, the numbers of the sentences with the best scores, these scores, and
            the scores that follow.
    """

    spread: Spread
    rows: list[tuple[NDArray[np.int64], Scores, Scores]]


def _tops(rows: Sequence[Scores], eligible: NDArray[np.bool_], neighbours: int) -> _Tops:
    tops = []
    for row in rows:
        best, next_best = np.arange(len(row)), np.zeros(0)
        if len(row) > neighbours:
            least = nth_largest(row, neighbours)
            best = np.flatnonzero(row > least)
            next_best = np.full(neighbours + 1 - len(best), least)
        tops.append((best, row[best], next_best))
    return _Tops(Spread.of(reduce(np.maximum, rows), eligible), tops)


class _Margins(NamedTuple):
    """What the leads add.

    Attributes:
        added: For sentences of a part, by number, what each lead adds [leads].
        most: The most that any lead adds to any sentence of any part.
    """

    added: dict[int, Scores]
    most: float


def _margins(
    neighbours: int, weights: Sequence[float], parts: Sequence[tuple[int, Sequence[_Tops]]]
) -> list[_Margins]:
    """For each part the margins of each lead's best sentences over its next best, in deviations.

    Args:
        neighbours: How many sentences each lead may add to.
        weights: Weight of each kind of score.
        parts: For each part its number of live sentences and, by kind of score, what stands out.
    """
    added: list[dict[int, Scores]] = [{} for _ in parts]
    if sum(size for size, _ in parts) > neighbours:
        for weight, *tops in zip(weights, *(tops for _, tops in parts), strict=True):
            _add_margins(added, neighbours, weight, tops)
    most = max((float(each.max()) for part in added for each in part.values()), default=0.0)
    return [_Margins(part, max(most, 0.0)) for part in added]


def _add_margins(
    added: Sequence[dict[int, Scores]], neighbours: int, weight: float, tops: Sequence[_Tops]
) -> None:
    (spread,) = add_spreads([[each.spread] for each in tops])
    if spread.deviation == 0:
        return
    leads = len(tops[0].rows)
    for lead, rows in enumerate(zip(*(each.rows for each in tops), strict=True)):
        scores = np.concatenate([each for _, *both in rows for each in both])
        next_best = np.sort(scores)[-neighbours - 1]
        for part, (numbers, best, _) in zip(added, rows, strict=True):
            for number, score in zip(numbers.tolist(), best.tolist(), strict=True):
                if score > next_best:
                    own = part.setdefault(number, np.zeros(leads))
                    own[lead] += weight * (score - next_best) / spread.deviation


def _raised(first: Ranking, leads: Sequence[_Lead], margins: _Margins) -> Ranking:
    """The first pass with what the leads add."""
    led, scores = np.zeros(len(first.scores)), first.scores.copy()
    bridges = tuple(lead.bridge for lead in leads)
    leaders = {}
    for number, each in margins.added.items():
        best = int(each.argmax())
        if each[best] > 0:
            led[number] = each[best]
            leaders[number] = bridges[best]
    added = led.copy()
    numbers = [bridge.number for bridge in bridges if bridge.number is not None]
    added[numbers] = margins.most
    led[numbers] = 0.0
    raised = np.flatnonzero(added)
    scores[raised] = rounded(scores[raised] + added[raised])
    return replace(
        first,
        scores=scores,
        raw_scores={**first.raw_scores, "hop": led},
        contributions={**first.contributions, "hop": added},
        hop=Hop(first, tuple(numbers), leaders),
    )
