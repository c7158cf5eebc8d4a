"""Pictures of a run: search against size, and what the host has of indexing and searching."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3_retriever_bench.report.figure import draw_line, figure, name_points
from s3_retriever_bench.report.style import look

Figures = Mapping[str, Any]

# Height of a line of text, as a share of the height of its axes.
_LINE = 0.055
_LIGHT = 0.35


def draw(figures: Figures, folder: Path) -> None:
    """Write `speed` and `bars`, each as SVG and PNG.

    Args:
        figures: Of a run.
        folder: An existing folder.
    """
    with figure((6.6, 3.9), folder / "speed") as drawn:
        _draw_searches(drawn, figures["sizes"])
    with figure((7.6, 2.9), folder / "bars") as drawn:
        _draw_bars(drawn, figures)


def _draw_searches(drawn: Any, sizes: Figures) -> None:
    axes = drawn.subplots()
    lines = _lines(sizes)
    for name, points in lines.items():
        draw_line(axes, name, *zip(*points, strict=True))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([row["tokens"] for row in sizes.values()], list(map(_short, sizes)))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("tokens in the index (log scale)")
    axes.set_ylabel("median search without the host, ms (log scale)")
    axes.set_xlim(axes.get_xlim())
    axes.set_ylim(axes.get_ylim())
    ends = {name: points[-1] for name, points in lines.items()}
    last = max(x for x, _ in ends.values())
    texts = {
        # Where a line ends before the others, its value is of that size.
        name: f"{name}  {_milliseconds(y)}" + f" ({_short(x)})" * (x < last)
        for name, (x, y) in ends.items()
    }
    name_points(axes, ends, texts, left=1.03, line=_LINE)
    drawn.suptitle(_title(lines), x=0.015, ha="left", fontsize=9.5)
    drawn.tight_layout(rect=(0, 0, 1, 0.99))


def _lines(sizes: Figures) -> dict[str, list[tuple[float, float]]]:
    """By name, the tokens and the milliseconds of each size that was searched."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in sizes.values():
        for name, found in row["searches"].items():
            if "skipped" not in found:
                # Too fast for the clock is no place on a log scale.
                point = row["tokens"], max(found["rest_ms"]["median"], 1e-3)
                lines.setdefault(name, []).append(point)
    return lines


def _title(lines: Mapping[str, list[tuple[float, float]]]) -> str:
    first, *_, last = lines["mode hybrid"][0], *lines["mode hybrid"]
    ends = f"{_short(last[0])} tokens: {_milliseconds(last[1])}"
    if first[0] == last[0]:
        return f"Hybrid search without the host, {ends}"
    return (
        f"{last[0] / first[0]:.0f} times the tokens take hybrid search "
        f"{last[1] / first[1]:.1f} times as long; {ends}"
    )


def _draw_bars(drawn: Any, figures: Figures) -> None:
    left, right = drawn.subplots(1, 2, width_ratios=[1, 1.5])
    _draw_indexing(left, figures["indexing"])
    _draw_wholes(right, *_common(figures["sizes"]))
    drawn.tight_layout(w_pad=2.5)


def _draw_indexing(axes: Any, found: Figures) -> None:
    rates = {
        "host alone": found["bare_tokens_per_second"],
        "S3Index.add": found["add_tokens_per_second"],
    }
    colours = [look("dense").colour, look("mode hybrid").colour]
    bars = axes.barh(list(rates), list(rates.values()), color=colours, height=0.55)
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates.values()], padding=3)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.25 * max(rates.values()))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("tokens per second")
    axes.set_title(f"Indexing: {found['ratio']:.0%} of the host's rate", loc="left", fontsize=8.5)


def _common(sizes: Figures) -> tuple[str, Figures]:
    """The largest size that everything was searched at, else the largest."""
    whole = [
        size
        for size, row in sizes.items()
        if not any("skipped" in found for found in row["searches"].values())
    ]
    size = (whole or list(sizes))[-1]
    searches = sizes[size]["searches"]
    return size, {name: found for name, found in searches.items() if "skipped" not in found}


def _draw_wholes(axes: Any, size: str, searches: Figures) -> None:
    names = list(searches)
    hosts = [searches[name]["host_ms"]["median"] for name in names]
    rests = [searches[name]["rest_ms"]["median"] for name in names]
    colours = [look(name).colour for name in names]
    axes.barh(names, hosts, color=colours, height=0.6, alpha=_LIGHT)
    bars = axes.barh(names, rests, left=hosts, color=colours, height=0.6)
    wholes = [searches[name]["whole_ms"]["median"] for name in names]
    axes.bar_label(bars, list(map(_milliseconds, wholes)), padding=3)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.2 * max(host + rest for host, rest in zip(hosts, rests, strict=True)))
    axes.set_xlabel("ms, median; light: the model reads the question")
    axes.set_title(f"Whole search, {_short(size)} tokens", loc="left", fontsize=8.5)


def _short(tokens: str | float) -> str:
    """A number of tokens as people say it: `3M`."""
    number = float(tokens)
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:g}"


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"
