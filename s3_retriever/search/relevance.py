"""Relevance: how sure a sentence is to be more than chance, 0 to 1, the same for every question.

Scores are relative to a question's other candidates: the best sentence has a high score even if
nothing in the index has to do with the question. Two measures are not relative: the cosine of a
sentence and the question, and the share of the question's words that the sentence has, weighted by
IDF. Both are close to 0 for a sentence drawn at random.
"""

from __future__ import annotations

import math
from functools import cached_property

from s3_retriever.recipe import Recipe
from s3_retriever.search.fusion import extremes
from s3_retriever.search.ranking import Ranking
from s3_retriever.types import Mode, Scores

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


class Relevance:
    """The relevance of the sentences of a ranking.

    A sentence whose measures are r times as likely in evidence as in a sentence drawn at random is
    evidence with odds of about r / n among n sentences: the more there are, the better the best of
    chance becomes. That is a sentence's own relevance. What owes its place to a bridge, or to its
    document, has little of its own; it shares in that of the best sentence, in proportion to its
    score.

    Args:
        ranking: Scores of all sentences.
        recipe: Has the log-odds of its host.
    """

    def __init__(self, ranking: Ranking, recipe: Recipe) -> None:
        self._ranking = ranking
        self._recipe = recipe

    def __getitem__(self, number: int) -> float:
        """The relevance of a sentence that may be returned, 0 to 1."""
        shared = self.best * self._share_of_best(number)
        if self._log_odds is None:
            return shared
        return max(shared, self._relevance_at(float(self._log_odds[number])))

    @cached_property
    def best(self) -> float:
        """The highest relevance of the ranking; 1 for a host whose log-odds are not known."""
        if self._log_odds is None:
            return 1.0
        count, _, highest = extremes(self._log_odds, self._ranking.eligible)
        return self._relevance_at(highest) if count else 0.0

    def _relevance_at(self, log_odds: float) -> float:
        count, _, _ = self._extremes
        return _logistic(log_odds - _INDEPENDENT * math.log(max(count, _FEWEST)))

    @cached_property
    def _log_odds(self) -> Scores | None:
        """The log-odds of each sentence against a sentence drawn at random, float64 [n]."""
        ranking, sentence = self._ranking, self._recipe.sentence
        if ranking.coactivation is None:
            assert ranking.terms is not None
            return _NO_WORDS + _ALL_WORDS * ranking.terms.coverage(len(ranking.scores))
        if sentence is None or sentence.relevance is None:
            return None
        known = sentence.relevance
        log_odds = known.similarity * ranking.raw_scores["sentence"]
        if ranking.terms is None:
            log_odds += known.words * _UNKNOWN_COVERAGE
        else:
            log_odds += known.words * ranking.terms.coverage(len(log_odds))
        log_odds += known.bias
        return log_odds

    def _share_of_best(self, number: int) -> float:
        """A sentence's score between what nothing scores, 0, and the best score, 1."""
        _, lowest, highest = self._extremes
        if not self._ranking.contributions:
            lowest = 0.0  # scores that are not sums of z-scores have a zero of their own
        if highest <= lowest:
            return 1.0
        return (float(self._ranking.scores[number]) - lowest) / (highest - lowest)

    @cached_property
    def _extremes(self) -> tuple[int, float, float]:
        return extremes(self._ranking.scores, self._ranking.eligible)


def _logistic(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds)) if log_odds > -700 else 0.0
