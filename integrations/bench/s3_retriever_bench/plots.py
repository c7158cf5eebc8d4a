"""The pictures of all benchmarks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from s3_retriever_bench.claims import done
from s3_retriever_bench.drawing import (
    INK,
    budget_axis,
    draw_line,
    draw_means,
    figure,
    look,
    name_points,
)
from s3_retriever_bench.statistics import (
    MEASURES,
    Figures,
    LongContextSummary,
    Measure,
    QualitySummary,
)
from s3_retriever_bench.tables import has_answers

WHOLE = (0, 0, 1, 0.99)
# From no needle to all; colour-blind readers and grey prints distinguish the ends.
_HEAT = ["#e8a06c", "#f8dcc5", "#d6e6f3", "#64a6d3", "#084f94"]
# The looks of `longcontext`: others muted, S3 in its colours.
_LONGCONTEXT_LOOKS = {"full": "ensemble", "truncation": "faiss-hnsw"}
# The looks and names of `inference`.
_FULL, _FIRST, _FURTHER = "dense", "hybrid", "s3"
_WAIT_NAMES = {_FULL: "full KV", _FIRST: "S3, first\nquestion", _FURTHER: "S3, further\nquestion"}


def draw_quality(summaries: Sequence[QualitySummary], folder: Path) -> None:
    """Write `recall` (recall against budget) and `cost` (recall against search time)."""
    columns = min(len(summaries), 3)
    rows = -(-len(summaries) // columns)
    with figure((3.9 * columns, 2.75 * rows + 0.55), folder / "recall") as drawn:
        for panel, summary in zip(panels(drawn, rows, columns), summaries, strict=False):
            _draw_recall(panel, summary)
        remove_rest(drawn, len(summaries))
        middle = summaries[0].middle
        best = Counter(max(s.methods, key=lambda m: s.evidence(m, middle).mean) for s in summaries)
        wins = ", ".join(f"{name} {count}" for name, count in best.most_common())
        title = f"Evidence found within a token budget. Sets where most was found at {middle}: "
        drawn.suptitle(title + wins, x=0.012, ha="left", fontsize=10)
        drawn.tight_layout(rect=WHOLE, w_pad=0.6, h_pad=1.6)
    with figure((7.2, 4.4), folder / "cost") as drawn:
        _draw_cost(drawn, summaries)


def _draw_recall(panel: Any, summary: QualitySummary) -> None:
    ends = {}
    for name in summary.methods:
        means = {budget: summary.evidence(name, budget) for budget in summary.budgets}
        ends[name] = draw_means(panel, name, means, plain=True)
    budget_axis(panel, summary.budgets)
    panel.set_title(f"{summary.name} ({summary.questions} questions)", loc="left", fontsize=8.5)
    panel.set_xlabel("budget, tokens")
    panel.set_ylabel("evidence recall")
    name_points(panel, ends, {name: name for name in ends}, left=1.09, line=0.062, font=6.6)


def _draw_cost(drawn: Any, summaries: Sequence[QualitySummary]) -> None:
    axes = drawn.subplots()
    shared = [name for name in summaries[0].methods if all(name in s.methods for s in summaries)]
    points = {
        name: (
            fmean(summary.search_ms(name) for summary in summaries),
            fmean(summary.evidence(name, summary.middle).mean for summary in summaries),
        )
        for name in shared
    }
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
    texts = {name: f"{name}  {y:.3f}".replace("0.", ".") for name, (_, y) in points.items()}
    name_points(axes, points, texts, left=1.03, line=0.05)
    most = max(points, key=lambda name: points[name][1])
    fastest = min(points, key=lambda name: points[name][0])
    sets = f"{len(summaries)} {'set' if len(summaries) == 1 else 'sets'}"
    drawn.suptitle(
        f"Recall and search time, mean of {sets}. Most found: {most}. Fastest: {fastest}.",
        x=0.015,
        ha="left",
        fontsize=9.5,
    )
    drawn.tight_layout(rect=WHOLE)


def draw_speed(figures: Figures, folder: Path) -> None:
    """Write `speed` (search against size) and `bars` (the host's part of the time)."""
    with figure((6.6, 3.9), folder / "speed") as drawn:
        _draw_searches(drawn, figures["sizes"])
    with figure((7.6, 2.9), folder / "bars") as drawn:
        left, right = drawn.subplots(1, 2, width_ratios=[1, 1.5])
        _draw_indexing(left, figures["indexing"])
        _draw_whole_searches(right, figures["sizes"])
        drawn.tight_layout(w_pad=2.5)


def _draw_searches(drawn: Any, sizes: Figures) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in sizes.values():
        for name, search in _searched(row).items():
            # A log scale has no 0, which a fast search may round to.
            point = row["tokens"], max(search["rest_ms"]["median"], 1e-3)
            lines.setdefault(name, []).append(point)
    axes = drawn.subplots()
    for name, points in lines.items():
        draw_line(axes, name, *zip(*points, strict=True))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([row["tokens"] for row in sizes.values()], list(map(_thousands, sizes)))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("tokens in the index (log scale)")
    axes.set_ylabel("median search without the host, ms (log scale)")
    ends = {name: points[-1] for name, points in lines.items()}
    name_points(axes, ends, end_texts(ends, _milliseconds, _thousands), left=1.03, line=0.055)
    hybrid = lines["mode hybrid"]
    drawn.suptitle(_growth(hybrid[0], hybrid[-1]), x=0.015, ha="left", fontsize=9.5)
    drawn.tight_layout(rect=WHOLE)


def _growth(first: tuple[float, float], last: tuple[float, float]) -> str:
    ends = f"{_thousands(last[0])} tokens: {_milliseconds(last[1])}"
    if first[0] == last[0]:
        return f"Hybrid search without the host, {ends}"
    return (
        f"{last[0] / first[0]:.0f} times the tokens take hybrid search "
        f"{last[1] / first[1]:.1f} times as long; {ends}"
    )


def _draw_indexing(axes: Any, indexing: Figures) -> None:
    rates = {
        "host alone": indexing["bare_tokens_per_second"],
        "S3Index.add": indexing["add_tokens_per_second"],
    }
    colours = [look("dense").colour, look("mode hybrid").colour]
    bars = axes.barh(list(rates), list(rates.values()), color=colours, height=0.55)
    _finish_bars(axes, bars, [f"{rate:,.0f}" for rate in rates.values()])
    axes.set_xlim(0, 1.25 * max(rates.values()))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("tokens per second")
    title = f"Indexing: {indexing['ratio']:.0%} of the host's rate"
    axes.set_title(title, loc="left", fontsize=8.5)


def _draw_whole_searches(axes: Any, sizes: Figures) -> None:
    """Of the largest size at which everything was searched, else of the largest."""
    complete = [size for size, row in sizes.items() if len(_searched(row)) == len(row["searches"])]
    size = (complete or list(sizes))[-1]
    searches = _searched(sizes[size])
    hosts, rests, wholes = (
        [search[f"{part}_ms"]["median"] for search in searches.values()]
        for part in ("host", "rest", "whole")
    )
    colours = [look(name).colour for name in searches]
    axes.barh(list(searches), hosts, color=colours, height=0.6, alpha=0.35)
    bars = axes.barh(list(searches), rests, left=hosts, color=colours, height=0.6)
    _finish_bars(axes, bars, list(map(_milliseconds, wholes)))
    axes.set_xlim(0, 1.2 * max(map(sum, zip(hosts, rests, strict=True))))
    axes.set_xlabel("ms, median; light: the model reads the question")
    axes.set_title(f"Whole search, {_thousands(size)} tokens", loc="left", fontsize=8.5)


def _finish_bars(axes: Any, bars: Any, texts: Sequence[str]) -> None:
    axes.bar_label(bars, texts, padding=3)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


def _searched(row: Figures) -> Figures:
    return {name: search for name, search in row["searches"].items() if "skipped" not in search}


def draw_inference(figures: Figures, folder: Path) -> None:
    """Write `inference`: time to first token and peak memory against the context's length."""

    def line(way: str, key: str, factor: float = 1) -> list[tuple[float, float]]:
        rows = {int(size): done(row, way) for size, row in figures["sizes"].items()}
        return [(size, factor * row[key]) for size, row in rows.items() if row and row[key]]

    with figure((8.6, 3.4), folder / "inference") as drawn:
        left, right = drawn.subplots(1, 2)
        waits = {
            _FULL: line("full", "first_token_seconds"),
            _FIRST: line("s3", "first_token_seconds"),
            _FURTHER: line("s3", "further_token_seconds"),
        }
        _draw_lengths(left, waits, _WAIT_NAMES, "s")
        left.set_title("Time to first token, s", loc="left", fontsize=8.5)
        memory = {
            _FULL: line("full", "peak_bytes", 1e-9),
            _FIRST: line("s3", "peak_bytes", 1e-9),
        }
        _draw_lengths(right, memory, {_FULL: "full KV", _FIRST: "S3"}, "GB")
        right.set_title("Peak memory, GB", loc="left", fontsize=8.5)
        drawn.tight_layout(w_pad=1.5)


def _draw_lengths(
    axes: Any,
    lines: Mapping[str, list[tuple[float, float]]],
    names: Mapping[str, str],
    unit: str,
) -> None:
    lines = {name: line for name, line in lines.items() if line}
    for name, line in lines.items():
        draw_line(axes, name, *zip(*line, strict=True))
    lengths = sorted({tokens for line in lines.values() for tokens, _ in line})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(lengths, list(map(binary, lengths)))
    steps = _steps([value for line in lines.values() for _, value in line])
    axes.set_yticks(steps, [f"{step:g}" for step in steps])
    axes.minorticks_off()
    axes.set_xlabel("tokens of the context (log scale)")
    axes.set_ylim(steps[0], steps[-1])
    ends = {name: line[-1] for name, line in lines.items()}
    texts = end_texts(ends, lambda value: f"{value:.3g} {unit}", binary, names)
    name_points(axes, ends, texts, left=1.04, line=0.12)


def _steps(values: Sequence[float]) -> list[float]:
    """Ticks at 1, 2, 5, 10, ... from the last one below all values to the first one above."""
    steps = [digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5)]
    low, high = min(values, default=1), max(values, default=1)
    first = max((i for i, step in enumerate(steps) if step < low), default=0)
    last = next((i for i, step in enumerate(steps) if step > high), len(steps) - 1)
    return steps[first : last + 1]


def draw_scores(figures: Figures, folder: Path) -> None:
    """Write `scores`: every measure of the questions of `longcontext` against the budget."""
    summary = LongContextSummary(figures)
    measures = summary.measured()
    columns = min(len(measures), 2) or 1
    rows = -(-len(measures) // columns) or 1
    with figure((4.4 * columns + 0.4, 2.9 * rows + 0.35), folder / "scores") as drawn:
        for panel, measure in zip(panels(drawn, rows, columns), measures, strict=False):
            _draw_measure(panel, summary, measure)
        remove_rest(drawn, len(measures))
        tasks, host = summary.tasks, figures["settings"]["host"]
        kinds = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
        host = host.rstrip("/").rpartition("/")[2]
        title = f"{summary.count()} questions of {kinds}, host {host}"
        drawn.suptitle(title, x=0.012, ha="left", fontsize=9.5)
        drawn.tight_layout(rect=WHOLE, w_pad=0.8, h_pad=1.4)


def _draw_measure(panel: Any, summary: LongContextSummary, measure: Measure) -> None:
    ends: dict[str, tuple[float, float]] = {}
    texts = {}
    for name in summary.compared(measure):
        means = {budget: summary.mean(name, budget, measure) for budget in summary.budgets}
        known = {budget: mean for budget, mean in means.items() if mean is not None}
        if known:
            style = _LONGCONTEXT_LOOKS.get(name, name)
            _, last = draw_means(panel, style, known)
            ends[style] = summary.budgets[-1], last
            texts[style] = f"{name}  {last:.3f}"
    budget_axis(panel, summary.budgets)
    panel.set_title(MEASURES[measure], loc="left", fontsize=8.5)
    panel.set_xlabel("tokens of evidence (log scale)")
    name_points(panel, ends, texts, left=1.07, line=0.07)


def draw_needles(figures: Figures, folder: Path) -> None:
    """Write `needle`: the share of needles found by length and depth, a panel for each method.

    The first row of panels shows the evidence; if the host answers, the second its answers.
    """
    needles, depths = figures["needles"], figures["settings"]["depths"]
    budget = figures["settings"]["needle_budget"]
    # Finding everything in the whole text is trivial: `full` has a panel in the second row only.
    methods = sorted(next(iter(needles.values())), key=lambda method: method == "full")
    kinds = {"found": f"in {budget:,} tokens of evidence"}
    if has_answers(needles):
        kinds["answered"] = "in the answer"
    width = max(1.2, 0.27 * len(needles) + 0.3)
    size = (width * len(methods) + 1.1, 2.05 * len(kinds) + 0.55)
    with figure(size, folder / "needle") as drawn:
        panels = drawn.subplots(len(kinds), len(methods), squeeze=False, sharex=True, sharey=True)
        for row, (kind, where) in zip(panels, kinds.items(), strict=True):
            for panel, method in zip(row, methods, strict=True):
                if (kind, method) == ("found", "full"):
                    panel.set_axis_off()
                    continue
                columns = [by_method[method][kind] for by_method in needles.values()]
                _draw_heat(panel, list(zip(*columns, strict=True)))
                panel.set_xticks(range(len(needles)), [binary(int(n)) for n in needles])
                panel.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths])
                panel.tick_params(length=0, labelsize=6.5)
                panel.set_title(method, loc="left", fontsize=8)
            row[0].set_ylabel(f"{where}\ndepth")
        for panel in panels[-1]:
            panel.set_xlabel("tokens")
        drawn.suptitle("Share of the needles found, by length and depth", x=0.012, ha="left")
        drawn.tight_layout(rect=WHOLE, w_pad=0.5, h_pad=0.8)


def _draw_heat(panel: Any, cells: Sequence[Sequence[float | None]]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("found", _HEAT).with_extremes(bad="#eeeeee")
    shares = np.array([[np.nan if v is None else v for v in row] for row in cells], dtype=float)
    panel.grid(visible=False)
    panel.imshow(np.ma.masked_invalid(shares), cmap=colours, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(shares):
        text = "-" if math.isnan(value) else f"{value:.2g}".removeprefix("0") or "0"
        place = {"ha": "center", "va": "center", "color": "white" if value >= 0.6 else INK}
        panel.text(column, row, text, fontsize=6, **place)
    for spine in panel.spines.values():
        spine.set_visible(False)


def panels(drawn: Any, rows: int, columns: int) -> Any:
    """Panels of a picture, row by row."""
    return drawn.subplots(rows, columns, squeeze=False).flat


def remove_rest(drawn: Any, used: int) -> None:
    """Remove the panels after those that are used."""
    for panel in list(drawn.axes)[used:]:
        panel.remove()


def end_texts(
    ends: Mapping[str, tuple[float, float]],
    show: Callable[[float], str],
    short: Callable[[float], str],
    names: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Names and last values of lines, with the place of those that end before the others."""
    last = max((x for x, _ in ends.values()), default=0)
    return {
        name: f"{names[name] if names else name}  {show(y)}" + f" ({short(x)})" * (x < last)
        for name, (x, y) in ends.items()
    }


def _thousands(tokens: str | float) -> str:
    """A number of tokens as `3M` or `100k`."""
    number = float(tokens)
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:g}"


def binary(tokens: float) -> str:
    """A number of tokens as `32k`, which is 32,768."""
    kilo = tokens / 1024
    return f"{kilo:g}k" if kilo.is_integer() else f"{tokens:,.0f}"


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"
