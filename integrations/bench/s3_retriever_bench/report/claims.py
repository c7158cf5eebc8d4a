"""The table of a run's claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s3_retriever_bench.report.grid import Grid


def claims_grid(claims: Sequence[Mapping[str, Any]]) -> Grid:
    """Every claim with its bound, what was measured, and whether it holds.

    Args:
        claims: Figures of each, as `Claim.figures` gives them.
    """
    rows = [
        [
            one["claim"],
            f"{one['relation']} {one['bound']:g} {one['unit']}".strip(),
            "not measured" if one["measured"] is None else f"{one['measured']:.3g}",
            {True: "yes", False: "NO", None: "-"}[one["holds"]],
        ]
        for one in claims
    ]
    return Grid("Claims", ["claim", "bound", "measured", "holds"], rows)
