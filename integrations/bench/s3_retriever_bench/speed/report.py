"""The tables, claims and pictures of `speed`, `memory` and `startup`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from s3_retriever_bench.shared.drawing import (
    WHOLE,
    draw_line,
    end_texts,
    figure,
    look,
    name_points,
)
from s3_retriever_bench.shared.report import (
    Claim,
    Grid,
    claims_table,
    digits,
    megabytes,
    sentence,
    show_run,
)
from s3_retriever_bench.shared.statistics import Figures


def show_speed(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `speed`; write them, and the pictures `speed` and `bars`."""
    page: list[Grid | str] = [*speed_tables(figures)]
    if skipped := skipped_searches(figures):
        page.append(sentence("Left out", skipped))
    page.append("![Search without the host against tokens](speed.svg)\n")
    page.append("![What the host has of indexing and searching](bars.svg)\n")
    show_run(figures, page, folder, "speed", "Speed")
    if folder is not None:
        draw_speed(figures, folder)


_MILLION = 1_000_000


def speed_claims(figures: Figures) -> Iterator[Claim]:
    """Claims about `indexing` and `sizes` of a run of `speed`."""
    indexing, sizes = figures["indexing"], figures["sizes"]

    def at(millions: int, value: Callable[[Figures], float | None]) -> float | None:
        row = sizes.get(str(millions * _MILLION))
        return None if row is None else value(row)

    yield Claim("Indexing over the host alone", "at least", 0.75, indexing["ratio"])
    yield Claim("The same in processor seconds", "at least", 0.75, indexing["cpu_ratio"])
    ratio = at(1, lambda row: row["hybrid_over_dense"])
    yield Claim("Hybrid over dense search, 1M tokens", "at most", 3, ratio)
    for millions, bound in ((1, 10), (10, 80)):
        rest = at(millions, lambda row: row["searches"]["mode hybrid"]["rest_ms"]["median"])
        yield Claim(f"Hybrid without the host, {millions}M tokens", "at most", bound, rest, "ms")
    size = max((row["bytes_per_token"] for row in sizes.values()), default=None)
    yield Claim("Index, the most of any size", "at most", 64, size, "bytes/token")
    seconds = at(10, lambda row: row["open_seconds"])
    yield Claim("Opening the index, 10M tokens", "below", 1, seconds, "s")
    memory = at(10, lambda row: row["open_private_bytes"])
    megabytes = None if memory is None else memory / 1e6
    yield Claim("Memory of opening, 10M tokens", "below", 300, megabytes, "MB")


def memory_tables(figures: Figures) -> Iterator[Grid]:
    """The table of `memory`."""
    rows = [
        [
            f"{row['tokens']:,}",
            f"{row['documents']:,}",
            f"{row['peak_bytes'] / 2**20:,.0f}",
            f"{row['index_bytes'] / max(row['tokens'], 1):.1f}",
            f"{row['tokens_per_second']:,.0f}",
        ]
        for row in figures["rows"]
    ]
    yield Grid("", ["tokens", "documents", "peak MiB", "index bytes/token", "tokens/s"], rows)


def startup_tables(figures: Figures) -> Iterator[Grid]:
    """Seconds of fresh processes, and of searches over imports."""
    rows = [[name, f"{seconds:.2f}"] for name, seconds in figures["seconds"].items()]
    yield Grid("", ["fresh process", "median s"], rows)
    ratios = [[search, other, f"{ratio:.2f}"] for search, other, ratio in figures["ratios"]]
    yield Grid("", ["search", "over", "median ratio"], ratios)


def speed_tables(figures: Figures) -> Iterator[Grid]:
    """All tables of `speed`, the claims last."""
    sizes = figures["sizes"].values()
    header = ["tokens", *(f"{row['tokens']:,}" for row in sizes)]
    yield _indexing(figures["indexing"])
    rows = [[name, *map(show, sizes)] for name, show in _INDEX_ROWS.items()]
    yield Grid("Indexes", header, rows)
    for part, title in (
        ("rest_ms", "Search without the host"),
        ("whole_ms", "Whole search"),
        ("host_ms", "The host's part of a search"),
    ):
        names = next(iter(sizes))["searches"]
        rows = [[name, *(_time(row["searches"][name], part) for row in sizes)] for name in names]
        if part == "whole_ms":
            ratios = [f"{row['hybrid_over_dense']:.2f}" for row in sizes]
            rows.append(["hybrid over faiss-flat", *ratios])
        yield Grid(f"{title}, ms: median (95th percentile)", header, rows)
    yield claims_table(figures["claims"])


def skipped_searches(figures: Figures) -> dict[str, str]:
    """What `speed` did not search, and why."""
    return {
        f"{name} at {int(size):,} tokens": f"({search['skipped']})"
        for size, row in figures["sizes"].items()
        for name, search in row["searches"].items()
        if "skipped" in search
    }


def _indexing(indexing: Figures) -> Grid:
    rounds = indexing["rounds"]
    rows = []
    for name, key in (("host alone", "bare"), ("S3Index.add", "add")):
        row = [
            name,
            f"{indexing[f'{key}_tokens_per_second']:,.0f}",
            f"{median(times[f'{key}_seconds'] for times in rounds):,.2f}",
            f"{median(times[f'{key}_cpu_seconds'] for times in rounds):,.2f}",
        ]
        rows.append(row)
    ratios = f"{indexing['ratio']:.2f}", f"{indexing['cpu_ratio']:.2f}"
    rows.append(["host over add", "", *ratios])
    title = f"Indexing {indexing['tokens']:,} tokens, medians of {len(rounds)} rounds"
    return Grid(title, ["", "tokens/s", "seconds", "processor seconds"], rows)


_INDEX_ROWS: Mapping[str, Callable[[Figures], str]] = {
    "documents": lambda row: f"{row['documents']:,}",
    "sentences": lambda row: f"{row['sentences']:,}",
    "segments": lambda row: str(row["segments"]),
    "in repeated documents": lambda row: f"{row['repeated_share']:.0%}",
    "bytes/token": lambda row: f"{row['bytes_per_token']:.1f}",
    "opening, s": lambda row: f"{row['open_seconds']:.3f}",
    "opening, private MB": lambda row: megabytes(row["open_private_bytes"]),
    "chunks of the others": lambda row: f"{row['chunks']:,}",
}


def _time(search: Figures, part: str) -> str:
    if "skipped" in search:
        return "-"
    return f"{digits(search[part]['median'])} ({digits(search[part]['p95'])})"


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


def _thousands(tokens: str | float) -> str:
    """A number of tokens as `3M` or `100k`."""
    number = float(tokens)
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:g}"


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"
