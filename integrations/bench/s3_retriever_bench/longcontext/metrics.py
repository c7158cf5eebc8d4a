"""How answers are scored, as LongBench does (its `metrics.py`), and what evidence holds."""

from __future__ import annotations

import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from s3_retriever_bench.longcontext.tasks import MetricName, Task

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Short answers that occur in any text by chance.
_NO_STRINGS = {"yes", "no"}


def score(task: Task, answer: str, golds: Sequence[str]) -> float:
    """The score of an answer, 0 to 1: the best of those against each gold answer."""
    if task.first_line:
        answer = answer.lstrip("\n").partition("\n")[0]
    return max(_METRICS[task.metric](answer, gold) for gold in golds)


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and superfluous white space, as SQuAD does."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def holds_answer(text: str, golds: Sequence[str]) -> bool | None:
    """Whether the words of a gold answer stand in a text, both normalised.

    Returns:
        None where there is none to look for: a yes, a no, or nothing but punctuation.
    """
    wanted = [normalise(gold) for gold in golds]
    wanted = [words for words in wanted if words and words not in _NO_STRINGS]
    if not wanted:
        return None
    # Whole words: `Paragraph 1` is not in `Paragraph 19`.
    padded = f" {normalise(text)} "
    return any(f" {words} " in padded for words in wanted)


def _f1(answer: str, gold: str) -> float:
    """F1 of the words, each as often as it occurs."""
    mine, its = normalise(answer).split(), normalise(gold).split()
    return _harmonic((Counter(mine) & Counter(its)).total(), len(mine), len(its))


def _rouge_l(answer: str, gold: str) -> float:
    """ROUGE-L, F1 of the longest common subsequence of words.

    Of the whole text, as in its definition (Lin, 2004); LongBench's library adds up subsequences
    sentence by sentence, which gives slightly other figures.
    """
    mine, its = _words(answer), _words(gold)
    return _harmonic(_common_subsequence(mine, its), len(mine), len(its))


def _retrieval(answer: str, gold: str) -> float:
    """Share of the numbers in an answer that are the gold paragraph's."""
    wanted = re.findall(r"\d+", gold)[:1]
    numbers = re.findall(r"\d+", answer)
    return sum([number] == wanted for number in numbers) / len(numbers) if numbers else 0.0


def _harmonic(common: int, mine: int, its: int) -> float:
    """Harmonic mean of precision and recall."""
    return 2 * common / (mine + its) if common else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _common_subsequence(mine: Sequence[str], its: Sequence[str]) -> int:
    """Length of the longest common subsequence, with a row of the table as bits of a number.

    The algorithm of Crochemore et al. (2001), which is thousands of times faster here than the
    table.
    """
    places: defaultdict[str, int] = defaultdict(int)
    for place, word in enumerate(mine):
        places[word] |= 1 << place
    every = (1 << len(mine)) - 1
    row = every
    for word in its:
        matched = row & places[word]
        row = ((row + matched) | (row - matched)) & every
    return len(mine) - row.bit_count()


_METRICS: Mapping[MetricName, Callable[[str, str], float]] = {
    "f1": _f1,
    "rouge-l": _rouge_l,
    "retrieval": _retrieval,
}
