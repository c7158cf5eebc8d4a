"""Writing a run's figures into a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from s3_retriever_bench.longcontext.heatmap import draw_needles
from s3_retriever_bench.longcontext.plots import draw_scores
from s3_retriever_bench.longcontext.tables import grids
from s3_retriever_bench.report.run_files import provenance, write_run

Figures = Mapping[str, Any]


def write_longcontext(figures: Figures, folder: Path) -> None:
    """Write `longcontext.json`, `longcontext.md`, and the pictures `scores` and `needle`.

    A picture of what was not measured is left out.

    Args:
        figures: Of a run.
        folder: Where to; it is made where it is not there.
    """
    write_run(figures, _parts(figures), folder, "longcontext")
    if figures["questions"]["task"]:
        draw_scores(figures, folder)
    if figures["needles"]:
        draw_needles(figures, folder)


def _parts(figures: Figures) -> Iterator[str]:
    yield "# Long contexts\n"
    if figures["remark"]:
        yield f"{figures['remark']}\n"
    yield from provenance(figures)
    yield from (grid.markdown() for grid in grids(figures))
    yield "A star marks a difference whose interval leaves 0 out.\n"
    if figures["questions"]["task"]:
        yield "![What is left of the answers against the budget](scores.svg)\n"
    if figures["needles"]:
        yield "![Needles found by length and depth](needle.svg)\n"
