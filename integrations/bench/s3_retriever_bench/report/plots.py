"""Pictures of a run: recall against budget, and cost against recall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from s3_retriever_bench.report.figure import figure, name_points
from s3_retriever_bench.report.style import look
from s3_retriever_bench.summary import Summary

_COLUMNS = 3
# Height of a line of text, as a share of the height of its axes.
_LINE = 0.062


def draw(summaries: Sequence[Summary], folder: Path) -> None:
    """Write `recall` and `cost`, each as SVG and PNG.

    Args:
        summaries: One for each set.
        folder: An existing folder.
    """
    with figure(_size(len(summaries)), folder / "recall") as drawn:
        _draw_recall(drawn, summaries)
    with figure((7.2, 4.4), folder / "cost") as drawn:
        _draw_cost(drawn, summaries)


def _size(count: int) -> tuple[float, float]:
    rows = -(-count // _COLUMNS)
    return 3.9 * min(count, _COLUMNS), 2.75 * rows + 0.55


def _draw_recall(drawn: Any, summaries: Sequence[Summary]) -> None:
    columns = min(len(summaries), _COLUMNS)
    rows = -(-len(summaries) // columns)
    panels = drawn.subplots(rows, columns, squeeze=False).flat
    for panel, summary in zip(panels, summaries, strict=False):
        _recall_panel(panel, summary)
    for panel in list(drawn.axes)[len(summaries) :]:
        panel.remove()
    drawn.suptitle(_recall_title(summaries), x=0.012, ha="left", fontsize=10)
    drawn.tight_layout(rect=(0, 0, 1, 0.99), w_pad=0.6, h_pad=1.6)


def _recall_panel(panel: Any, summary: Summary) -> None:
    budgets = list(summary.budgets)
    ends: dict[str, float] = {}
    for name in summary.methods:
        found = [summary.evidence(name, budget) for budget in budgets]
        style = look(name)
        means = [one.mean for one in found]
        ends[name] = means[-1]
        panel.plot(
            budgets,
            means,
            style.dash,
            color=style.colour,
            linewidth=2.0 if style.strong else 0.9,
            marker=style.marker if style.strong else None,
            markersize=3.5,
            zorder=3 if style.strong else 2,
        )
        if style.strong:
            low, high = [one.low for one in found], [one.high for one in found]
            panel.fill_between(budgets, low, high, color=style.colour, alpha=0.12, linewidth=0)
    panel.set_xscale("log", base=2)
    panel.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
    panel.minorticks_off()
    panel.set_title(f"{summary.name} ({len(summary.groups)} questions)", loc="left", fontsize=8.5)
    panel.set_xlabel("budget, tokens")
    panel.set_ylabel("evidence recall")
    _label_ends(panel, budgets[-1], ends)


def _label_ends(panel: Any, x: float, ends: Mapping[str, float]) -> None:
    panel.set_ylim(panel.get_ylim())  # Names are not to change it.
    points = {name: (x, y) for name, y in ends.items()}
    name_points(panel, points, {name: name for name in ends}, left=1.09, line=_LINE, font=6.6)


def _recall_title(summaries: Sequence[Summary]) -> str:
    middle = summaries[0].middle
    best = Counter(max(s.methods, key=lambda m: s.evidence(m, middle).mean) for s in summaries)
    wins = ", ".join(f"{name} {count}" for name, count in best.most_common())
    return f"Evidence found within a token budget. Sets where most was found at {middle}: {wins}"


def _draw_cost(drawn: Any, summaries: Sequence[Summary]) -> None:
    axes = drawn.subplots()
    points = _cost_points(summaries)
    for name, (milliseconds, recall) in points.items():
        style = look(name)
        axes.plot(
            milliseconds,
            recall,
            style.marker,
            color=style.colour,
            markersize=8 if style.strong else 6,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=3,
        )
    axes.set_xscale("log")
    axes.margins(x=0.08, y=0.08)
    axes.grid(visible=True, which="major")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("median time of a search, ms (question included; log scale)")
    axes.set_ylabel(f"evidence recall at {summaries[0].middle:,} tokens")
    _label_points(axes, points)
    drawn.suptitle(_cost_title(points, len(summaries)), x=0.015, ha="left", fontsize=9.5)
    drawn.tight_layout(rect=(0, 0, 1, 0.99))


def _label_points(axes: Any, points: Mapping[str, tuple[float, float]]) -> None:
    axes.set_ylim(axes.get_ylim())  # Names are not to change it.
    texts = {name: f"{name}  {y:.3f}".replace("0.", ".") for name, (_, y) in points.items()}
    name_points(axes, points, texts, left=1.03, line=0.05)


def _cost_points(summaries: Sequence[Summary]) -> dict[str, tuple[float, float]]:
    """Median milliseconds and recall of each method that ran on all sets, means of the sets."""
    shared = [name for name in summaries[0].methods if all(name in s.methods for s in summaries)]
    return {
        name: (
            fmean(summary.search_ms(name) for summary in summaries),
            fmean(summary.evidence(name, summary.middle).mean for summary in summaries),
        )
        for name in shared
    }


def _cost_title(points: Mapping[str, tuple[float, float]], sets: int) -> str:
    most = max(points, key=lambda name: points[name][1])
    fastest = min(points, key=lambda name: points[name][0])
    return (
        f"Recall and search time, mean of {sets} {'set' if sets == 1 else 'sets'}. "
        f"Most found: {most}. Fastest: {fastest}."
    )
