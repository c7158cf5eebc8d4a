"""Writing a report into a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from s3_retriever.bench.quality import Quality
from s3_retriever.bench.report.markdown import markdown
from s3_retriever.bench.report.plots import draw


def write_report(quality: Quality, folder: Path) -> None:
    """Write `quality.json`, `quality.md`, and the pictures `recall` and `cost`."""
    (folder / "quality.json").write_text(_compact(quality.figures()) + "\n", encoding="utf-8")
    (folder / "quality.md").write_text(markdown(quality), encoding="utf-8")
    draw(quality.summaries, folder)


def _compact(value: Any, depth: int = 0) -> str:
    """JSON with an object's members on lines of their own, and lists on one."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    indent = "  " * (depth + 1)
    members = [f"{indent}{json.dumps(key)}: {_compact(v, depth + 1)}" for key, v in value.items()]
    return "{\n" + ",\n".join(members) + "\n" + "  " * depth + "}"
