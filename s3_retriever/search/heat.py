"""Heat: where in a document a question's features fire, and where else a feature does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s3_retriever.document import title_of
from s3_retriever.errors import InputError
from s3_retriever.index import Segment, Snapshot, unknown_ids
from s3_retriever.search.attention import Attention
from s3_retriever.search.ranking import Ranking
from s3_retriever.search.selection import token_bounds, token_range
from s3_retriever.search.tap_attention import TapAttention
from s3_retriever.types import Scores, shown

# Features of a question that are listed for a document.
_FEATURES = 32
# Characters of a sentence that are shown; only the few sentences without spaces are longer.
_EXCERPT = 400
# Tokens whose attention is computed at once, which bounds its memory.
_STRETCH = 1 << 14


@dataclass(frozen=True, slots=True)
class HeatFeature:
    """A feature of the question that fires in the document.

    Attributes:
        tap: Name of its tap, such as `hidden.5`.
        feature: Its index in that tap's dictionary.
        weight: What it adds to the score of each token on which it fires; with scoring
            `FeatureAttention`, to that of the token to which it adds most.
        tokens: The tokens on which it fires, as indices into `Heat.tokens`.
    """

    tap: str
    feature: int
    weight: float
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Heat:
    """How strongly each token of a document answers to a question.

    Attributes:
        tokens: Offsets of each token's first character and after its last one, int64 [n, 2].
        scores: A score for each token, float64 [n]: by tap, the sum of the weights of the
            question's features that fire on it, or with scoring `FeatureAttention` the attention
            that the question pays to it; by key head, such as `17.1`, the same attention.
        features: The strongest of the question's features that fire here, at most 32, by falling
            weight.
    """

    tokens: NDArray[np.int64]
    scores: Mapping[str, Scores]
    features: tuple[HeatFeature, ...]


@dataclass(frozen=True, slots=True)
class Firing:
    """A sentence in which a feature fires.

    Attributes:
        document_id: The document's id.
        title: The document's title; empty if it has none.
        start: Offset of the first character of `text` in the document.
        end: Offset after its last character.
        text: The sentence; of a very long one, 400 characters around the first token that fires.
        tokens: Offsets in the document of the tokens on which the feature fires.
    """

    document_id: str
    title: str
    start: int
    end: int
    text: str
    tokens: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Firings:
    """Where a feature fires.

    Attributes:
        sentences: Sentences in which it fires, those with the most such tokens first.
        total: How many there are in the whole index.
    """

    sentences: tuple[Firing, ...]
    total: int


def heat(ranking: Ranking, document_id: str) -> Heat:
    """Score the tokens of a document by tap and by key head.

    Args:
        ranking: The snapshot's sentences ranked for the question, in mode `hybrid`.
        document_id: Id of the document.

    Raises:
        InputError: The snapshot has no such document.
    """
    coactivation = ranking.coactivation
    assert coactivation is not None
    location = ranking.snapshot.find(document_id)
    if location is None:
        raise unknown_ids([document_id])
    segment, ordinal = location
    place = ranking.snapshot.segments.index(segment)
    document = segment.documents[ordinal]
    first, sentences = int(document["first_sentence"]), int(document["n_sentences"])
    start, n = int(document["first_token"]), int(document["n_tokens"])
    bounds = token_bounds(segment, first, first + sentences - 1) if sentences else []
    scores: dict[str, Scores] = {}
    features: list[HeatFeature] = []
    if isinstance(coactivation, TapAttention):
        features = _looked_at(coactivation, place, start, start + n)
        scores |= _attention(coactivation, place, start, start + n)
    else:
        for tap, (positions, which) in coactivation.firing(place, start, start + n).items():
            tokens, weights = positions - start, coactivation.weights[tap]
            scores[tap] = np.bincount(tokens, weights[which], minlength=n).astype(np.float64)
            for index in np.unique(which).tolist():
                feature = int(coactivation.question[tap].features[index])
                fires = tuple(tokens[which == index].tolist())
                features.append(HeatFeature(tap, feature, float(weights[index]), fires))
    if ranking.attention is not None:
        scores |= _attention(ranking.attention, place, start, start + n)
    features.sort(key=lambda feature: -feature.weight)
    return Heat(
        tokens=np.array(bounds, dtype=np.int64).reshape(-1, 2),
        scores=scores,
        features=tuple(features[:_FEATURES]),
    )


def _attention(attention: Attention, place: int, start: int, end: int) -> dict[str, Scores]:
    """By key head or tap, the question's mean attention to each of a range of tokens."""
    parts: dict[str, list[Scores]] = {}
    for low in range(start, end, _STRETCH):
        found = attention.pairs(place, low, min(low + _STRETCH, end))
        for name, (_, shares) in found.items():
            parts.setdefault(name, []).append(shares.sum(axis=0) / max(len(shares), 1))
    return {name: np.concatenate(part) for name, part in parts.items()}


def _looked_at(attention: TapAttention, place: int, start: int, end: int) -> list[HeatFeature]:
    """The features of a range of tokens through which the question looks at them."""
    weights: dict[tuple[str, int], float] = {}
    tokens: dict[tuple[str, int], list[int]] = {}
    for low in range(start, end, _STRETCH):
        for tap, seen in attention.glances(place, low, min(low + _STRETCH, end)).items():
            each = zip(seen.features, seen.positions - start, seen.scores, strict=True)
            for feature, token, score in each:
                key = tap, int(feature)
                weights[key] = max(weights.get(key, 0.0), float(score))
                tokens.setdefault(key, []).append(int(token))
    return [HeatFeature(*key, weights[key], tuple(tokens[key])) for key in weights]


def firings(snapshot: Snapshot, tap: str, feature: int, limit: int) -> Firings:
    """Find the sentences in which a feature fires.

    Args:
        snapshot: Where to look.
        tap: Name of the feature's tap.
        feature: Its index in that tap's dictionary.
        limit: Most sentences to return.

    Raises:
        InputError: There is no such tap or feature.
    """
    fires, numbers, counts = [], [], []
    for segment, offset in zip(snapshot.segments, snapshot.bounds[:-1], strict=True):
        _check_feature(segment, tap, feature)
        positions, _ = segment.postings(tap, np.array([feature]))
        fires.append(positions)
        ordinals = np.searchsorted(segment.sentences["first_token"], positions, side="right") - 1
        found, count = np.unique(ordinals, return_counts=True)
        live = segment.live_sentences[found]
        numbers.append(found[live] + offset)
        counts.append(count[live])
    if not numbers:
        return Firings((), 0)
    every = np.concatenate(numbers)
    order = np.argsort(-np.concatenate(counts), kind="stable")[:limit]
    sentences = []
    for number in every[order].tolist():
        place, segment, ordinal = snapshot.locate(number)
        sentences.append(_firing(segment, ordinal, fires[place]))
    return Firings(tuple(sentences), len(every))


def _check_feature(segment: Segment, tap: str, feature: int) -> None:
    size = segment.entry.features.get(tap)
    if size is None:
        raise InputError(
            f"Unknown tap {shown(tap)}; this index has {', '.join(segment.taps) or 'no taps'}."
        )
    if feature >= size:
        raise InputError(f"Tap {tap} has features 0 to {size - 1}, not {shown(feature)}.")


def _firing(segment: Segment, ordinal: int, positions: NDArray[np.int64]) -> Firing:
    """A sentence, given all token positions in its segment on which the feature fires."""
    sentence = segment.sentences[ordinal]
    first, after = token_range(segment, ordinal, ordinal)
    low, high = np.searchsorted(positions, [first, after])
    bounds = token_bounds(segment, ordinal, ordinal)
    tokens = [bounds[position - first] for position in positions[low:high].tolist()]
    offset, end = int(sentence["start"]), int(sentence["end"])
    start = offset
    if end - start > _EXCERPT:
        start = max(start, min(tokens[0][0] - _EXCERPT // 4, end - _EXCERPT))
        end = start + _EXCERPT
    row = segment.document(int(sentence["document"]))
    return Firing(
        document_id=row.id,
        title=title_of(row.metadata),
        start=start,
        end=end,
        text=segment.text(ordinal, ordinal)[start - offset : end - offset],
        tokens=tuple((max(a, start), min(b, end)) for a, b in tokens if a < end and b > start),
    )
