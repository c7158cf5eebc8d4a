"""Explaining a span: what it shares with the question, and what the question looks at in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from s3_retriever.display import (
    HEAT,
    LIST_CHARACTERS,
    MOST_ROWS,
    TEXT_CHARACTERS,
    bar,
    escaped,
    frame,
    label,
    paragraph,
    row,
    section,
    table,
    table_of,
)
from s3_retriever.errors import InputError
from s3_retriever.features import EncodedQuestion
from s3_retriever.index import Segment, Snapshot
from s3_retriever.recipe import MaxToken, Recipe
from s3_retriever.search.attention import Attention
from s3_retriever.search.ranking import Bridge, Ranking
from s3_retriever.search.selection import (
    Candidates,
    Here,
    Limits,
    Pick,
    order_of,
    pick,
    span_of,
    token_bounds,
    token_range,
)
from s3_retriever.search.signals import Coactivation, box
from s3_retriever.search.span import Span, heading_html, span_html
from s3_retriever.search.tap_attention import TapAttention
from s3_retriever.types import Contribution, Scores

# Width of the bar of the largest contribution.
_BAR_EM = 8.0


@dataclass(frozen=True, slots=True)
class FeatureShare:
    """A feature of the question and its share of the span's co-activation score.

    Attributes:
        tap: Name of its tap, such as `hidden.5`.
        feature: Its index in that tap's dictionary.
        share: Its share of the span's co-activation score, 0 to 1; all shares add up to 1.
        question_tokens: The question's tokens on which it fires; with scoring `FeatureAttention`,
            those that look at a token mostly through it.
        span_tokens: The tokens of the span's best sentence on which it fires; with scoring
            `MaxToken`, the tokens under the kernel, some of which may lie beyond the span.
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
        share: Its share of the span's BM25 score, 0 to 1; all shares add up to 1.
    """

    term: str
    share: float


@dataclass(frozen=True, slots=True)
class AttentionShare:
    """A token of the span that the question looks at, and from where.

    Attributes:
        head: The key head, such as `17.1`, that the recipe's query heads share; with scoring
            `FeatureAttention` also the tap, such as `key.17.1`.
        question_token: The question's token that looks at it most.
        span_token: The token.
        share: Its share of the attention that the span's most attended sentence gets, 0 to 1; all
            shares of heads add up to 1, and so do those of taps.
    """

    head: str
    question_token: str
    span_token: str
    share: float


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token of the span and its co-activation with the question.

    Attributes:
        text: The token's text.
        start: Offset of its first character in the document.
        end: Offset after its last character.
        score: Sum of the weights of the question's features that fire on it; with scoring
            `FeatureAttention` the attention that it gets, where 1 is the mean of all tokens.
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
        contributions: What each source, the document, and a second look (`rerank`) add to the
            score of the span's best sentence, and what `redundancy` takes off, as in a search
            without a budget or filter;
            empty with fusion `Interleave`, which does not add scores.
        bridge: The span that leads to this one in the second hop; None if none does.
        features: The shared features, by falling share.
        terms: The shared terms, by falling share.
        attention: What the question looks at, by falling share; empty if the recipe neither scores
            heads nor has scoring `FeatureAttention`.
        tokens: All tokens of the span, in order.
    """

    span: Span
    contributions: Mapping[Contribution, float]
    bridge: Span | None
    features: tuple[FeatureShare, ...]
    terms: tuple[TermShare, ...]
    attention: tuple[AttentionShare, ...]
    tokens: tuple[TokenScore, ...]

    def _repr_html_(self) -> str:
        return _html(self)


def explain(
    ranking: Ranking, question_tokens: Sequence[str], span: Span, recipe: Recipe
) -> Explanation:
    """Split a span's score into what each feature, token and term adds to it.

    With `FeatureCoverage` the span's co-activation score is that of its best sentence, in which
    each feature counts once. With `MaxToken` it is that of its best token, to which all tokens
    under the kernel add. With `FeatureAttention` it is that of its best sentence, to which all
    tokens add.

    Args:
        ranking: The snapshot's sentences ranked for the question, in mode `hybrid`.
        question_tokens: Texts of the question's tokens.
        span: What to explain.
        recipe: How it was scored.

    Raises:
        InputError: The span is not in the snapshot.
    """
    explanation, peak = explain_here(ranking, question_tokens, span, recipe)
    bridge = None
    if peak.bridge is not None and peak.bridge.number is not None:
        bridge = bridge_span(ranking, peak.bridge.number)
    contributions = {**explanation.contributions, **lost(recipe, Here(ranking), peak)}
    return replace(explanation, contributions=contributions, bridge=bridge)


class Peak(NamedTuple):
    """The best sentence of a span.

    Attributes:
        number: Its number.
        score: Its score.
        share: What of it the question's features and terms add; 0 if redundancy costs nothing.
        bridge: The bridge that adds most to it; None if none does.
    """

    number: int
    score: float
    share: float
    bridge: Bridge | None


def explain_here(
    ranking: Ranking, question_tokens: Sequence[str], span: Span, recipe: Recipe
) -> tuple[Explanation, Peak]:
    """Explain a span of a part of a collection, but for its bridge and its redundancy.

    Returns:
        The explanation, and the span's best sentence.

    Raises:
        InputError: The span is not in the part.
    """
    coactivation, question = ranking.coactivation, ranking.question
    assert coactivation is not None
    assert question is not None
    place, segment, first, last = _locate(ranking.snapshot, span)
    offset = int(ranking.snapshot.bounds[place])
    rows = slice(offset + first, offset + last + 1)
    best = rows.start + int(np.argmax(ranking.scores[rows]))
    strongest = first + int(np.argmax(ranking.raw_scores["s3"][rows]))
    if isinstance(recipe.scoring, MaxToken):
        tokens = coactivation.tokens[place]
        low, high = _around_peak(tokens, segment, strongest, recipe.scoring.kernel)
    else:
        low, high = token_range(segment, strongest, strongest)
    around = _tokens(
        segment,
        min(first, _sentence_at(segment, low)),
        max(last, _sentence_at(segment, high - 1)),
        coactivation.raw(place),
    )
    if isinstance(coactivation, TapAttention):
        shares = _looked_at(coactivation, place, (low, high), question_tokens, around)
    else:
        shares = _shared(coactivation, place, (low, high), question, question_tokens, around)
    total = sum(share.share for share in shares) or 1.0
    shares = [replace(share, share=share.share / total) for share in shares]
    explanation = Explanation(
        span=span,
        contributions={name: float(part[best]) for name, part in ranking.contributions.items()},
        bridge=None,
        features=tuple(sorted(shares, key=lambda share: -share.share)),
        terms=_term_shares(ranking, rows.start, rows.stop - 1),
        attention=_attention_shares(ranking, place, rows, question_tokens),
        tokens=tuple(around[position] for position in range(*token_range(segment, first, last))),
    )
    share = 0.0 if recipe.redundancy is None else float(ranking.shares(np.array([best])).sum())
    bridge = None if ranking.hop is None else ranking.hop.leaders.get(best)
    return explanation, Peak(best, float(ranking.scores[best]), share, bridge)


def _locate(snapshot: Snapshot, span: Span) -> tuple[int, Segment, int, int]:
    """Locate a span: its segment's index, the segment, and its first and last sentence.

    Raises:
        InputError: The span is not in the snapshot.
    """
    valid = isinstance(span.document_id, str) and all(
        isinstance(offset, (int, np.integer)) for offset in (span.start, span.end)
    )
    location = snapshot.find(span.document_id) if valid else None
    if location is not None:
        segment, ordinal = location
        document = segment.documents[ordinal]
        begin = int(document["first_sentence"])
        table = segment.sentences[begin : begin + int(document["n_sentences"])]
        first = int(np.searchsorted(table["start"], span.start))
        last = int(np.searchsorted(table["end"], span.end))
        if (
            first <= last < len(table)
            and table[first]["start"] == span.start
            and table[last]["end"] == span.end
        ):
            return snapshot.segments.index(segment), segment, begin + first, begin + last
    raise not_here(span)


def not_here(span: Span) -> InputError:
    """The error that a span is not in an index."""
    return InputError(
        f"The span {span.id} is not in this index any more; search again and explain a span "
        "of that search."
    )


def bridge_span(ranking: Ranking, number: int) -> Span:
    """The span that a bridge of the second hop is in the first pass."""
    assert ranking.hop is not None
    first = replace(ranking.hop.first, spreads=ranking.spreads, relevance=ranking.relevance)
    chosen = Pick(number, number, number, float(first.scores[number]))
    return replace(span_of(first, chosen), relevance=ranking.relevance_of(number))


def lost(recipe: Recipe, view: Candidates, peak: Peak) -> dict[Contribution, float]:
    """What redundancy took off a sentence's score when it was chosen, 0 or less.

    Spans are chosen again until this sentence is. A sentence that never is, because the result
    already has its text, has lost nothing.

    Args:
        recipe: How repetition is discounted.
        view: All sentences that may be chosen.
        peak: The sentence, numbered as there.
    """
    if recipe.redundancy is None:
        return {}
    loss = 0.0
    lowest = peak.score - (1.0 - recipe.redundancy.floor) * peak.share
    radius = recipe.advanced.radius
    for chosen in pick(order_of(view, recipe), view, Limits(), radius=radius) if peak.share else ():
        if chosen.first <= peak.number <= chosen.last:
            loss = chosen.score - peak.score
            break
        if chosen.score < lowest:
            break
    return {"redundancy": loss}


def _around_peak(scores: Scores, segment: Segment, sentence: int, kernel: int) -> tuple[int, int]:
    """The range of tokens under the kernel at a sentence's best token, like `token_range`."""
    start, end = token_range(segment, sentence, sentence)
    peak = start + int(np.argmax(scores[start:end]))
    left, right = box(kernel)
    document = segment.documents[int(segment.sentences[sentence]["document"])]
    low = max(peak - left, int(document["first_token"]))
    high = min(peak + right + 1, int(document["first_token"]) + int(document["n_tokens"]))
    return low, high


def _sentence_at(segment: Segment, token: int) -> int:
    return int(np.searchsorted(segment.sentences["first_token"], token, side="right")) - 1


def _tokens(segment: Segment, first: int, last: int, scores: Scores) -> dict[int, TokenScore]:
    """The tokens of some sentences of a document, by position in the segment."""
    text, offset = segment.text(first, last), int(segment.sentences[first]["start"])
    positions = range(*token_range(segment, first, last))
    return {
        position: TokenScore(text[start - offset : end - offset], start, end, score)
        for position, (start, end), score in zip(
            positions,
            token_bounds(segment, first, last),
            scores[positions.start : positions.stop].tolist(),
            strict=True,
        )
    }


def _shared(
    coactivation: Coactivation,
    place: int,
    stretch: tuple[int, int],
    question: EncodedQuestion,
    question_tokens: Sequence[str],
    around: Mapping[int, TokenScore],
) -> list[FeatureShare]:
    """One entry per feature; the shares are contributions to the score, not yet normalised."""
    shares = []
    for tap, (positions, which) in coactivation.firing(place, *stretch).items():
        weights, features = coactivation.weights[tap], coactivation.question[tap].features
        for index in np.unique(which).tolist():
            where = positions[which == index].tolist()
            feature = int(features[index])
            fires = (question.features[tap].indices == feature).any(axis=1)
            shares.append(
                FeatureShare(
                    tap=tap,
                    feature=feature,
                    share=float(weights[index]) * (len(where) if coactivation.by_token else 1),
                    question_tokens=tuple(
                        question_tokens[i] for i in np.flatnonzero(fires).tolist()
                    ),
                    span_tokens=tuple(around[position].text for position in where),
                )
            )
    return [share for share in shares if share.share > 0]


def _looked_at(
    attention: TapAttention,
    place: int,
    stretch: tuple[int, int],
    question_tokens: Sequence[str],
    around: Mapping[int, TokenScore],
) -> list[FeatureShare]:
    """The same of features that the question looks at."""
    shares = []
    for tap, seen in attention.glances(place, *stretch).items():
        for feature in np.unique(seen.features).tolist():
            where = seen.features == feature
            shares.append(
                FeatureShare(
                    tap=tap,
                    feature=feature,
                    share=float(seen.scores[where].sum()),
                    question_tokens=tuple(
                        question_tokens[i] for i in np.unique(seen.asking[where]).tolist()
                    ),
                    span_tokens=tuple(around[i].text for i in seen.positions[where].tolist()),
                )
            )
    return shares


def _attention_shares(
    ranking: Ranking, place: int, rows: slice, question_tokens: Sequence[str]
) -> tuple[AttentionShare, ...]:
    """The tokens of the most attended of some sentences, each with what looks at it most."""
    every: list[AttentionShare] = []
    if ranking.attention is not None:
        scores = ranking.raw_scores["heads"]
        every += _attended(ranking, ranking.attention, scores, place, rows, question_tokens)
    if isinstance(ranking.coactivation, TapAttention):
        scores = ranking.raw_scores["s3"]
        every += _attended(ranking, ranking.coactivation, scores, place, rows, question_tokens)
    return tuple(sorted(every, key=lambda share: -share.share))


def _attended(
    ranking: Ranking,
    attention: Attention,
    scores: Scores,
    place: int,
    rows: slice,
    question_tokens: Sequence[str],
) -> list[AttentionShare]:
    segment = ranking.snapshot.segments[place]
    number = rows.start + int(np.argmax(scores[rows]))
    sentence = number - int(ranking.snapshot.bounds[place])
    start, end = token_range(segment, sentence, sentence)
    around = _tokens(segment, sentence, sentence, np.zeros(segment.n_tokens))
    shares = [
        AttentionShare(
            head=name,
            question_token=question_tokens[int(asking[looks[:, i].argmax()])],
            span_token=around[start + i].text,
            share=float(looks[:, i].mean()),
        )
        for name, (asking, looks) in attention.pairs(place, start, end).items()
        if len(asking)
        for i in range(end - start)
        if around[start + i].text
    ]
    total = sum(share.share for share in shares)
    return [replace(share, share=share.share / total) for share in shares if share.share > 0]


def _term_shares(ranking: Ranking, first: int, last: int) -> tuple[TermShare, ...]:
    terms = ranking.terms
    assert terms is not None
    inside = (terms.numbers >= first) & (terms.numbers <= last)
    gains = np.bincount(terms.which[inside], terms.gains[inside], minlength=len(terms.terms))
    total = float(gains.sum()) or 1.0
    shares = [
        TermShare(term, gain / total)
        for term, gain in zip(terms.terms, gains.tolist(), strict=True)
        if gain > 0
    ]
    return tuple(sorted(shares, key=lambda share: -share.share))


def _html(explanation: Explanation) -> str:
    """A span with a background on each token, and what its score consists of."""
    span, bridge = explanation.span, explanation.bridge
    parts = [
        heading_html(span, ""),
        paragraph(_heat(explanation)),
        _contributions(explanation),
    ]
    if bridge is not None:
        parts.append(section("By way of", span_html(bridge, "", LIST_CHARACTERS)))
    features = (
        (
            f"{each.share:.1%}",
            f"{each.tap}/{each.feature}",
            _quoted(each.question_tokens),
            _quoted(each.span_tokens),
        )
        for each in explanation.features[:MOST_ROWS]
    )
    heads = (
        (f"{each.share:.1%}", each.head, each.question_token, each.span_token)
        for each in explanation.attention[:MOST_ROWS]
    )
    terms = ((f"{each.share:.1%}", each.term) for each in explanation.terms[:MOST_ROWS])
    ends = ("in the question", "in the span")
    parts += [
        table(_of("Features", explanation.features), ("share", "feature", *ends), features),
        table(_of("Attention", explanation.attention), ("share", "head", *ends), heads),
        table(_of("Words", explanation.terms), ("share", "word"), terms),
    ]
    return frame("".join(parts))


def _heat(explanation: Explanation) -> str:
    """The text of a span, each token on a background as strong as its co-activation."""
    span, parts = explanation.span, []
    done, end = span.start, min(span.end, span.start + TEXT_CHARACTERS)
    highest = max((token.score for token in explanation.tokens), default=0.0)
    for token in explanation.tokens:
        if token.score <= 0 or token.start < done or token.end > end:
            continue
        parts.append(escaped(span.text[done - span.start : token.start - span.start]))
        colour = HEAT.format(0.08 + 0.57 * token.score / highest)
        style = f"background:{colour};border-radius:.2em"
        parts.append(
            f'<span style="{style}" title="{token.score:.2f}">{escaped(token.text)}</span>'
        )
        done = token.end
    rest = span.text[done - span.start :]
    return "".join(parts) + escaped(rest, end - done)


def _contributions(explanation: Explanation) -> str:
    """A bar for each contribution to the score, in another colour if it lowers the score."""
    values = explanation.contributions
    widest = max(map(abs, values.values()), default=0.0) or 1.0
    rows = []
    for name, value in values.items():
        width = _BAR_EM * abs(value) / widest
        rows.append(row((label(name), f"{value:+.2f}", bar(value, width))))
    return section("Score", table_of(rows)) if rows else ""


def _quoted(tokens: Sequence[str]) -> str:
    """Distinct tokens in order."""
    return " ".join(dict.fromkeys(tokens))


def _of(title: str, items: Sequence[object]) -> str:
    more = len(items) > MOST_ROWS
    return f"{title} (the first {MOST_ROWS} of {len(items):,})" if more else title
