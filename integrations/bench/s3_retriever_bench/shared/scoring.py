"""Scores of generated answers, as LongBench computes them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from rapidfuzz.distance import LCSseq

MetricName = Literal["f1", "rouge-l", "retrieval"]
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Short answers that occur in any text by chance.
BY_CHANCE = {"yes", "no"}


def score(metric: MetricName, answer: str, golds: Sequence[str]) -> float:
    """The best score, 0 to 1, of a generated answer against any of the gold answers."""
    return max(_METRICS[metric](answer, gold) for gold in golds)


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and superfluous white space, as SQuAD does."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def holds_answer(text: str, golds: Sequence[str]) -> bool | None:
    """Whether the words of a gold answer occur in a text, both normalised.

    Returns:
        None if there is nothing to look for: a yes, a no, or only punctuation.
    """
    wanted = [normalise(gold) for gold in golds]
    wanted = [words for words in wanted if words and words not in BY_CHANCE]
    if not wanted:
        return None
    # Whole words: `Paragraph 1` is not in `Paragraph 19`.
    padded = f" {normalise(text)} "
    return any(f" {words} " in padded for words in wanted)


def _f1(answer: str, gold: str) -> float:
    """F1 of the words, each counted as often as it occurs."""
    mine, its = normalise(answer).split(), normalise(gold).split()
    return _harmonic((Counter(mine) & Counter(its)).total(), len(mine), len(its))


def _rouge_l(answer: str, gold: str) -> float:
    """ROUGE-L: F1 of the longest common subsequence of words.

    Of the whole text, as defined by Lin (2004); LongBench's library sums subsequences sentence by
    sentence, which gives slightly different figures.
    """
    mine, its = (re.findall(r"[a-z0-9]+", text.lower()) for text in (answer, gold))
    return _harmonic(LCSseq.similarity(mine, its), len(mine), len(its))


def _retrieval(answer: str, gold: str) -> float:
    """Share of the numbers in an answer that are the gold paragraph's."""
    wanted = re.findall(r"\d+", gold)[:1]
    numbers = re.findall(r"\d+", answer)
    return sum([number] == wanted for number in numbers) / len(numbers) if numbers else 0.0


def _harmonic(common: int, mine: int, its: int) -> float:
    """Harmonic mean of precision and recall."""
    return 2 * common / (mine + its) if common else 0.0


_METRICS: Mapping[MetricName, Callable[[str, str], float]] = {
    "f1": _f1,
    "rouge-l": _rouge_l,
    "retrieval": _retrieval,
}
