"""What the values of the questions say: means with intervals, and what was not measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Literal

from s3_retriever_bench.statistics import Estimate, estimate

# `recall` of a gold answer's words, `score` of the answer, `nll` of the gold answer, and `kl` from
# the whole context.
Measure = Literal["recall", "score", "nll", "kl"]
MEASURES: Mapping[Measure, str] = {
    "recall": "answer recall",
    "score": "score",
    "nll": "NLL of the gold answer, nats/token",
    "kl": "KL to the whole context, nats",
}


@dataclass(frozen=True, slots=True)
class Summary:
    """The questions of a run.

    Attributes:
        figures: Of the run.
    """

    figures: Mapping[str, Any]

    @property
    def methods(self) -> list[str]:
        """In the order of `reading.METHODS`."""
        return list(self.figures["values"])

    @property
    def budgets(self) -> list[int]:
        """Ascending."""
        found: list[int] = self.figures["settings"]["budgets"]
        return found

    @property
    def middle(self) -> int:
        """The budget for which one budget has to do."""
        return self.budgets[len(self.budgets) // 2]

    @property
    def tasks(self) -> list[str]:
        """In the order of the questions."""
        return list(dict.fromkeys(self.figures["questions"]["task"]))

    def count(self, task: str | None = None) -> int:
        """Questions of a task, or all."""
        names: list[str] = self.figures["questions"]["task"]
        return len(names) if task is None else names.count(task)

    def measured(self) -> list[Measure]:
        """The measures that some question has a value of."""
        return [
            name for name in MEASURES if any(self._any(one, name) for one in self.compared(name))
        ]

    def compared(self, measure: Measure) -> list[str]:
        """The methods that a measure says something about.

        The whole context holds all answers, and does not differ from itself.
        """
        trivial = measure in ("recall", "kl")
        return [name for name in self.methods if not (trivial and name == "full")]

    def values(self, method: str, budget: int, name: str) -> list[Any]:
        """A value for each question, None where it has none; `full` knows no budget."""
        by_budget = self.figures["values"][method]["budgets"]
        column: list[Any] = by_budget.get(str(budget), by_budget.get("full"))[name]
        return column

    def mean(
        self, method: str, budget: int, measure: Measure, task: str | None = None
    ) -> Estimate | None:
        """The mean over the questions of a task, or all; None where none has a value."""
        column = self.values(method, budget, measure)
        names = self.figures["questions"]["task"]
        mine = [v if task in (None, n) else None for v, n in zip(column, names, strict=True)]
        groups = self.figures["questions"]["group"]
        return estimate(mine, groups, self.figures["settings"]["seed"])

    def ratio(self, method: str, other: str, measure: Measure) -> float | None:
        """Mean over mean at the middle budget, over the questions that have both values."""
        if not {method, other} <= set(self.methods) or not self.count():
            return None
        columns = (self.values(name, self.middle, measure) for name in (method, other))
        pairs = [pair for pair in zip(*columns, strict=True) if None not in pair]
        below = sum(its for _, its in pairs)
        return sum(mine for mine, _ in pairs) / below if below else None

    def against(self, method: str, other: str, budget: int, measure: Measure) -> Estimate | None:
        """Mean paired difference over the questions that both have a value of."""
        pairs = zip(*(self.values(m, budget, measure) for m in (method, other)), strict=True)
        less = [None if None in pair else pair[0] - pair[1] for pair in pairs]
        groups = self.figures["questions"]["group"]
        return estimate(less, groups, self.figures["settings"]["seed"])

    def failures(self, method: str, budget: int) -> Counter[str]:
        """Why questions were not asked, and how many."""
        return Counter(reason for reason in self.values(method, budget, "failed") if reason)

    def tokens(self, method: str, budget: int) -> float:
        """Mean length of the evidence."""
        return fmean(self.values(method, budget, "tokens"))

    def prepare_seconds(self, method: str) -> float:
        """Median time of reading a context, for 1,000 tokens."""
        seconds = self.figures["values"][method]["prepare_seconds"]
        tokens = self.figures["questions"]["context_tokens"]
        pairs = zip(seconds, tokens, strict=True)
        return median(1_000 * float(s) / max(int(n), 1) for s, n in pairs)

    def search_seconds(self, method: str) -> float:
        """Median time of finding the evidence at the middle budget."""
        return median(map(float, self.values(method, self.middle, "seconds")))

    def _any(self, method: str, measure: Measure) -> bool:
        by_budget = self.figures["values"][method]["budgets"].values()
        return any(value is not None for column in by_budget for value in column[measure])
