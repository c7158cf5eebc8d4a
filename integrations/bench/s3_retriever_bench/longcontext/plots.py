"""A picture of the questions: every measure against the budget."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3_retriever_bench.longcontext.summary import MEASURES, Measure, Summary
from s3_retriever_bench.report.figure import draw_line, figure, name_points
from s3_retriever_bench.report.style import look

# Height of a line of text, as a share of the height of its axes.
_LINE = 0.07
_COLUMNS = 2
# Drawn like these: what is compared with muted, S3 in its colours.
_LOOKS = {
    "full": "ensemble",
    "truncation": "faiss-hnsw",
    "bm25": "bm25",
    "dense": "dense",
    "s3": "s3",
    "hybrid": "hybrid",
}


def draw_scores(figures: Mapping[str, Any], folder: Path) -> None:
    """Write `scores` as SVG and PNG.

    Args:
        figures: Of a run with questions.
        folder: An existing folder.
    """
    summary = Summary(figures)
    measures = summary.measured()
    columns = min(len(measures), _COLUMNS) or 1
    rows = -(-len(measures) // columns) or 1
    with figure((4.4 * columns + 0.4, 2.9 * rows + 0.35), folder / "scores") as drawn:
        panels = list(drawn.subplots(rows, columns, squeeze=False).flat)
        for panel, measure in zip(panels, measures, strict=False):
            _panel(panel, summary, measure)
        for panel in panels[len(measures) :]:
            panel.remove()
        drawn.suptitle(_title(summary), x=0.012, ha="left", fontsize=9.5)
        drawn.tight_layout(rect=(0, 0, 1, 0.99), w_pad=0.8, h_pad=1.4)


def _title(summary: Summary) -> str:
    tasks, host = summary.tasks, summary.figures["settings"]["host"]
    kinds = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
    return f"{summary.count()} questions of {kinds}, host {host.rstrip('/').rpartition('/')[2]}"


def _panel(panel: Any, summary: Summary, measure: Measure) -> None:
    budgets = summary.budgets
    ends: dict[str, float] = {}
    for name in summary.compared(measure):
        found = [summary.mean(name, budget, measure) for budget in budgets]
        points = [(b, one) for b, one in zip(budgets, found, strict=True) if one is not None]
        if not points:
            continue
        style = look(_LOOKS[name])
        known = [budget for budget, _ in points]
        ends[name] = points[-1][1].mean
        draw_line(panel, _LOOKS[name], known, [one.mean for _, one in points])
        if style.strong:
            low, high = [one.low for _, one in points], [one.high for _, one in points]
            panel.fill_between(known, low, high, color=style.colour, alpha=0.12, linewidth=0)
    panel.set_xscale("log", base=2)
    panel.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
    panel.minorticks_off()
    panel.set_title(MEASURES[measure], loc="left", fontsize=8.5)
    panel.set_xlabel("tokens of evidence (log scale)")
    panel.set_ylim(panel.get_ylim())
    points_of = {_LOOKS[name]: (budgets[-1], mean) for name, mean in ends.items()}
    texts = {_LOOKS[name]: f"{name}  {mean:.3f}" for name, mean in ends.items()}
    name_points(panel, points_of, texts, left=1.07, line=_LINE)
