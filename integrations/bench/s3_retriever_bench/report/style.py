"""How methods look in pictures: the package's own in colour, what it is compared with muted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

INK = "#333333"
GRID = "#e6e6e6"


@dataclass(frozen=True, slots=True)
class Look:
    """Line and marker of a method.

    Attributes:
        colour: Of a palette that colour-blind readers tell apart (Okabe and Ito), or grey.
        dash: Matplotlib's line style.
        marker: Matplotlib's marker.
        strong: Whether it stands out.
    """

    colour: str
    dash: str
    marker: str
    strong: bool


_LOOKS = {
    "hybrid-paper": Look("#E69F00", "--", "D", strong=False),
    "s3-paper": Look("#56B4E9", "--", "D", strong=False),
    "hybrid": Look("#D55E00", "-", "o", strong=True),
    "s3": Look("#0072B2", "-", "o", strong=True),
    "compressor": Look("#009E73", "-", "o", strong=True),
    "ensemble": Look("#4d4d4d", "-", "s", strong=False),
    "dense": Look("#8c8c8c", "--", "^", strong=False),
    # The package's modes where they are searches of the same index.
    "mode hybrid": Look("#D55E00", "-", "o", strong=True),
    "mode s3": Look("#0072B2", "-", "o", strong=True),
    "mode bm25": Look("#009E73", "-", "o", strong=True),
    "faiss-flat": Look("#6e6e6e", "--", "^", strong=False),
    "faiss-hnsw": Look("#8c8c8c", "-.", "s", strong=False),
    "rank-bm25": Look("#8c8c8c", ":", "v", strong=False),
    "bm25": Look("#8c8c8c", ":", "v", strong=False),
}


def look(method: str) -> Look:
    """The look of a method, by how its name begins."""
    return next(found for start, found in _LOOKS.items() if method.startswith(start))


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places of labels that keep a distance, all in all as near as possible to where they belong.

    Args:
        wanted: Where they belong.
        gap: Distance between neighbours.
        low: The lowest place.
        high: The highest place; labels go beyond where they are too many.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    # Without the steps, places that keep their distance are places in ascending order.
    ascending = isotonic_regression(np.take(wanted, order) - steps).x
    places = np.empty(len(wanted))
    places[order] = np.clip(ascending, low, max(low, high - gap * (len(wanted) - 1))) + steps
    return [float(place) for place in places]
