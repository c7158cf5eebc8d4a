"""Writing a run's figures into a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from s3_retriever_bench.report.run_files import provenance, write_run
from s3_retriever_bench.report.sentence import sentence
from s3_retriever_bench.speed.plots import draw
from s3_retriever_bench.speed.tables import grids, left_out

Figures = Mapping[str, Any]


def write_speed(figures: Figures, folder: Path) -> None:
    """Write `speed.json`, `speed.md`, and the pictures `speed` and `bars`.

    Args:
        figures: Of a run.
        folder: Where to; it is made where it is not there.
    """
    write_run(figures, _parts(figures), folder, "speed")
    draw(figures, folder)


def _parts(figures: Figures) -> Iterator[str]:
    yield "# Speed\n"
    yield from provenance(figures)
    yield from (grid.markdown() for grid in grids(figures))
    missing = left_out(figures)
    if missing:
        yield sentence("Left out", missing)
    yield "![Search without the host against tokens](speed.svg)\n"
    yield "![What the host has of indexing and searching](bars.svg)\n"
