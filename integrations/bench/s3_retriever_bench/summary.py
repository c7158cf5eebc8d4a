"""What per-question values say: means, intervals, and differences from the strongest baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median
from typing import Any

from s3_retriever_bench.statistics import Estimate, difference, estimate

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Summary:
    """Results of all methods on one set.

    Attributes:
        name: The set.
        groups: The group of each question.
        methods: By method, what `measure` returns.
        budgets: Token budgets, ascending.
        seed: Of the resampling.
    """

    name: str
    groups: Sequence[str]
    methods: Mapping[str, Values]
    budgets: Sequence[int]
    seed: int

    @property
    def middle(self) -> int:
        """The budget for which one budget has to do."""
        return self.budgets[len(self.budgets) // 2]

    def evidence(self, method: str, budget: int) -> Estimate:
        """Evidence recall."""
        found = self._estimate(self.methods[method]["evidence"][str(budget)])
        assert found is not None
        return found

    def all_evidence(self, method: str, budget: int) -> Estimate | None:
        """Share of questions whose evidence was found in full."""
        recalls = self.methods[method]["evidence"][str(budget)]
        return self._estimate([float(recall == 1) for recall in recalls])

    def answer(self, method: str, budget: int) -> Estimate | None:
        """Answer-string recall; None where no question has such a string."""
        return self._estimate(self.methods[method]["answer"][str(budget)])

    def ranking(self, method: str, metric: str) -> Estimate | None:
        """`ndcg` or `mrr`."""
        return self._estimate(self.methods[method][metric])

    def search_ms(self, method: str) -> float:
        """Median time of a search."""
        times: list[float] = self.methods[method]["search_ms"]
        return median(times)

    @cached_property
    def bar(self) -> str | None:
        """The strongest ensemble: the highest evidence recall, mean of the budgets."""
        return self._strongest(name for name in self.methods if name.startswith("ensemble-"))

    @cached_property
    def single(self) -> str | None:
        """The strongest of BM25 and dense retrieval, likewise."""
        return self._strongest(n for n in self.methods if n.startswith(("bm25", "dense-")))

    def against(self, method: str, other: str, budget: int) -> Estimate:
        """Mean paired difference in evidence recall, with its interval."""
        mine, its = (self.methods[name]["evidence"][str(budget)] for name in (method, other))
        found = difference(mine, its, self.groups, self.seed)
        assert found is not None
        return found

    def comparisons(self) -> list[tuple[str, str]]:
        """Every method against the bar; and `s3`, which is no ensemble, against the single one."""
        pairs = [(name, self.bar) for name in self.methods if name != self.bar]
        if "s3" in self.methods:
            pairs.append(("s3", self.single))
        return [(name, other) for name, other in pairs if other is not None]

    def figures(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return {
            "bar": self.bar,
            "single": self.single,
            "methods": {name: self._method(name) for name in self.methods},
            "differences": [
                {
                    "method": method,
                    "from": other,
                    "evidence": {
                        str(budget): _values(self.against(method, other, budget))
                        for budget in self.budgets
                    },
                }
                for method, other in self.comparisons()
            ],
        }

    def _method(self, name: str) -> dict[str, Any]:
        by_budget = {
            str(budget): {
                "evidence": _values(self.evidence(name, budget)),
                "all_evidence": _values(self.all_evidence(name, budget)),
                "answer": _values(self.answer(name, budget)),
            }
            for budget in self.budgets
        }
        return {
            "budgets": by_budget,
            "ndcg@10": _values(self.ranking(name, "ndcg")),
            "mrr": _values(self.ranking(name, "mrr")),
            "search_ms": self.search_ms(name),
            "prepare_seconds_per_1k_tokens": self.methods[name]["prepare_seconds_per_1k_tokens"],
            "bytes_per_token": self.methods[name]["bytes_per_token"],
        }

    def _estimate(self, values: Sequence[float | None]) -> Estimate | None:
        return estimate(values, self.groups, self.seed)

    def _strongest(self, names: Iterable[str]) -> str | None:
        return max(names, key=self._mean_recall, default=None)

    def _mean_recall(self, name: str) -> float:
        by_budget = self.methods[name]["evidence"].values()
        return fmean(value for values in by_budget for value in values)


def _values(found: Estimate | None) -> dict[str, float] | None:
    if found is None:
        return None
    rounded = {key: round(getattr(found, key), 4) for key in ("mean", "low", "high")}
    return {**rounded, "questions": found.n}
