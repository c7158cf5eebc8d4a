"""What the package claims about its speed, beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Claim:
    """A bound on a figure.

    Attributes:
        claim: What is claimed.
        relation: On which side of the bound the figure is to be.
        bound: The bound.
        unit: Its unit; empty for a ratio.
        find: Finds the figure among all; None where it was not measured.
    """

    claim: str
    relation: Literal["at least", "at most", "below"]
    bound: float
    unit: str
    find: Callable[[Figures], float | None]

    def holds(self, measured: float) -> bool:
        if self.relation == "at least":
            return measured >= self.bound
        return measured < self.bound or (self.relation == "at most" and measured == self.bound)


def _at(size: int, find: Callable[[Figures], float | None]) -> Callable[[Figures], float | None]:
    """Finds a figure of one size."""

    def found(figures: Figures) -> float | None:
        row = figures["sizes"].get(str(size))
        return None if row is None else find(row)

    return found


def _without_host(row: Figures) -> float:
    return float(row["searches"]["mode hybrid"]["rest_ms"]["median"])


def _private_megabytes(row: Figures) -> float | None:
    size = row["open_private_bytes"]
    return None if size is None else size / 1e6


def _most_bytes(figures: Figures) -> float | None:
    return max((row["bytes_per_token"] for row in figures["sizes"].values()), default=None)


_MILLION = 1_000_000
_CLAIMS = [
    _Claim(
        "Indexing over the host alone",
        "at least",
        0.75,
        "",
        lambda figures: figures["indexing"]["ratio"],
    ),
    _Claim(
        "The same in processor seconds",
        "at least",
        0.75,
        "",
        lambda figures: figures["indexing"]["cpu_ratio"],
    ),
    _Claim(
        "Hybrid over dense search, 1M tokens",
        "at most",
        3,
        "",
        _at(_MILLION, lambda row: row["hybrid_over_dense"]),
    ),
    _Claim(
        "Hybrid without the host, 1M tokens",
        "at most",
        10,
        "ms",
        _at(_MILLION, _without_host),
    ),
    _Claim(
        "Hybrid without the host, 10M tokens",
        "at most",
        80,
        "ms",
        _at(10 * _MILLION, _without_host),
    ),
    _Claim(
        "Index, the most of any size",
        "at most",
        64,
        "bytes/token",
        _most_bytes,
    ),
    _Claim(
        "Opening the index, 10M tokens",
        "below",
        1,
        "s",
        _at(10 * _MILLION, lambda row: row["open_seconds"]),
    ),
    _Claim(
        "Memory of opening, 10M tokens",
        "below",
        300,
        "MB",
        _at(10 * _MILLION, _private_megabytes),
    ),
]


def check_claims(figures: Figures) -> list[dict[str, Any]]:
    """Compare all claims with the figures of a run.

    Args:
        figures: `indexing` and `sizes` of a run.

    Returns:
        JSON values: `claim`, `relation`, `bound`, `unit`, and `measured` and `holds`, both None
        where the run did not measure it.
    """
    checked = []
    for claim in _CLAIMS:
        measured = claim.find(figures)
        checked.append(
            {
                "claim": claim.claim,
                "relation": claim.relation,
                "bound": claim.bound,
                "unit": claim.unit,
                "measured": measured,
                "holds": None if measured is None else claim.holds(measured),
            }
        )
    return checked
