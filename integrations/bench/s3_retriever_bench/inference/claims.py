"""What the package claims about long contexts, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3_retriever_bench.claims import Claim

Figures = Mapping[str, Any]


def check_claims(sizes: Figures) -> list[dict[str, Any]]:
    """Compare all claims with the figures of a run.

    Args:
        sizes: By the tokens asked for, what was measured; a way that failed counts as one that
            was not measured.

    Returns:
        JSON values of each, as `Claim.figures` gives them.
    """
    return [claim.figures() for claim in _claims(sizes)]


def done(row: Figures, way: str) -> Figures | None:
    """What was measured of a way at a length; None where it was not or failed."""
    found: Figures | None = row.get(way)
    return None if found is None or "failed" in found else found


def _claims(sizes: Figures) -> Iterator[Claim]:
    measured = [int(size) for size, row in sizes.items() if done(row, "s3")]
    yield from _first_tokens(sizes)
    yield from _growth(sizes, measured)
    yield _beside_full(sizes, max(measured, default=0))


def _first_tokens(sizes: Figures) -> Iterator[Claim]:
    """At the largest length that both ways were measured at."""
    tokens, row = _largest(sizes, "full", "s3")
    at = f" ({tokens:,})" if tokens else ""
    waits = [row["s3"]["first_token_seconds"], row["s3"]["further_token_seconds"]] if row else []
    for name, bound, wait in zip(("first", "further"), (6, 50), waits or [None] * 2, strict=True):
        ratio = None if not row or not wait else row["full"]["first_token_seconds"] / wait
        claim = f"First token, full KV over S3 {name}{at}"
        yield Claim(claim, "at least", bound, _rounded(ratio))


def _growth(sizes: Figures, measured: Sequence[int]) -> Iterator[Claim]:
    """From the smallest length that S3 was measured at to the largest."""
    low, high = (min(measured), max(measured)) if len(measured) > 1 else (None, None)
    ends = f" ({high:,} over {low:,})" if high else ""
    scan = memory = None
    if high:
        small, large = sizes[str(low)]["s3"], sizes[str(high)]["s3"]
        scan = (large["scan_seconds"] / large["tokens"]) / (small["scan_seconds"] / small["tokens"])
        memory = large["peak_bytes"] / small["peak_bytes"]
    yield Claim(f"Scan s/token{ends}", "at most", 1.1, _rounded(scan))
    yield Claim(f"Peak memory, S3{ends}", "at most", 1.1, _rounded(memory))


def _beside_full(sizes: Figures, last: int) -> Claim:
    """The largest length that S3 was measured at beside the largest of full KV."""
    tokens, row = _largest(sizes, "full")
    if not row or not last:
        return Claim("Peak memory, S3 over full KV", "below", 1, None)
    ratio = sizes[str(last)]["s3"]["peak_bytes"] / row["full"]["peak_bytes"]
    claim = f"Peak memory, S3 ({last:,}) over full KV ({tokens:,})"
    return Claim(claim, "below", 1, _rounded(ratio))


def _largest(sizes: Figures, *ways: str) -> tuple[int, Figures]:
    """The largest length that all these ways were measured at, and its figures; or nothing."""
    found = [int(size) for size, row in sizes.items() if all(done(row, way) for way in ways)]
    return (max(found), sizes[str(max(found))]) if found else (0, {})


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 4)
