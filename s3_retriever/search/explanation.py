"""Explaining a span: which features and terms it shares with the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s3_retriever.encoder.encoder import QuestionFeatures
from s3_retriever.index import Segment, Snapshot
from s3_retriever.recipe import CoverageRecipe, Recipe
from s3_retriever.search.hop import Hop
from s3_retriever.search.ranking import Part, Ranking
from s3_retriever.search.selection import Span, locate_span, order_of, pick
from s3_retriever.search.signals import Coactivation, box


@dataclass(frozen=True, slots=True)
class FeatureShare:
    """A feature that fires in the question and where the span's score comes from.

    Attributes:
        tap: Where it was read, such as `hidden.5`.
        feature: Its index in that tap's dictionary.
        share: Of the span's co-activation score, 0 to 1; all shares add up to 1.
        question_tokens: The question's tokens on which it fires.
        span_tokens: The tokens there on which it fires; a smoothing kernel may reach a few
            tokens beyond the span.
    """

    tap: str
    feature: int
    share: float
    question_tokens: tuple[str, ...]
    span_tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TermShare:
    """A term of the question that BM25 finds in the span or its document's title.

    Attributes:
        term: As analysed: folded and stemmed.
        share: Of the span's BM25 score, 0 to 1; all shares add up to 1.
    """

    term: str
    share: float


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token of the span and its co-activation with the question.

    Attributes:
        text: The token's text.
        start: Offset of its first character in the document; `end` after the last one.
        score: Sum of the weights of the question's features that fire on it.
    """

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a span was found.

    Attributes:
        span: What is explained.
        parts: What each source, and the document, adds to the score of the span's best sentence,
            and what `coverage` takes off it, as in a search of the default settings without a
            budget or filter; empty where the recipe does not add them up.
        bridge: The span through which the second hop came here, where that counts for it.
        features: By falling share.
        terms: By falling share.
        tokens: All tokens of the span, in order.
    """

    span: Span
    parts: Mapping[Part, float]
    bridge: Span | None
    features: tuple[FeatureShare, ...]
    terms: tuple[TermShare, ...]
    tokens: tuple[TokenScore, ...]


def explain(
    snapshot: Snapshot,
    question_tokens: Sequence[str],
    question_features: Mapping[str, QuestionFeatures],
    ranking: Ranking,
    hop: Hop | None,
    span: Span,
    recipe: Recipe,
) -> Explanation:
    """Split a span's score into what each feature, token and term adds to it.

    The span's co-activation score is that of its best sentence, whose features count once each,
    or of its best token after smoothing, where those under the kernel count, as the recipe says.

    Args:
        snapshot: Where the span is.
        question_tokens: Tokens of the question.
        question_features: Their features.
        ranking: Of the snapshot for the question, in mode `hybrid`.
        hop: The second hop, where the ranking has one.
        span: What to explain.
        recipe: How it was scored.

    Raises:
        InputError: The span is not in the snapshot.
    """
    coactivation = ranking.coactivation
    assert coactivation is not None
    place, segment, first, last = locate_span(snapshot, span)
    offset = int(ranking.sentences.bounds[place])
    best = offset + first + int(np.argmax(ranking.scores[offset + first : offset + last + 1]))
    start, end = _token_range(segment, first, last)
    matched = ranking.signals["s3"][offset + first : offset + last + 1]
    strongest = first + int(np.argmax(matched))
    if recipe.scoring == "cover":
        low, high = _token_range(segment, strongest, strongest)
    else:
        low, high = _around_peak(coactivation.tokens[place], segment, strongest, recipe)
    around = _tokens(
        segment,
        min(first, _sentence_at(segment, low)),
        max(last, _sentence_at(segment, high - 1)),
        coactivation.raw(place),
    )
    shares = []
    for tap, found in coactivation.contributions(place, low, high).items():
        shares += _feature_shares(
            tap, found, coactivation, question_features[tap], question_tokens, around, recipe
        )
    total = sum(share.share for share in shares) or 1.0
    shares = [_scaled(share, total) for share in shares]
    return Explanation(
        span=span,
        parts=_parts(ranking, recipe, best),
        bridge=None if hop is None else hop.leader(best),
        features=tuple(sorted(shares, key=lambda share: -share.share)),
        terms=_term_shares(ranking, offset + first, offset + last),
        tokens=tuple(around[position] for position in range(start, end)),
    )


def _parts(ranking: Ranking, recipe: Recipe, number: int) -> dict[Part, float]:
    """What a sentence's score is the sum of."""
    parts = {part: float(scores[number]) for part, scores in ranking.parts.items()}
    if recipe.coverage is not None:
        parts["coverage"] = _covered(ranking, recipe, recipe.coverage, number)
    return parts


def _covered(ranking: Ranking, recipe: Recipe, coverage: CoverageRecipe, number: int) -> float:
    """What a sentence's score had lost when it was taken, 0 or less.

    Spans are taken again until it comes. One that never does, as it stands in the result already,
    has lost nothing.
    """
    share = float(ranking.shares(np.array([number])).sum())
    if share == 0:
        return 0.0
    score = float(ranking.scores[number])
    lowest = score - (1.0 - coverage.floor) * share
    for one in pick(order_of(ranking, recipe), radius=recipe.radius):
        if one.first <= number <= one.last:
            return one.score - score
        if one.score < lowest:
            break
    return 0.0


def _around_peak(
    scores: NDArray[np.float64], segment: Segment, sentence: int, recipe: Recipe
) -> tuple[int, int]:
    """The tokens under the kernel at a sentence's best one: the first, and that after the last."""
    start, end = _token_range(segment, sentence, sentence)
    peak = start + int(np.argmax(scores[start:end]))
    left, right = box(recipe.kernel)
    document = segment.documents[int(segment.sentences[sentence]["document"])]
    low = max(peak - left, int(document["first_token"]))
    high = min(peak + right + 1, int(document["first_token"]) + int(document["n_tokens"]))
    return low, high


def _token_range(segment: Segment, first: int, last: int) -> tuple[int, int]:
    begin, end = segment.sentences[first], segment.sentences[last]
    return int(begin["first_token"]), int(end["first_token"]) + int(end["n_tokens"])


def _sentence_at(segment: Segment, token: int) -> int:
    return int(np.searchsorted(segment.sentences["first_token"], token, side="right")) - 1


def _tokens(
    segment: Segment, first: int, last: int, scores: NDArray[np.float64]
) -> dict[int, TokenScore]:
    """The tokens of some sentences of a document, by position in the segment."""
    text, offset = segment.text(first, last), int(segment.sentences[first]["start"])
    starts = segment.token_starts(first, last).astype(np.int64) - offset
    # Where a token ends is not stored: it is the next token's start less the white space before.
    ends = np.append(starts[1:], len(text))
    tokens = {}
    for position, start, end in zip(
        range(*_token_range(segment, first, last)), starts.tolist(), ends.tolist(), strict=True
    ):
        piece = text[start:end].rstrip()
        begin = offset + start
        tokens[position] = TokenScore(piece, begin, begin + len(piece), float(scores[position]))
    return tokens


def _feature_shares(
    tap: str,
    found: tuple[NDArray[np.int64], NDArray[np.int64]],
    coactivation: Coactivation,
    question: QuestionFeatures,
    question_tokens: Sequence[str],
    around: Mapping[int, TokenScore],
    recipe: Recipe,
) -> list[FeatureShare]:
    """One entry for each feature, with its contribution to the score as its share."""
    positions, which = found
    weights = coactivation.weights[tap]
    features = coactivation.question[tap].features
    shares = []
    for index in np.unique(which).tolist():
        where = positions[which == index].tolist()
        feature = int(features[index])
        fires = np.flatnonzero((question.indices == feature).any(axis=1)).tolist()
        shares.append(
            FeatureShare(
                tap=tap,
                feature=feature,
                share=float(weights[index]) * (1 if recipe.scoring == "cover" else len(where)),
                question_tokens=tuple(question_tokens[i] for i in fires),
                span_tokens=tuple(around[position].text for position in where),
            )
        )
    return [share for share in shares if share.share > 0]


def _scaled(share: FeatureShare, total: float) -> FeatureShare:
    return FeatureShare(
        share.tap, share.feature, share.share / total, share.question_tokens, share.span_tokens
    )


def _term_shares(ranking: Ranking, first: int, last: int) -> tuple[TermShare, ...]:
    found = ranking.terms
    assert found is not None
    inside = (found.numbers >= first) & (found.numbers <= last)
    gains = np.bincount(found.which[inside], found.gains[inside], minlength=len(found.terms))
    total = float(gains.sum()) or 1.0
    shares = [
        TermShare(term, gain / total)
        for term, gain in zip(found.terms, gains.tolist(), strict=True)
        if gain > 0
    ]
    return tuple(sorted(shares, key=lambda share: -share.share))
