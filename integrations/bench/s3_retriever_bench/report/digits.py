"""Numbers as tables show them."""

from __future__ import annotations


def digits(value: float | None) -> str:
    """Three digits, or all in front of the point; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
