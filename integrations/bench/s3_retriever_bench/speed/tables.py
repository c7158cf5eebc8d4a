"""Tables of a run's figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any

from s3_retriever_bench.report.claims import claims_grid
from s3_retriever_bench.report.digits import digits
from s3_retriever_bench.report.grid import Grid

Figures = Mapping[str, Any]


def grids(figures: Figures) -> Iterator[Grid]:
    """All tables, the claims last."""
    yield _indexing(figures["indexing"])
    yield _indexes(figures["sizes"])
    yield _searches(figures, "rest_ms", "Search without the host")
    yield _searches(figures, "whole_ms", "Whole search")
    yield _searches(figures, "host_ms", "The host's part of a search")
    yield claims_grid(figures["claims"])


def left_out(figures: Figures) -> dict[str, str]:
    """What was not searched, and why."""
    return {
        f"{name} at {int(size):,} tokens": f"({found['skipped']})"
        for size, row in figures["sizes"].items()
        for name, found in row["searches"].items()
        if "skipped" in found
    }


def _indexing(found: Figures) -> Grid:
    rounds = found["rounds"]
    rows = []
    for name, key in (("host alone", "bare"), ("S3Index.add", "add")):
        row = [
            name,
            f"{found[f'{key}_tokens_per_second']:,.0f}",
            f"{median(one[f'{key}_seconds'] for one in rounds):,.2f}",
            f"{median(one[f'{key}_cpu_seconds'] for one in rounds):,.2f}",
        ]
        rows.append(row)
    rows.append(["host over add", "", f"{found['ratio']:.2f}", f"{found['cpu_ratio']:.2f}"])
    title = f"Indexing {found['tokens']:,} tokens, medians of {len(rounds)} rounds"
    return Grid(title, ["", "tokens/s", "seconds", "processor seconds"], rows)


def _indexes(sizes: Figures) -> Grid:
    rows = [[name, *map(show, sizes.values())] for name, show in _INDEX_ROWS.items()]
    return Grid("Indexes", _header(sizes), rows)


_INDEX_ROWS: Mapping[str, Callable[[Figures], str]] = {
    "documents": lambda row: f"{row['documents']:,}",
    "sentences": lambda row: f"{row['sentences']:,}",
    "segments": lambda row: str(row["segments"]),
    "in repeated documents": lambda row: f"{row['repeated_share']:.0%}",
    "bytes/token": lambda row: f"{row['bytes_per_token']:.1f}",
    "opening, s": lambda row: f"{row['open_seconds']:.3f}",
    "opening, private MB": lambda row: _megabytes(row["open_private_bytes"]),
    "chunks of the others": lambda row: f"{row['chunks']:,}",
}


def _header(sizes: Figures) -> list[str]:
    return ["tokens", *(f"{row['tokens']:,}" for row in sizes.values())]


def _searches(figures: Figures, part: str, title: str) -> Grid:
    sizes = list(figures["sizes"].values())
    names = list(sizes[0]["searches"])
    rows = [[name, *(_time(row["searches"][name], part) for row in sizes)] for name in names]
    if part == "whole_ms":
        ratios = [f"{row['hybrid_over_dense']:.2f}" for row in sizes]
        rows.append(["hybrid over faiss-flat", *ratios])
    return Grid(f"{title}, ms: median (95th percentile)", _header(figures["sizes"]), rows)


def _time(found: Figures, part: str) -> str:
    if "skipped" in found:
        return "-"
    return f"{digits(found[part]['median'])} ({digits(found[part]['p95'])})"


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:,.0f}"
