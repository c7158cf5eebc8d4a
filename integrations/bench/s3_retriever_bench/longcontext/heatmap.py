"""A picture of the needles: the share found by length and depth, a panel for each method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s3_retriever_bench.report.figure import figure

Figures = Mapping[str, Any]

_MISSING = "#eeeeee"
# From nothing to all; colour-blind readers tell the ends apart, and so does a grey print.
_COLOURS = ["#e8a06c", "#f8dcc5", "#d6e6f3", "#64a6d3", "#084f94"]
_DARK = 0.6


def draw_needles(figures: Figures, folder: Path) -> None:
    """Write `needle` as SVG and PNG.

    The first row of panels is what is in the evidence; where the host answers, the second is what
    is in its answers.

    Args:
        figures: Of a run with needles.
        folder: An existing folder.
    """
    needles, depths = figures["needles"], figures["settings"]["depths"]
    budget = figures["settings"]["needle_budget"]
    # What all of the text holds is no news, so that `full` has a panel in the second row only.
    methods = sorted(next(iter(needles.values())), key=lambda method: method == "full")
    kinds = {"found": f"in {budget:,} tokens of evidence"}
    if any(_known(needles, method, "answered") for method in methods):
        kinds["answered"] = "in the answer"
    width = max(1.2, 0.27 * len(needles) + 0.3)
    size = (width * len(methods) + 1.1, 2.05 * len(kinds) + 0.55)
    with figure(size, folder / "needle") as drawn:
        panels = drawn.subplots(len(kinds), len(methods), squeeze=False, sharex=True, sharey=True)
        for row, (kind, where) in zip(panels, kinds.items(), strict=True):
            for panel, method in zip(row, methods, strict=True):
                if (kind, method) == ("found", "full"):
                    panel.set_axis_off()
                    continue
                columns = [by_method[method][kind] for by_method in needles.values()]
                _panel(panel, list(zip(*columns, strict=True)))
                _axes(panel, needles, depths)
                panel.set_title(method, loc="left", fontsize=8)
            row[0].set_ylabel(f"{where}\ndepth")
        for panel in panels[-1]:
            panel.set_xlabel("tokens")
        drawn.suptitle("Share of the needles found, by length and depth", x=0.012, ha="left")
        drawn.tight_layout(rect=(0, 0, 1, 0.99), w_pad=0.5, h_pad=0.8)


def _known(needles: Figures, method: str, kind: str) -> bool:
    return any(
        share is not None for by_method in needles.values() for share in by_method[method][kind]
    )


def _panel(panel: Any, cells: Sequence[Sequence[float | None]]) -> None:
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("found", _COLOURS).with_extremes(bad=_MISSING)
    shares = np.array([[np.nan if v is None else v for v in row] for row in cells], dtype=float)
    panel.grid(visible=False)
    panel.imshow(np.ma.masked_invalid(shares), cmap=colours, vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share >= _DARK else "#333333"
        place = {"ha": "center", "va": "center", "color": colour, "fontsize": 6}
        panel.text(column, row, _said(share), **place)


def _said(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.2g}".removeprefix("0") or "0"


def _axes(panel: Any, needles: Figures, depths: Sequence[float]) -> None:
    panel.set_xticks(range(len(needles)), [_short(int(length)) for length in needles])
    panel.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths])
    panel.tick_params(length=0, labelsize=6.5)
    for spine in panel.spines.values():
        spine.set_visible(False)


def _short(tokens: int) -> str:
    """A number of tokens as people say it: `32k`."""
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else f"{tokens:,}"
