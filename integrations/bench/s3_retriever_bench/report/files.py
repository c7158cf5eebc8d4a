"""Writing a report into a folder."""

from __future__ import annotations

from pathlib import Path

from s3_retriever_bench.quality import Quality
from s3_retriever_bench.report.compact import compact
from s3_retriever_bench.report.markdown import markdown
from s3_retriever_bench.report.plots import draw


def write_report(quality: Quality, folder: Path) -> None:
    """Write `quality.json`, `quality.md`, and the pictures `recall` and `cost`."""
    (folder / "quality.json").write_text(compact(quality.figures()) + "\n", encoding="utf-8")
    (folder / "quality.md").write_text(markdown(quality), encoding="utf-8")
    draw(quality.summaries, folder)
