"""Tables of a run's figures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from s3_retriever_bench.longcontext.summary import MEASURES, Measure, Summary
from s3_retriever_bench.report.claims import claims_grid
from s3_retriever_bench.report.digits import digits
from s3_retriever_bench.report.grid import Grid
from s3_retriever_bench.statistics import Estimate

Figures = Mapping[str, Any]


def grids(figures: Figures) -> Iterator[Grid]:
    """All tables, the claims last."""
    summary = Summary(figures)
    if summary.count():
        for measure in summary.measured():
            yield _by_budget(summary, measure)
        if "hybrid" in summary.methods:
            for measure in summary.measured():
                yield _differences(summary, measure)
        for measure in summary.measured():
            yield _by_task(summary, measure)
        yield _costs(summary)
        if _failures(summary):
            yield Grid("Not measured", ["method", "questions", "why"], _failures(summary))
    if figures["needles"]:
        budget = figures["settings"]["needle_budget"]
        yield _needles(figures["needles"], "found", f"Needles in {budget:,} tokens of evidence")
        if _answered(figures["needles"]):
            yield _needles(figures["needles"], "answered", "Needles in the answer")
    yield claims_grid(figures["claims"])


def _by_budget(summary: Summary, measure: Measure) -> Grid:
    rows = [
        [name, *(_interval(summary, name, budget, measure) for budget in summary.budgets)]
        for name in summary.compared(measure)
    ]
    title = f"All tasks: {MEASURES[measure]} (95 % interval; questions)"
    return Grid(title, ["method", *(f"@{budget:,}" for budget in summary.budgets)], rows)


def _differences(summary: Summary, measure: Measure) -> Grid:
    rows = [
        [name, *(_signed(summary.against("hybrid", name, b, measure)) for b in summary.budgets)]
        for name in summary.compared(measure)
        if name != "hybrid"
    ]
    title = f"All tasks: {MEASURES[measure]} of hybrid less that of others, paired (95 % interval)"
    return Grid(title, ["method", *(f"@{budget:,}" for budget in summary.budgets)], rows)


def _by_task(summary: Summary, measure: Measure) -> Grid:
    budget, methods = summary.middle, summary.compared(measure)
    rows = [
        [
            task,
            str(summary.count(task)),
            *(_mean(summary, name, budget, measure, task) for name in methods),
        ]
        for task in summary.tasks
    ]
    title = f"Each task: {MEASURES[measure]} @{budget:,}"
    return Grid(title, ["task", "questions", *methods], rows)


def _costs(summary: Summary) -> Grid:
    rows = [
        [
            name,
            *(f"{summary.tokens(name, budget):,.0f}" for budget in summary.budgets),
            f"{summary.prepare_seconds(name):.3f}",
            f"{1e3 * summary.search_seconds(name):,.1f}",
        ]
        for name in summary.methods
    ]
    header = [
        "method",
        *(f"tokens @{budget:,}" for budget in summary.budgets),
        "read, s/1k",
        "find, ms",
    ]
    title = (
        f"Evidence: mean tokens; medians of reading 1,000 tokens and finding @{summary.middle:,}"
    )
    return Grid(title, header, rows)


def _needles(needles: Figures, name: str, title: str) -> Grid:
    methods = list(next(iter(needles.values())))
    if name == "found":
        methods = [method for method in methods if method != "full"]  # which leaves nothing out
    rows = [
        [f"{int(length):,}", *(_share(by_method[method], name) for method in methods)]
        for length, by_method in needles.items()
    ]
    return Grid(f"{title}, share found", ["tokens", *methods], rows)


def _share(found: Figures, name: str) -> str:
    shares = [share for share in found[name] if share is not None]
    return f"{fmean(shares):.2f}" if shares else str(found["failed"] or "-")


def _answered(needles: Figures) -> bool:
    return any(
        share is not None
        for by_method in needles.values()
        for found in by_method.values()
        for share in found["answered"]
    )


def _failures(summary: Summary) -> list[list[str]]:
    """How many questions were not asked, and why."""
    return [
        [f"{name}{f' @{budget:,}' * (name != 'full')}", f"{count} of {summary.count()}", why]
        for name in summary.methods
        for budget in (summary.budgets if name != "full" else summary.budgets[:1])
        for why, count in summary.failures(name, budget).items()
    ]


def _interval(summary: Summary, method: str, budget: int, measure: Measure) -> str:
    found = summary.mean(method, budget, measure)
    if found is None:
        return "-"
    low, high = _value(found.low, measure), _value(found.high, measure)
    return f"{_value(found.mean, measure)} ({low}-{high}; {found.n})"


def _signed(found: Estimate | None) -> str:
    """A difference; with a star where its interval leaves 0 out."""
    if found is None:
        return "-"
    values = (found.mean, found.low, found.high)
    mean, low, high = (re.sub(r"^([+-])0\.", r"\1.", f"{value:+.3f}") for value in values)
    return f"{mean} ({low}…{high}){'*' if found.decided() else ''}"


def _mean(summary: Summary, method: str, budget: int, measure: Measure, task: str) -> str:
    found = summary.mean(method, budget, measure, task)
    return "-" if found is None else _value(found.mean, measure)


def _value(value: float, measure: Measure) -> str:
    """A share as `.123`, anything else with three digits."""
    return f"{value:.3f}".removeprefix("0") if measure in ("recall", "score") else digits(value)
