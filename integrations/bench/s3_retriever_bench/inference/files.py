"""Writing a run's figures into a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from s3_retriever_bench.inference.plots import draw
from s3_retriever_bench.inference.tables import grids, remark
from s3_retriever_bench.report.run_files import provenance, write_run

Figures = Mapping[str, Any]


def write_inference(figures: Figures, folder: Path) -> None:
    """Write `inference.json`, `inference.md`, and the picture `inference`.

    Args:
        figures: Of a run.
        folder: Where to; it is made where it is not there.
    """
    write_run(figures, _parts(figures), folder, "inference")
    draw(figures, folder)


def _parts(figures: Figures) -> Iterator[str]:
    yield "# Inference\n"
    said = remark(figures["settings"])
    if said:
        yield f"{said}\n"
    yield from provenance(figures)
    yield from (grid.markdown() for grid in grids(figures))
    yield "![Time to first token and peak memory against tokens](inference.svg)\n"
