"""Tables of a summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from s3_retriever_bench.report.grid import Grid
from s3_retriever_bench.statistics import Estimate
from s3_retriever_bench.summary import Summary


def grids(summary: Summary) -> Iterator[Grid]:
    """All tables of one set."""
    yield _recall(summary)
    yield _rankings(summary)
    yield _costs(summary)
    comparisons = summary.comparisons()
    for other in dict.fromkeys(other for _, other in comparisons):
        yield _differences(summary, other, [mine for mine, its in comparisons if its == other])


def _recall(summary: Summary) -> Grid:
    rows = [
        [name, *(_interval(summary.evidence(name, budget)) for budget in summary.budgets)]
        for name in summary.methods
    ]
    title = f"{summary.name}: evidence recall (95 % interval), {len(summary.groups)} questions"
    return Grid(title, ["method", *_budgets(summary)], rows)


def _rankings(summary: Summary) -> Grid:
    budget = summary.middle
    rows = [
        [
            name,
            _mean(summary.all_evidence(name, budget)),
            _mean(summary.answer(name, budget)),
            _mean(summary.ranking(name, "ndcg")),
            _mean(summary.ranking(name, "mrr")),
        ]
        for name in summary.methods
    ]
    header = ["method", f"all evidence @{budget}", f"answer @{budget}", "nDCG@10", "MRR"]
    return Grid(f"{summary.name}: whole questions and rankings", header, rows)


def _costs(summary: Summary) -> Grid:
    rows = [
        [
            name,
            f"{values['prepare_seconds_per_1k_tokens']:.3f}",
            f"{summary.search_ms(name):.1f}",
            f"{values['bytes_per_token']:.0f}",
        ]
        for name, values in summary.methods.items()
    ]
    header = ["method", "prepare, s/1k tokens", "search, ms (median)", "bytes/token"]
    return Grid(f"{summary.name}: cost", header, rows)


def _differences(summary: Summary, other: str, names: Sequence[str]) -> Grid:
    rows = [
        [name, *(_signed(summary.against(name, other, budget)) for budget in summary.budgets)]
        for name in names
    ]
    title = f"{summary.name}: evidence recall less that of {other}, paired (95 % interval)"
    return Grid(title, ["method", *_budgets(summary)], rows)


def _budgets(summary: Summary) -> list[str]:
    return [f"@{budget}" for budget in summary.budgets]


def _mean(found: Estimate | None) -> str:
    return "-" if found is None else _share(found.mean)


def _interval(found: Estimate) -> str:
    return f"{_share(found.mean)} ({_share(found.low)}-{_share(found.high)})"


def _signed(found: Estimate) -> str:
    """A difference; with a star where its interval leaves 0 out."""
    mean, low, high = (f"{value:+.3f}".replace("0.", ".") for value in _bounds(found))
    return f"{mean} ({low}…{high}){'*' if found.decided() else ''}"


def _bounds(found: Estimate) -> tuple[float, float, float]:
    return found.mean, found.low, found.high


def _share(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
