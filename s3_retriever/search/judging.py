"""Judging: what all sentences decide about how relevant one is, and which signals found it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from s3_retriever.recipe import Recipe
from s3_retriever.search.fusion import Spread, add_spreads, extremes
from s3_retriever.search.ranking import Ranking
from s3_retriever.search.relevance import Relevance, log_odds
from s3_retriever.types import Source


class Measures(NamedTuple):
    """What a part of a collection adds to the judgement.

    Attributes:
        spreads: By signal, the spread of raw scores over the sentences that may be returned.
        extremes: Number, lowest and highest score of these sentences.
        log_odds: Their highest log-odds; None for a host whose log-odds are not known.
        summed: Whether scores are sums of z-scores; others have a zero of their own.
    """

    spreads: Mapping[Source, Spread]
    extremes: tuple[int, float, float]
    log_odds: float | None
    summed: bool


class Verdict(NamedTuple):
    """What the parts know together.

    Attributes:
        spreads: As in `Ranking`.
        relevance: As in `Ranking`.
    """

    spreads: Mapping[Source, Spread]
    relevance: Relevance


def measured(ranking: Ranking, recipe: Recipe) -> tuple[Ranking, Measures]:
    """The ranking of a part with its log-odds, and what it adds to the judgement."""
    eligible = ranking.eligible
    odds = log_odds(ranking.raw_scores, ranking.terms, recipe, len(ranking.scores))
    own = Measures(
        spreads={source: Spread.of(each, eligible) for source, each in ranking.raw_scores.items()},
        extremes=extremes(ranking.scores, eligible),
        log_odds=None if odds is None else extremes(odds, eligible)[2],
        summed=bool(ranking.contributions),
    )
    return replace(ranking, log_odds=odds), own


def verdict(parts: Sequence[Measures]) -> Verdict:
    """What all parts of a collection know together."""
    first = parts[0]
    spreads = add_spreads([list(each.spreads.values()) for each in parts])
    counts, lowest, highest = zip(*(each.extremes for each in parts), strict=True)
    odds = [each.log_odds for each in parts if each.log_odds is not None]
    return Verdict(
        spreads=dict(zip(first.spreads, spreads, strict=True)),
        relevance=Relevance(
            count=sum(counts),
            lowest=min(lowest) if first.summed else 0.0,
            highest=max(highest),
            log_odds=max(odds, default=None),
        ),
    )


def judged(ranking: Ranking, known: Verdict) -> Ranking:
    """The ranking of a part with what all parts know."""
    return replace(ranking, spreads=known.spreads, relevance=known.relevance)
