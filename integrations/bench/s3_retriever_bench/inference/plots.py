"""A picture of a run: time to first token and peak memory against the length of the context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s3_retriever_bench.inference.claims import done
from s3_retriever_bench.report.figure import draw_line, figure, name_points

Figures = Mapping[str, Any]
_Line = Sequence[tuple[float, float]]

# Height of a line of text, as a share of the height of its axes.
_LINE = 0.06
# Drawn like these methods: what is compared with muted, S3 in its colours.
_FULL, _FIRST, _FURTHER = "dense", "hybrid", "s3"


def draw(figures: Figures, folder: Path) -> None:
    """Write `inference` as SVG and PNG.

    Args:
        figures: Of a run.
        folder: An existing folder.
    """
    sizes = figures["sizes"]
    with figure((8.6, 3.4), folder / "inference") as drawn:
        left, right = drawn.subplots(1, 2)
        waits = {
            _FULL: _line(sizes, "full", "first_token_seconds", 1),
            _FIRST: _line(sizes, "s3", "first_token_seconds", 1),
            _FURTHER: _line(sizes, "s3", "further_token_seconds", 1),
        }
        names = {_FULL: "full KV", _FIRST: "S3, first\nquestion", _FURTHER: "S3, further\nquestion"}
        _panel(left, waits, names, "s")
        left.set_title("Time to first token, s", loc="left", fontsize=8.5)
        memory = {
            _FULL: _line(sizes, "full", "peak_bytes", 1e-9),
            _FIRST: _line(sizes, "s3", "peak_bytes", 1e-9),
        }
        _panel(right, memory, {_FULL: "full KV", _FIRST: "S3"}, "GB")
        right.set_title("Peak memory, GB", loc="left", fontsize=8.5)
        drawn.tight_layout(w_pad=1.5)


def _line(sizes: Figures, way: str, key: str, factor: float) -> _Line:
    """Tokens and value of each length at which something was measured."""
    rows = {int(size): done(row, way) for size, row in sizes.items()}
    return [(size, factor * row[key]) for size, row in rows.items() if row and row[key]]


def _panel(axes: Any, lines: Mapping[str, _Line], names: Mapping[str, str], unit: str) -> None:
    there = {name: line for name, line in lines.items() if line}
    for name, line in there.items():
        draw_line(axes, name, *zip(*line, strict=True))
    lengths = sorted({tokens for line in there.values() for tokens, _ in line})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(lengths, list(map(_short, lengths)))
    steps = _steps([value for line in there.values() for _, value in line])
    axes.set_yticks(steps, [f"{step:g}" for step in steps])
    axes.minorticks_off()
    axes.set_xlabel("tokens of the context (log scale)")
    axes.set_xlim(axes.get_xlim())
    axes.set_ylim(steps[0], steps[-1])
    ends = {name: line[-1] for name, line in there.items()}
    last = max((tokens for tokens, _ in ends.values()), default=0)
    texts = {
        # Where a line ends before the others, its value is of that length.
        name: f"{names[name]}  {value:.3g} {unit}" + f" ({_short(tokens)})" * (tokens < last)
        for name, (tokens, value) in ends.items()
    }
    name_points(axes, ends, texts, left=1.04, line=2 * _LINE)


def _steps(values: Sequence[float]) -> list[float]:
    """Ticks at 1, 2, 5, 10, ... from the last one below all values to the first one above."""
    steps = [digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5)]
    low, high = min(values, default=1), max(values, default=1)
    first = max((i for i, step in enumerate(steps) if step < low), default=0)
    last = next((i for i, step in enumerate(steps) if step > high), len(steps) - 1)
    return steps[first : last + 1]


def _short(tokens: float) -> str:
    """A number of tokens as people say it: `32k`."""
    kilo = tokens / 1024
    return f"{kilo:g}k" if kilo.is_integer() else f"{tokens:,.0f}"
