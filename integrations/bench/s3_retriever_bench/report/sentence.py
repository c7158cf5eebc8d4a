"""Named values in a sentence, for Markdown."""

from __future__ import annotations

from collections.abc import Mapping


def sentence(label: str, values: Mapping[str, object]) -> str:
    """The values that there are, as a paragraph."""
    listed = ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
    return f"{label}: {listed}.\n"
