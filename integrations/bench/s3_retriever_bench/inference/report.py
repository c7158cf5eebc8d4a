"""The tables, claims and picture of `inference`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from s3_retriever_bench.shared.drawing import (
    binary,
    draw_line,
    end_texts,
    figure,
    name_points,
)
from s3_retriever_bench.shared.report import (
    Claim,
    Grid,
    claims_table,
    digits,
    megabytes,
    rounded,
    show_run,
)
from s3_retriever_bench.shared.statistics import Figures


def show_inference(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `inference`; write them, and the picture `inference`."""
    picture = "![Time to first token and peak memory against tokens](inference.svg)\n"
    page: list[Grid | str] = [*inference_tables(figures), picture]
    remark = inference_remark(figures["settings"])
    show_run(figures, page, folder, "inference", "Inference", remark)
    if folder is not None:
        draw_inference(figures, folder)


def inference_remark(settings: Figures) -> str:
    """What random weights and directions mean for the figures; empty if there are none."""
    made = ["the weights"] * bool(settings["shape"])
    made += ["the codebook's directions"] * (settings["codebook"] == "random directions")
    if not made:
        return ""
    named = " and ".join(made)
    return (
        f"{named[0].upper()}{named[1:]} are random: speed and memory depend on shapes and "
        "lengths, not on what was learnt. The answers mean nothing."
    )


def inference_claims(sizes: Figures) -> Iterator[Claim]:
    """Claims about the lengths of a run of `inference`; a failed way counts as not measured."""
    full, ours = (
        {int(n): result for n, row in sizes.items() if (result := done(row, way))}
        for way in ("full", "s3")
    )
    # At the largest length measured both ways.
    both = max(full.keys() & ours.keys(), default=0)
    at = f" ({both:,})" if both else ""
    for name, bound in (("first", 6), ("further", 50)):
        wait = ours[both][f"{name}_token_seconds"] if both else None
        ratio = full[both]["first_token_seconds"] / wait if wait else None
        claim = f"First token, full KV over S3 {name}{at}"
        yield Claim(claim, "at least", bound, rounded(ratio))
    # From the smallest length at which S3 was measured to the largest.
    ends, scan, memory = "", None, None
    last = max(ours, default=0)
    if len(ours) > 1:
        small, large = ours[min(ours)], ours[last]
        ends = f" ({last:,} over {min(ours):,})"
        scan = (large["scan_seconds"] / large["tokens"]) / (small["scan_seconds"] / small["tokens"])
        memory = large["peak_bytes"] / small["peak_bytes"]
    yield Claim(f"Scan s/token{ends}", "at most", 1.1, rounded(scan))
    yield Claim(f"Peak memory, S3{ends}", "at most", 1.1, rounded(memory))
    # The largest lengths at which each was measured.
    ends, ratio = " over full KV", None
    if full and ours:
        ends = f" ({last:,}) over full KV ({max(full):,})"
        ratio = ours[last]["peak_bytes"] / full[max(full)]["peak_bytes"]
    yield Claim(f"Peak memory, S3{ends}", "below", 1, rounded(ratio))


def done(row: Figures, way: str) -> Figures | None:
    """What was measured of a way at a length; None if it was not, or failed."""
    result: Figures | None = row.get(way)
    return None if result is None or "failed" in result else result


def inference_tables(figures: Figures) -> Iterator[Grid]:
    """All tables of `inference`, the claims last."""
    sizes = figures["sizes"]
    header = ["tokens", *(f"{int(size):,}" for size in sizes)]
    full, ours = partial(_row, sizes, "full"), partial(_row, sizes, "s3")
    waits = [
        full("full KV", lambda way: digits(way["first_token_seconds"])),
        ours("S3, first question (with the scan)", lambda way: digits(way["first_token_seconds"])),
        ours("S3, further question", lambda way: digits(way["further_token_seconds"])),
        *(
            [f"full KV over S3, {name}", *(_ratio(row, name) for row in sizes.values())]
            for name in ("first", "further")
        ),
    ]
    yield Grid("Time to first token, s", header, waits)
    rates = [
        full("full KV", lambda way: digits(way["tokens_per_second"])),
        ours("S3", lambda way: digits(way["tokens_per_second"])),
    ]
    yield Grid("Tokens/s after the first", header, rates)
    scans = [
        ours("tokens scanned", lambda way: f"{way['tokens']:,}"),
        ours("scan, s", lambda way: digits(way["scan_seconds"])),
        ours("scan, ms/token", lambda way: f"{1e3 * way['scan_seconds'] / way['tokens']:.3f}"),
        ours("retrieval, s", lambda way: f"{way['retrieval_seconds']:.3f}"),
        ours("longest prompt, tokens", lambda way: f"{way['prompt_tokens']:,}"),
    ]
    yield Grid("Scan and evidence of S3", header, scans)
    memory = [
        full("full KV", lambda way: megabytes(way["peak_bytes"])),
        ours("S3", lambda way: megabytes(way["peak_bytes"])),
        full("model loaded, before full KV", lambda way: megabytes(way["loaded_bytes"])),
        ours("model loaded, before S3", lambda way: megabytes(way["loaded_bytes"])),
        full("KV cache alone, full KV", lambda way: megabytes(way["cache_bytes"])),
    ]
    yield Grid(f"Peak memory, MB ({figures['settings']['memory']})", header, memory)
    yield claims_table(figures["claims"])


def _row(sizes: Figures, way: str, name: str, show: Callable[[Figures], str]) -> list[str]:
    """A value of a way at every length: a dash if it was not measured, why if it failed."""
    results = [row.get(way) for row in sizes.values()]
    return [name, *("-" if its is None else its.get("failed") or show(its) for its in results)]


def _ratio(row: Figures, question: str) -> str:
    full, ours = done(row, "full"), done(row, "s3")
    if full is None or ours is None or not ours[f"{question}_token_seconds"]:
        return "-"
    return digits(full["first_token_seconds"] / ours[f"{question}_token_seconds"])


# The looks and names of `inference`.
_FULL, _FIRST, _FURTHER = "dense", "hybrid", "s3"
_WAIT_NAMES = {_FULL: "full KV", _FIRST: "S3, first\nquestion", _FURTHER: "S3, further\nquestion"}


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
