"""Writing a run's figures into a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from s3_retriever.bench.inference.plots import draw
from s3_retriever.bench.inference.tables import grids, remark
from s3_retriever.bench.report.compact import compact
from s3_retriever.bench.report.sentence import sentence

Figures = Mapping[str, Any]


def write_inference(figures: Figures, folder: Path) -> None:
    """Write `inference.json`, `inference.md`, and the picture `inference`.

    Args:
        figures: Of a run.
        folder: Where to; it is made where it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "inference.json").write_text(compact(dict(figures)) + "\n", encoding="utf-8")
    (folder / "inference.md").write_text("\n".join(_parts(figures)), encoding="utf-8")
    draw(figures, folder)


def _parts(figures: Figures) -> Iterator[str]:
    yield "# Inference\n"
    said = remark(figures["settings"])
    if said:
        yield f"{said}\n"
    yield sentence("Settings", figures["settings"])
    yield sentence("Machine", figures["machine"])
    yield sentence("Versions", figures["versions"])
    yield from (grid.markdown() for grid in grids(figures))
    yield "![Time to first token and peak memory against tokens](inference.svg)\n"
