"""The tables, claims and pictures of `cache`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from s3_retriever_bench.shared.drawing import figure, look, name_points
from s3_retriever_bench.shared.report import (
    Claim,
    Grid,
    claims_table,
    rounded,
    share,
    show_run,
    signed,
)
from s3_retriever_bench.shared.statistics import Estimate, Figures, difference


@dataclass(frozen=True, slots=True)
class CacheSummary:
    """Perplexities of all methods of `cache`, and what they have over the exact cache.

    Attributes:
        figures: Figures of the run.
    """

    figures: Mapping[str, Any]

    @property
    def methods(self) -> list[str]:
        """Names of the methods, fewest bytes last."""
        size: Mapping[str, float] = self.figures["bytes_per_token"]
        return sorted(size, key=lambda name: -size[name])

    @property
    def lengths(self) -> list[int]:
        """Lengths at which perplexity was measured, ascending."""
        return [int(length) for length in self.figures["perplexity"]]

    def perplexity(self, method: str, length: int) -> float:
        """Perplexity over all windows of a length."""
        return float(np.exp(fmean(self._nll(method, length))))

    def increase(self, method: str, length: int, other: str = "exact") -> Estimate:
        """By which share of another's perplexity a method's is higher, over paired windows."""
        pairs = self._nll(method, length), self._nll(other, length)
        windows = [str(number) for number in range(len(pairs[0]))]
        found = difference(*pairs, windows, int(self.figures["settings"]["seed"]))
        assert found is not None
        mean, low, high = np.expm1([found.mean, found.low, found.high]).tolist()
        return Estimate(mean, low, high, found.n)

    def _nll(self, method: str, length: int) -> list[float]:
        nll: list[float] = self.figures["perplexity"][str(length)]["nll"][method]
        return nll


def show_cache(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `cache`; write them, `perplexity` and, with atoms, `elbow`."""
    page: list[Grid | str] = [
        *cache_tables(figures),
        "![Perplexity against bytes a token](perplexity.svg)\n",
    ]
    if figures["unexplained"]:
        page.append("![What atoms leave unexplained, by layer](elbow.svg)\n")
    show_run(figures, page, folder, "cache", "Key-value caches")
    if folder is not None:
        draw_cache(figures, folder)


# The default budget of `AtomCache`, and by how much its perplexity may be higher at a length.
_ATOMS = "atoms-8-16"
_INCREASES = {1_024: 1.01, 4_096: 1.03}


def cache_claims(figures: Figures) -> Iterator[Claim]:
    """Claims about bytes, perplexity and decoding of a run of `cache`."""
    summary, size = CacheSummary(figures), figures["bytes_per_token"]
    atoms = _ATOMS in size
    share = size[_ATOMS] / size["exact"] if atoms else None
    yield Claim(f"Bytes a token, {_ATOMS} over exact", "at most", 0.25, rounded(share))
    for length, bound in _INCREASES.items():
        known = atoms and length in summary.lengths
        increase = 1 + summary.increase(_ATOMS, length).mean if known else None
        claim = f"Perplexity, {_ATOMS} over exact ({length:,})"
        yield Claim(claim, "at most", bound, rounded(increase))
    known = atoms and "int4" in size and bool(summary.lengths)
    length = summary.lengths[0] if known else 0
    against = 1 + summary.increase(_ATOMS, length, "int4").mean if known else None
    at = f" ({length:,})" if known else ""
    yield Claim(f"Perplexity, {_ATOMS} over int4{at}", "below", 1, rounded(against))
    last = max(map(int, figures["decoding"]), default=0)
    row = figures["decoding"].get(str(last), {}).get(_ATOMS)
    for name, column in (("Seconds", "ratio"), ("Processor seconds", "cpu_ratio")):
        measured = row[column] if row else None
        claim = f"{name} a decoded token, {_ATOMS} over exact ({last:,})"
        yield Claim(claim, "at most", 1, measured)


# Beside the budgets, the exact cache needs no place on an axis of bytes.
_MOST_SHOWN = 0.6
_WORST_SHOWN = 0.25


def cache_tables(figures: Figures) -> Iterator[Grid]:
    """All tables of `cache`."""
    summary = CacheSummary(figures)
    for length in summary.lengths:
        yield _perplexities(summary, length)
    for length, by_method in figures["decoding"].items():
        yield _decoding(int(length), by_method, summary.methods)
    for length, asked in figures["needles"].items():
        yield _asked(f"Needles in haystacks of {int(length):,} tokens", asked, summary)
    if figures["answers"]:
        yield _asked("Gold answers", figures["answers"], summary)
    if figures["unexplained"]:
        yield _unexplained(figures["unexplained"])
    yield claims_table(figures["claims"])


def _perplexities(summary: CacheSummary, length: int) -> Grid:
    size = summary.figures["bytes_per_token"]
    rows = [
        [
            name,
            f"{size[name]:.0f}",
            f"{summary.perplexity(name, length):.2f}",
            "-" if name == "exact" else percent(summary.increase(name, length)),
        ]
        for name in summary.methods
    ]
    windows = len(summary.figures["perplexity"][str(length)]["nll"]["exact"])
    title = f"Perplexity at {length:,} tokens, "
    title += "one window" if windows == 1 else f"{windows} windows (95 % interval)"
    return Grid(title, ["method", "bytes/head and token", "perplexity", "over exact"], rows)


def percent(value: Estimate) -> str:
    """A share in percent, with its interval if it is the mean of several."""
    if value.n == 1:
        return f"{100 * value.mean:+.2f} %"
    low, high = (f"{100 * bound:+.2f}" for bound in (value.low, value.high))
    return f"{100 * value.mean:+.2f} % ({low}…{high})"


def _decoding(length: int, by_method: Figures, methods: list[str]) -> Grid:
    exact = by_method["exact"]["bytes"]
    rows = []
    for name in methods:
        if name not in by_method:
            continue
        row = by_method[name]
        cpu = row["cpu_ratio"]
        rows.append(
            [
                name,
                f"{row['bytes'] / 2**20:.1f}",
                f"{row['bytes'] / exact:.2f}",
                f"{row['seconds']:.3f}",
                f"{row['ratio']:.2f}",
                "-" if cpu is None else f"{cpu:.2f}",
            ]
        )
    header = ["method", "MiB", "of exact", "s/token", "of exact", "of exact, processor"]
    return Grid(f"Whole cache and decoding at {length:,} tokens", header, rows)


def _asked(title: str, asked: Figures, summary: CacheSummary) -> Grid:
    """The share of gold answers that greedy decoding gives, and their likelihood."""
    values, groups = asked["values"], asked["groups"]
    seed = summary.figures["settings"]["seed"]
    rows = []
    for name in summary.methods:
        mine, exact = values[name], values["exact"]
        rows.append(
            [
                name,
                share(fmean(mine["given"])),
                f"{fmean(mine['nll']):.3f}",
                "-"
                if name == "exact"
                else signed(difference(mine["nll"], exact["nll"], groups, seed)),
            ]
        )
    header = ["method", "given", "NLL, nats/token", "less exact's (95 % interval)"]
    return Grid(f"{title}: {len(groups)} questions", header, rows)


def _unexplained(figures: Figures) -> Grid:
    rows = []
    for k, keys in figures["key"].items():
        values = figures["value"][k]
        rows.append([k, *(f"{number:.3f}" for side in (keys, values) for number in _spread(side))])
    header = ["atoms", "keys: mean", "least", "most", "values: mean", "least", "most"]
    return Grid("Unexplained variance over the layers", header, rows)


def _spread(shares: list[float]) -> tuple[float, float, float]:
    return sum(shares) / len(shares), min(shares), max(shares)


def draw_cache(figures: Figures, folder: Path) -> None:
    """Write `perplexity` (over bytes) and, if there are atoms, `elbow` (by budget and layer)."""
    summary = CacheSummary(figures)
    lengths = summary.lengths
    with figure((4.6 * len(lengths), 3.3), folder / "perplexity") as drawn:
        for panel, length in zip(
            drawn.subplots(1, len(lengths), squeeze=False)[0], lengths, strict=True
        ):
            _draw_perplexity(panel, summary, length)
        drawn.tight_layout(w_pad=1.2)
    if figures["unexplained"]:
        with figure((7.6, 3.1), folder / "elbow") as drawn:
            _draw_elbow(drawn, figures["unexplained"])


def _draw_perplexity(panel: Any, summary: CacheSummary, length: int) -> None:
    size = summary.figures["bytes_per_token"]
    exact = size["exact"]
    points = {
        name: (size[name], 100 * summary.increase(name, length).mean)
        for name in summary.methods
        if size[name] < _MOST_SHOWN * exact
    }
    shown = {name: point for name, point in points.items() if point[1] < 100 * _WORST_SHOWN}
    atoms = sorted(point for name, point in shown.items() if _is_atoms(name))
    if atoms:
        panel.plot(
            *zip(*atoms, strict=True), color=look("mode hybrid").colour, linewidth=2, zorder=2
        )
    for name, (x, y) in shown.items():
        style = look(_style(name))
        panel.plot(x, y, style.marker, color=style.colour, markersize=5, zorder=3)
    panel.axhline(0, color="#999999", linewidth=0.8)
    panel.set_xlabel("bytes a head and token beyond the window")
    panel.set_ylabel("perplexity over exact, %")
    beyond = ", ".join(f"{n} {points[n][1]:+.0f} %" for n in points if n not in shown)
    title = f"{length:,} tokens" + (f"; beyond: {beyond}" if beyond else "")
    panel.set_title(title, loc="left", fontsize=8.5)
    texts = {name: f"{name}  {y:+.1f} %" for name, (_, y) in shown.items()}
    name_points(panel, shown, texts, left=1.03, line=0.062, styled=_style)


def _style(name: str) -> str:
    """The name of a look."""
    if _is_atoms(name):
        return "mode hybrid"
    return "dense" if re.match(r"int|hqq|quanto", name) else "bm25"


def _is_atoms(name: str) -> bool:
    return name.startswith("atoms-")


def _draw_elbow(drawn: Any, figures: Figures) -> None:
    """A line for each layer, from the first (light) to the last (dark)."""
    from matplotlib import colormaps

    for panel, side in zip(drawn.subplots(1, 2, sharey=True), ("key", "value"), strict=True):
        budgets = [int(k) for k in figures[side]]
        layers = list(zip(*figures[side].values(), strict=True))
        for number, shares in enumerate(layers):
            colour = colormaps["viridis_r"](0.1 + 0.9 * number / max(len(layers) - 1, 1))
            panel.plot(budgets, shares, color=colour, linewidth=0.9)
        panel.set_xscale("log", base=2)
        panel.set_xticks(budgets, list(map(str, budgets)))
        panel.minorticks_off()
        panel.set_ylim(0, 1)
        panel.set_xlabel("atoms (log scale)")
        panel.set_title(f"{side}s", loc="left", fontsize=8.5)
        panel.set_ylabel("unexplained variance")
    title = f"What atoms leave unexplained: {len(layers)} layers, the first light, the last dark"
    drawn.suptitle(title, x=0.012, ha="left", fontsize=9.5)
    drawn.tight_layout(rect=(0, 0, 1, 0.99), w_pad=1.2)
