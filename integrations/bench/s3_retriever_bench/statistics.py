"""Means with bootstrap intervals, and summaries of the values of single questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median
from typing import Any, Literal

import numpy as np

# What a run returns, or a part of it: JSON values.
Figures = Mapping[str, Any]

_RESAMPLES = 5_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` values with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int

    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def figures(self) -> dict[str, float]:
        """JSON values."""
        rounded = {name: round(getattr(self, name), 4) for name in ("mean", "low", "high")}
        return {**rounded, "questions": self.n}


def estimate(values: Sequence[float | None], groups: Sequence[str], seed: int) -> Estimate | None:
    """The mean of the values that are not None, with a percentile interval.

    Resamples groups rather than values, because the values of a group are not independent.

    Args:
        values: One for each question; None if the question has no such value.
        groups: The group of each question.
        seed: Seed of the resampling.

    Returns:
        None if there is no value.
    """
    # Here, because it takes tens of megabytes, which `inference` would count.
    from scipy.stats import bootstrap

    pairs = [(v, g) for v, g in zip(values, groups, strict=True) if v is not None]
    if not pairs:
        return None
    known = np.array([value for value, _ in pairs])
    _, number = np.unique([group for _, group in pairs], return_inverse=True)
    sums, counts = np.bincount(number, known), np.bincount(number)
    mean = float(known.mean())
    if len(sums) == 1:
        return Estimate(mean, mean, mean, len(known))
    low, high = bootstrap(
        (sums, counts),
        _mean,
        n_resamples=_RESAMPLES,
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(mean, float(low), float(high), len(known))


def difference(
    values: Sequence[float | None],
    others: Sequence[float | None],
    groups: Sequence[str],
    seed: int,
) -> Estimate | None:
    """The mean of the paired differences `values - others`, with its interval.

    Only questions with both values count; None if there is none.
    """
    pairs = zip(values, others, strict=True)
    differences = [None if a is None or b is None else a - b for a, b in pairs]
    return estimate(differences, groups, seed)


def _mean(sums: Any, counts: Any, axis: int) -> Any:
    return sums.sum(axis) / counts.sum(axis)


@dataclass(frozen=True)
class QualitySummary:
    """Means, intervals and differences of all methods on one set.

    Attributes:
        name: Name of the set.
        set: `groups` (one per question) and `values` by method, as `measure` returns them.
        budgets: Token budgets, ascending.
        seed: Seed of the resampling.
    """

    name: str
    set: Mapping[str, Any]
    budgets: Sequence[int]
    seed: int

    @property
    def methods(self) -> Mapping[str, Mapping[str, Any]]:
        """Values by method."""
        values: Mapping[str, Mapping[str, Any]] = self.set["values"]
        return values

    @property
    def questions(self) -> int:
        """Number of questions."""
        return len(self.set["groups"])

    @property
    def middle(self) -> int:
        """The budget to show where there is room for one."""
        return self.budgets[len(self.budgets) // 2]

    def evidence(self, method: str, budget: int) -> Estimate:
        """Evidence recall."""
        recall = self._estimate(self.methods[method]["evidence"][str(budget)])
        assert recall is not None
        return recall

    def all_evidence(self, method: str, budget: int) -> Estimate | None:
        """Share of questions whose evidence was found completely."""
        recalls = self.methods[method]["evidence"][str(budget)]
        return self._estimate([float(recall == 1) for recall in recalls])

    def answer(self, method: str, budget: int) -> Estimate | None:
        """Answer-string recall; None if no question has such a string."""
        return self._estimate(self.methods[method]["answer"][str(budget)])

    def ranking(self, method: str, metric: str) -> Estimate | None:
        """`ndcg` or `mrr`."""
        return self._estimate(self.methods[method][metric])

    def search_ms(self, method: str) -> float:
        """Median time of a search in milliseconds."""
        return median(map(float, self.methods[method]["search_ms"]))

    @cached_property
    def bar(self) -> str | None:
        """The strongest ensemble, by evidence recall averaged over the budgets."""
        return self._strongest(name for name in self.methods if name.startswith("ensemble-"))

    @cached_property
    def single(self) -> str | None:
        """The strongest of BM25 and dense retrieval, by the same measure."""
        return self._strongest(n for n in self.methods if n.startswith(("bm25", "dense-")))

    def against(self, method: str, other: str, budget: int) -> Estimate:
        """Mean paired difference in evidence recall, with its interval."""
        mine, its = (self.methods[name]["evidence"][str(budget)] for name in (method, other))
        gain = difference(mine, its, self.set["groups"], self.seed)
        assert gain is not None
        return gain

    def comparisons(self) -> list[tuple[str, str]]:
        """Every method against `bar`; and `s3`, which is not an ensemble, against `single`."""
        pairs = [(name, self.bar) for name in self.methods if name != self.bar]
        if "s3" in self.methods:
            pairs.append(("s3", self.single))
        return [(name, other) for name, other in pairs if other is not None]

    def figures(self) -> dict[str, Any]:
        """JSON values of everything above."""
        return {
            "bar": self.bar,
            "single": self.single,
            "methods": {name: self._method(name) for name in self.methods},
            "differences": [
                {
                    "method": method,
                    "from": other,
                    "evidence": {
                        str(budget): self.against(method, other, budget).figures()
                        for budget in self.budgets
                    },
                }
                for method, other in self.comparisons()
            ],
        }

    def _method(self, name: str) -> dict[str, Any]:
        values = self.methods[name]
        return {
            "budgets": {
                str(budget): {
                    "evidence": _figures(self.evidence(name, budget)),
                    "all_evidence": _figures(self.all_evidence(name, budget)),
                    "answer": _figures(self.answer(name, budget)),
                }
                for budget in self.budgets
            },
            "ndcg@10": _figures(self.ranking(name, "ndcg")),
            "mrr": _figures(self.ranking(name, "mrr")),
            "search_ms": self.search_ms(name),
            "prepare_seconds_per_1k_tokens": values["prepare_seconds_per_1k_tokens"],
            "bytes_per_token": values["bytes_per_token"],
        }

    def _estimate(self, values: Sequence[float | None]) -> Estimate | None:
        return estimate(values, self.set["groups"], self.seed)

    def _strongest(self, names: Iterable[str]) -> str | None:
        return max(names, key=self._mean_recall, default=None)

    def _mean_recall(self, name: str) -> float:
        by_budget = self.methods[name]["evidence"].values()
        return fmean(value for values in by_budget for value in values)


def quality_summaries(figures: Mapping[str, Any]) -> Iterator[QualitySummary]:
    """The summary of each set of a run."""
    settings = figures["settings"]
    for name, values in figures["sets"].items():
        yield QualitySummary(name, values, settings["budgets"], settings["seed"])


# A gold answer's words in the evidence, score of the answer, a gold answer's words in the answer,
# NLL of the gold answer, and divergence from what the host expects after the whole context.
Measure = Literal["recall", "score", "contained", "nll", "kl"]
# For the first token: of the first question about a context, and of a further one.
Wait = Literal["first", "further"]
WAITS: Sequence[Wait] = ("first", "further")
MEASURES: Mapping[Measure, str] = {
    "recall": "answer recall",
    "score": "score",
    "contained": "answers that contain the gold answer",
    "nll": "NLL of the gold answer, nats/token",
    "kl": "KL to the whole context, nats",
}


@dataclass(frozen=True, slots=True)
class LongContextSummary:
    """Means, intervals and differences of all methods on the questions of `longcontext`.

    Attributes:
        figures: Figures of the run.
    """

    figures: Mapping[str, Any]

    @property
    def methods(self) -> list[str]:
        """Names of the methods."""
        return list(self.figures["values"])

    @property
    def budgets(self) -> list[int]:
        """Token budgets, ascending."""
        budgets: list[int] = self.figures["settings"]["budgets"]
        return budgets

    @property
    def middle(self) -> int:
        """The budget to show where there is room for one."""
        return self.budgets[len(self.budgets) // 2]

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in the order of the questions."""
        return list(dict.fromkeys(self.figures["questions"]["task"]))

    def count(self, task: str | None = None) -> int:
        """Number of questions, of a task or of all."""
        names: list[str] = self.figures["questions"]["task"]
        return len(names) if task is None else names.count(task)

    def measured(self) -> list[Measure]:
        """The measures of which some question has a value."""
        return [
            measure
            for measure in MEASURES
            if any(self._any(method, measure) for method in self.compared(measure))
        ]

    def compared(self, measure: Measure) -> list[str]:
        """The methods that differ in a measure.

        The whole context holds all answers, and does not diverge from itself.
        """
        trivial = measure in ("recall", "kl")
        return [name for name in self.methods if not (trivial and name == "full")]

    def values(self, method: str, budget: int, name: str) -> list[Any]:
        """A value for each question, None if it has none; `full` has no budget."""
        by_budget = self.figures["values"][method]["budgets"]
        column: list[Any] = by_budget.get(str(budget), by_budget.get("full"))[name]
        return column

    def mean(
        self, method: str, budget: int, measure: Measure, task: str | None = None
    ) -> Estimate | None:
        """The mean over the questions, of a task or of all; None if none has a value."""
        column = self.values(method, budget, measure)
        names = self.figures["questions"]["task"]
        mine = [v if task in (None, n) else None for v, n in zip(column, names, strict=True)]
        return estimate(mine, self._groups, self._seed)

    def waits(self, method: str, budget: int, wait: Wait) -> list[float | None]:
        """Seconds to the first token of each question, None if it was not answered.

        Args:
            method: Name of a method.
            budget: Tokens of evidence.
            wait: `first` counts reading the context, `further` only finding the evidence and
                answering.
        """
        columns = (self.values(method, budget, n) for n in ("seconds", "first_token_seconds"))
        prepared = self.figures["values"][method]["prepare_seconds"]
        return [
            None if token is None else found + token + (read if wait == "first" else 0.0)
            for read, found, token in zip(prepared, *columns, strict=True)
        ]

    def answered_by_all(self) -> list[bool]:
        """Whether a question was answered with every method and budget.

        One that was not is mostly about a long context, which would make the others look slow.
        """
        waits = (self.waits(m, budget, "first") for m in self.methods for budget in self.budgets)
        return [None not in row for row in zip(*waits, strict=True)]

    def typical_wait(self, method: str, budget: int, wait: Wait) -> float | None:
        """The median wait over the questions answered by all; None if there are none."""
        waits = zip(self.waits(method, budget, wait), self.answered_by_all(), strict=True)
        known = [seconds for seconds, by_all in waits if by_all and seconds is not None]
        return median(known) if known else None

    def peak_bytes(self, method: str) -> int | None:
        """The highest peak of all questions and budgets; None if there is none."""
        by_budget = self.figures["values"][method]["budgets"].values()
        peaks = [peak for column in by_budget for peak in column["peak_bytes"] if peak]
        return max(peaks, default=None)

    def ratio(self, method: str, other: str, measure: Measure | Wait) -> float | None:
        """Mean over mean at the middle budget, over the questions with both values."""
        if not {method, other} <= set(self.methods) or not self.count():
            return None
        columns = (
            self.waits(name, self.middle, measure)
            if measure in ("first", "further")
            else self.values(name, self.middle, measure)
            for name in (method, other)
        )
        pairs = [pair for pair in zip(*columns, strict=True) if None not in pair]
        below = sum(its for _, its in pairs)
        return sum(mine for mine, _ in pairs) / below if below else None

    def against(self, method: str, other: str, budget: int, measure: Measure) -> Estimate | None:
        """Mean paired difference over the questions with both values."""
        mine, its = (self.values(name, budget, measure) for name in (method, other))
        return difference(mine, its, self._groups, self._seed)

    def failures(self, method: str, budget: int) -> Counter[str]:
        """Why questions were not asked, with their number."""
        return Counter(reason for reason in self.values(method, budget, "failed") if reason)

    def tokens(self, method: str, budget: int) -> float:
        """Mean length of the evidence in tokens."""
        return fmean(self.values(method, budget, "tokens"))

    def prepare_seconds(self, method: str) -> float:
        """Median time of reading 1,000 tokens of a context."""
        seconds = self.figures["values"][method]["prepare_seconds"]
        tokens = self.figures["questions"]["context_tokens"]
        pairs = zip(seconds, tokens, strict=True)
        return median(1_000 * float(s) / max(int(n), 1) for s, n in pairs)

    def search_seconds(self, method: str) -> float:
        """Median time of finding the evidence at the middle budget."""
        return median(map(float, self.values(method, self.middle, "seconds")))

    @property
    def _groups(self) -> list[str]:
        groups: list[str] = self.figures["questions"]["group"]
        return groups

    @property
    def _seed(self) -> int:
        return int(self.figures["settings"]["seed"])

    def _any(self, method: str, measure: Measure) -> bool:
        by_budget = self.figures["values"][method]["budgets"].values()
        return any(value is not None for column in by_budget for value in column[measure])


def _figures(value: Estimate | None) -> dict[str, float] | None:
    return None if value is None else value.figures()


@dataclass(frozen=True, slots=True)
class CacheSummary:
    """Perplexities of all methods of `cache`, and what they have over the exact cache.

    Attributes:
        figures: Figures of the run.
    """

    figures: Mapping[str, Any]

    @property
    def methods(self) -> list[str]:
        """Names of the methods, fewest bytes last."""
        size: Mapping[str, float] = self.figures["bytes_per_token"]
        return sorted(size, key=lambda name: -size[name])

    @property
    def lengths(self) -> list[int]:
        """Lengths at which perplexity was measured, ascending."""
        return [int(length) for length in self.figures["perplexity"]]

    def perplexity(self, method: str, length: int) -> float:
        """Perplexity over all windows of a length."""
        return float(np.exp(fmean(self._nll(method, length))))

    def increase(self, method: str, length: int, other: str = "exact") -> Estimate:
        """By which share of another's perplexity a method's is higher, over paired windows."""
        pairs = self._nll(method, length), self._nll(other, length)
        windows = [str(number) for number in range(len(pairs[0]))]
        found = difference(*pairs, windows, int(self.figures["settings"]["seed"]))
        assert found is not None
        mean, low, high = np.expm1([found.mean, found.low, found.high]).tolist()
        return Estimate(mean, low, high, found.n)

    def _nll(self, method: str, length: int) -> list[float]:
        nll: list[float] = self.figures["perplexity"][str(length)]["nll"][method]
        return nll
