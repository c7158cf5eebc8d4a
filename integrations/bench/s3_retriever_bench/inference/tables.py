"""Tables of a run's figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from s3_retriever_bench.inference.claims import done
from s3_retriever_bench.report.claims import claims_grid
from s3_retriever_bench.report.digits import digits
from s3_retriever_bench.report.grid import Grid

Figures = Mapping[str, Any]
_Show = Callable[[Figures], str]


def grids(figures: Figures) -> Iterator[Grid]:
    """All tables, the claims last."""
    sizes = figures["sizes"]
    yield _table("Time to first token, s", sizes, _WAITS)
    yield _table("Tokens/s after the first", sizes, _RATES)
    yield _table("Scan and evidence of S3", sizes, _SCANS)
    yield _table(f"Peak memory, MB ({figures['settings']['memory']})", sizes, _MEMORY)
    yield claims_grid(figures["claims"])


def remark(settings: Figures) -> str:
    """What random weights and directions mean for the figures; empty where there are none."""
    made = ["the weights"] * bool(settings["shape"])
    made += ["the codebook's directions"] * (settings["codebook"] == "random directions")
    if not made:
        return ""
    named = " and ".join(made)
    return (
        f"{named[0].upper()}{named[1:]} are random: speed and memory depend on shapes and "
        "lengths, not on what was learnt. The answers mean nothing."
    )


def _table(title: str, sizes: Figures, rows: Mapping[str, tuple[str, _Show]]) -> Grid:
    header = ["tokens", *(f"{int(size):,}" for size in sizes)]
    body = [
        [name, *(_cell(row.get(way), show) for row in sizes.values())]
        for name, (way, show) in rows.items()
    ]
    if rows is _WAITS:
        body += [
            [name, *(_ratio(row, key) for row in sizes.values())] for name, key in _RATIOS.items()
        ]
    return Grid(title, header, body)


def _cell(found: Figures | None, show: _Show) -> str:
    if found is None:
        return "-"
    failed: str | None = found.get("failed")
    return failed or show(found)


def _ratio(row: Figures, key: str) -> str:
    full, ours = done(row, "full"), done(row, "s3")
    if full is None or ours is None or not ours[key]:
        return "-"
    return digits(full["first_token_seconds"] / ours[key])


def _number(key: str) -> _Show:
    return lambda found: digits(found[key])


def _count(key: str) -> _Show:
    return lambda found: f"{found[key]:,}"


def _megabytes(key: str) -> _Show:
    return lambda found: "-" if found[key] is None else f"{found[key] / 1e6:,.0f}"


_WAITS: Mapping[str, tuple[str, _Show]] = {
    "full KV": ("full", _number("first_token_seconds")),
    "S3, first question (with the scan)": ("s3", _number("first_token_seconds")),
    "S3, further question": ("s3", _number("further_token_seconds")),
}
_RATIOS = {
    "full KV over S3, first": "first_token_seconds",
    "full KV over S3, further": "further_token_seconds",
}
_RATES: Mapping[str, tuple[str, _Show]] = {
    "full KV": ("full", _number("tokens_per_second")),
    "S3": ("s3", _number("tokens_per_second")),
}
_SCANS: Mapping[str, tuple[str, _Show]] = {
    "tokens scanned": ("s3", _count("tokens")),
    "scan, s": ("s3", _number("scan_seconds")),
    "scan, ms/token": ("s3", lambda one: f"{1e3 * one['scan_seconds'] / one['tokens']:.3f}"),
    "retrieval, s": ("s3", lambda one: f"{one['retrieval_seconds']:.3f}"),
    "longest prompt, tokens": ("s3", _count("prompt_tokens")),
}
_MEMORY: Mapping[str, tuple[str, _Show]] = {
    "full KV": ("full", _megabytes("peak_bytes")),
    "S3": ("s3", _megabytes("peak_bytes")),
    "model loaded, before full KV": ("full", _megabytes("loaded_bytes")),
    "model loaded, before S3": ("s3", _megabytes("loaded_bytes")),
    "KV cache alone, full KV": ("full", _megabytes("cache_bytes")),
}
