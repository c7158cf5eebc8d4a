"""Relevance: how sure a sentence is to be more than chance, 0 to 1, the same for every question.

Scores are relative to a question's other candidates: the best sentence has a high score even if
nothing in the index has to do with the question. Two measures are not relative: the cosine of a
sentence and the question, and the share of the question's words that the sentence has, weighted by
IDF. Both are close to 0 for a sentence drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from s3_retriever.recipe import Recipe
from s3_retriever.search.signals import TermGains
from s3_retriever.types import Mode, Scores, Source

# Log-odds of evidence against chance in mode `bm25`: of a sentence without a word of the question,
# and what all of its words add. Fitted on development questions; see docs/research-log.md.
_NO_WORDS = -4.3
_ALL_WORDS = 32.0
# The share of the words that counts where words are not looked at, in mode `s3`.
_UNKNOWN_COVERAGE = 0.1
# Sentences of a collection resemble each other: n of them are as many draws of chance as
# n ** _INDEPENDENT sentences that do not.
_INDEPENDENT = 0.75
# Whether the sentence of a tiny index is evidence is no likelier than if there were more of them.
_FEWEST = 10


def knows_relevance(recipe: Recipe, mode: Mode) -> bool:
    """Whether a search can tell evidence from chance well enough to leave spans out.

    Words are the same for every host; what its cosines say has to be measured. Cosines alone, in
    mode `s3`, are not enough: among the 45,000 sentences of SciFact they would lose .02 of the
    evidence.
    """
    measured = recipe.sentence is not None and recipe.sentence.relevance is not None
    return mode == "bm25" or (mode == "hybrid" and measured)


@dataclass(frozen=True)
class Relevance:
    """The relevance of the sentences of a ranking.

    A sentence whose measures are r times as likely in evidence as in a sentence drawn at random is
    evidence with odds of about r / n among n sentences: the more there are, the better the best of
    chance becomes. That is a sentence's own relevance. What owes its place to a bridge, or to its
    document, has little of its own; it shares in that of the best sentence, in proportion to its
    score.

    Attributes:
        count: How many sentences may be returned.
        lowest: The score of what nothing scores.
        highest: Their highest score.
        log_odds: Their highest log-odds; None for a host whose log-odds are not known.
    """

    count: int
    lowest: float
    highest: float
    log_odds: float | None

    def of(self, score: float, log_odds: float | None) -> float:
        """The relevance, 0 to 1, of a sentence with a score and log-odds."""
        share = 1.0
        if self.highest > self.lowest:
            share = (score - self.lowest) / (self.highest - self.lowest)
        shared = self.best * share
        return shared if log_odds is None else max(shared, self._at(log_odds))

    @cached_property
    def best(self) -> float:
        """The highest relevance of the ranking; 1 for a host whose log-odds are not known."""
        if self.log_odds is None:
            return 1.0
        return self._at(self.log_odds) if self.count else 0.0

    def _at(self, log_odds: float) -> float:
        return _logistic(log_odds - self._chance)

    @cached_property
    def _chance(self) -> float:
        return _INDEPENDENT * math.log(max(self.count, _FEWEST))


def log_odds(
    raw_scores: Mapping[Source, Scores], terms: TermGains | None, recipe: Recipe, size: int
) -> Scores | None:
    """The log-odds of each sentence against a sentence drawn at random, float64 [n].

    Args:
        raw_scores: What each signal scores; those of mode `bm25` have no signal but that.
        terms: The question's terms; None in mode `s3`.
        recipe: Has the log-odds of its host.
        size: Number of sentences.

    Returns:
        None for a host whose log-odds are not known.
    """
    if "s3" not in raw_scores:
        assert terms is not None
        return _NO_WORDS + _ALL_WORDS * terms.coverage(size)
    if recipe.sentence is None or recipe.sentence.relevance is None:
        return None
    known = recipe.sentence.relevance
    odds = known.similarity * raw_scores["sentence"]
    if terms is None:
        odds += known.words * _UNKNOWN_COVERAGE
    else:
        odds += known.words * terms.coverage(size)
    odds += known.bias
    return odds


def _logistic(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds)) if log_odds > -700 else 0.0
