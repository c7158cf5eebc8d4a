"""What the files of all runs share: figures as JSON, tables as Markdown, where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from s3_retriever_bench.report.compact import compact
from s3_retriever_bench.report.sentence import sentence


def write_run(figures: Mapping[str, Any], lines: Iterable[str], folder: Path, name: str) -> None:
    """Write `NAME.json` and `NAME.md`.

    Args:
        figures: JSON values.
        lines: Of the Markdown.
        folder: Where to; it is made where it is not there.
        name: Of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(compact(dict(figures)) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")


def provenance(figures: Mapping[str, Any]) -> Iterator[str]:
    """Settings, a recipe by its name, machine and versions, a line each."""
    settings = dict(figures["settings"])
    if settings.get("recipe"):
        settings["recipe"] = settings["recipe"]["name"]
    yield sentence("Settings", settings)
    yield sentence("Machine", figures["machine"])
    yield sentence("Versions", figures["versions"])
