"""Pictures of a run: recall against budget, and cost against recall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from s3_retriever.bench.report.style import GRID, INK, look, spread
from s3_retriever.bench.summary import Summary

_COLUMNS = 3
_FONT = 7.5
# Height of a line of text, as a share of the height of its axes.
_LINE = 0.062


def draw(summaries: Sequence[Summary], folder: Path) -> None:
    """Write `recall` and `cost`, each as SVG and PNG.

    Args:
        summaries: One for each set.
        folder: An existing folder.
    """
    with _figure(_size(len(summaries)), folder / "recall") as figure:
        _draw_recall(figure, summaries)
    with _figure((7.2, 4.4), folder / "cost") as figure:
        _draw_cost(figure, summaries)


@contextmanager
def _figure(size: tuple[float, float], path: Path) -> Iterator[Any]:
    # Without pyplot, which keeps figures and asks for a display.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = {
        "font.size": _FONT,
        # Few: an SVG names them with every text.
        "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
        "text.color": INK,
        "axes.edgecolor": "#999999",
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "xtick.color": INK,
        "ytick.color": INK,
        "svg.fonttype": "none",
        "svg.hashsalt": "s3",
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=size, dpi=110)
        yield figure
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"))
        _shrink(path.with_suffix(".png"))


def _shrink(path: Path) -> None:
    """Reduce a picture to a palette: a third of the size, and no difference to see."""
    from PIL import Image

    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(128)
    reduced.save(path, optimize=True)


def _size(count: int) -> tuple[float, float]:
    rows = -(-count // _COLUMNS)
    return 3.9 * min(count, _COLUMNS), 2.75 * rows + 0.55


def _draw_recall(figure: Any, summaries: Sequence[Summary]) -> None:
    columns = min(len(summaries), _COLUMNS)
    rows = -(-len(summaries) // columns)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel, summary in zip(panels, summaries, strict=False):
        _recall_panel(panel, summary)
    for panel in list(figure.axes)[len(summaries) :]:
        panel.remove()
    figure.suptitle(_recall_title(summaries), x=0.012, ha="left", fontsize=10)
    figure.tight_layout(rect=(0, 0, 1, 0.99), w_pad=0.6, h_pad=1.6)


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
    """Name each line at its end, in a column at the right, so that no legend is needed."""
    low, high = panel.get_ylim()
    places = spread(list(ends.values()), _LINE * (high - low), low, high)
    for (name, y), place in zip(ends.items(), places, strict=True):
        style = look(name)
        panel.annotate(
            name,
            xy=(x, y),
            xytext=(1.09, (place - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            fontsize=6.6,
            fontweight="bold" if style.strong else "normal",
            color=style.colour,
            arrowprops={
                "arrowstyle": "-",
                "color": style.colour,
                "linewidth": 0.5,
                "alpha": 0.6,
                "shrinkA": 0,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )
    panel.set_ylim(low, high)


def _recall_title(summaries: Sequence[Summary]) -> str:
    middle = summaries[0].middle
    best = Counter(max(s.methods, key=lambda m: s.evidence(m, middle).mean) for s in summaries)
    wins = ", ".join(f"{name} {count}" for name, count in best.most_common())
    return f"Evidence found within a token budget. Sets where most was found at {middle}: {wins}"


def _draw_cost(figure: Any, summaries: Sequence[Summary]) -> None:
    axes = figure.subplots()
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
    figure.suptitle(_cost_title(points, len(summaries)), x=0.015, ha="left", fontsize=9.5)
    figure.tight_layout(rect=(0, 0, 1, 0.99))


def _label_points(axes: Any, points: Mapping[str, tuple[float, float]]) -> None:
    low, high = axes.get_ylim()
    places = spread([y for _, y in points.values()], 0.05 * (high - low), low, high)
    for (name, (x, y)), place in zip(points.items(), places, strict=True):
        style = look(name)
        axes.annotate(
            f"{name}  {y:.3f}".replace("0.", "."),
            xy=(x, y),
            xytext=(1.03, (place - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            fontweight="bold" if style.strong else "normal",
            color=style.colour,
            arrowprops={
                "arrowstyle": "-",
                "color": style.colour,
                "linewidth": 0.4,
                "alpha": 0.5,
                "shrinkA": 0,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )


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
