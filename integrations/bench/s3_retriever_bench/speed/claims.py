"""What the package claims about its speed, beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from s3_retriever_bench.claims import Claim

Figures = Mapping[str, Any]

_MILLION = 1_000_000


def check_claims(figures: Figures) -> list[dict[str, Any]]:
    """Compare all claims with the figures of a run.

    Args:
        figures: `indexing` and `sizes` of a run.

    Returns:
        JSON values of each, as `Claim.figures` gives them.
    """
    return [claim.figures() for claim in _claims(figures)]


def _claims(figures: Figures) -> Iterator[Claim]:
    indexing, sizes = figures["indexing"], figures["sizes"]

    def at(size: int, find: Callable[[Figures], float | None]) -> float | None:
        row = sizes.get(str(size))
        return None if row is None else find(row)

    yield Claim("Indexing over the host alone", "at least", 0.75, indexing["ratio"])
    yield Claim("The same in processor seconds", "at least", 0.75, indexing["cpu_ratio"])
    ratio = at(_MILLION, lambda row: row["hybrid_over_dense"])
    yield Claim("Hybrid over dense search, 1M tokens", "at most", 3, ratio)
    for millions, bound in ((1, 10), (10, 80)):
        rest = at(millions * _MILLION, _without_host)
        yield Claim(f"Hybrid without the host, {millions}M tokens", "at most", bound, rest, "ms")
    size = max((row["bytes_per_token"] for row in sizes.values()), default=None)
    yield Claim("Index, the most of any size", "at most", 64, size, "bytes/token")
    seconds = at(10 * _MILLION, lambda row: row["open_seconds"])
    yield Claim("Opening the index, 10M tokens", "below", 1, seconds, "s")
    memory = at(10 * _MILLION, _private_megabytes)
    yield Claim("Memory of opening, 10M tokens", "below", 300, memory, "MB")


def _without_host(row: Figures) -> float:
    return float(row["searches"]["mode hybrid"]["rest_ms"]["median"])


def _private_megabytes(row: Figures) -> float | None:
    size = row["open_private_bytes"]
    return None if size is None else size / 1e6
