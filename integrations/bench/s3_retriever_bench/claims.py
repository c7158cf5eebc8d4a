"""What the package claims of a figure, beside what was measured."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple


class Claim(NamedTuple):
    """A bound on a figure.

    Attributes:
        claim: What is claimed.
        relation: On which side of the bound the figure is to be.
        bound: The bound.
        measured: The figure; None where the run did not measure it.
        unit: Of both; empty for a ratio.
    """

    claim: str
    relation: Literal["at least", "at most", "below"]
    bound: float
    measured: float | None
    unit: str = ""

    def holds(self) -> bool | None:
        """Whether the figure keeps the bound; None where it was not measured."""
        if self.measured is None:
            return None
        if self.relation == "at least":
            return self.measured >= self.bound
        equal = self.relation == "at most" and self.measured == self.bound
        return self.measured < self.bound or equal

    def figures(self) -> dict[str, Any]:
        """JSON values: the attributes, and `holds`."""
        return self._asdict() | {"holds": self.holds()}
