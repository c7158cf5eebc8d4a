"""The report as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterator

from s3_retriever_bench.machine import machine, versions
from s3_retriever_bench.quality import Quality
from s3_retriever_bench.report.sentence import sentence
from s3_retriever_bench.report.tables import grids


def markdown(quality: Quality) -> str:
    """Settings and all tables."""
    return "\n".join(_parts(quality))


def _parts(quality: Quality) -> Iterator[str]:
    yield "# Evidence retrieval under a token budget\n"
    yield sentence("Settings", quality.settings | {"recipe": quality.settings["recipe"]["name"]})
    yield sentence("Machine", machine())
    yield sentence("Versions", versions())
    for summary in quality.summaries:
        yield f"## {summary.name}\n"
        yield from (grid.markdown() for grid in grids(summary))
    yield "A star marks a difference whose interval leaves 0 out.\n"
