"""The files of a run: figures as JSON, tables as a Markdown page, and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from s3_retriever_bench import plots
from s3_retriever_bench.adapt_tables import adapt_tables
from s3_retriever_bench.cache_views import cache_tables, draw_cache
from s3_retriever_bench.statistics import quality_summaries
from s3_retriever_bench.tables import (
    inference_tables,
    longcontext_tables,
    quality_tables,
    retrieval_tables,
    skipped_searches,
    speed_tables,
)

Figures = Mapping[str, Any]

_STAR = "A star marks a difference whose interval leaves 0 out.\n"


def write_quality(figures: Figures, folder: Path) -> None:
    """Write `quality.json`, `quality.md`, and the pictures `recall` and `cost`."""
    page = ["# Evidence retrieval under a token budget\n", *_provenance(figures)]
    for summary in quality_summaries(figures):
        page.append(f"## {summary.name}\n")
        page += [grid.markdown() for grid in quality_tables(summary)]
    _write(figures, [*page, _STAR], folder, "quality")
    plots.draw_quality(list(quality_summaries(figures)), folder)


def write_retrieval(figures: Figures, folder: Path) -> None:
    """Write `retrieval.json` and `retrieval.md`."""
    page = ["# Documents ranked for queries\n", *_provenance(figures)]
    page += [grid.markdown() for grid in retrieval_tables(figures)]
    _write(figures, [*page, _STAR], folder, "retrieval")


def write_speed(figures: Figures, folder: Path) -> None:
    """Write `speed.json`, `speed.md`, and the pictures `speed` and `bars`."""
    page = ["# Speed\n", *_provenance(figures)]
    page += [grid.markdown() for grid in speed_tables(figures)]
    skipped = skipped_searches(figures)
    if skipped:
        page.append(_sentence("Left out", skipped))
    page.append("![Search without the host against tokens](speed.svg)\n")
    page.append("![What the host has of indexing and searching](bars.svg)\n")
    _write(figures, page, folder, "speed")
    plots.draw_speed(figures, folder)


def write_inference(figures: Figures, folder: Path) -> None:
    """Write `inference.json`, `inference.md`, and the picture `inference`."""
    page = ["# Inference\n"]
    remark = inference_remark(figures["settings"])
    if remark:
        page.append(f"{remark}\n")
    page += _provenance(figures)
    page += [grid.markdown() for grid in inference_tables(figures)]
    page.append("![Time to first token and peak memory against tokens](inference.svg)\n")
    _write(figures, page, folder, "inference")
    plots.draw_inference(figures, folder)


def write_longcontext(figures: Figures, folder: Path) -> None:
    """Write `longcontext.json`, `longcontext.md`, and the pictures `scores` and `needle`.

    Omits the picture of what was not measured.
    """
    page = ["# Long contexts\n"]
    if figures["remark"]:
        page.append(f"{figures['remark']}\n")
    page += _provenance(figures)
    page += [grid.markdown() for grid in longcontext_tables(figures)]
    page.append(_STAR)
    if figures["questions"]["task"]:
        page.append("![What is left of the answers against the budget](scores.svg)\n")
    if figures["needles"]:
        page.append("![Needles found by length and depth](needle.svg)\n")
    _write(figures, page, folder, "longcontext")
    if figures["questions"]["task"]:
        plots.draw_scores(figures, folder)
    if figures["needles"]:
        plots.draw_needles(figures, folder)


def write_cache(figures: Figures, folder: Path) -> None:
    """Write `cache.json`, `cache.md`, and the pictures `perplexity` and, with atoms, `elbow`."""
    page = ["# Key-value caches\n", *_provenance(figures)]
    page += [grid.markdown() for grid in cache_tables(figures)]
    page.append("![Perplexity against bytes a token](perplexity.svg)\n")
    if figures["unexplained"]:
        page.append("![What atoms leave unexplained, by layer](elbow.svg)\n")
    _write(figures, page, folder, "cache")
    draw_cache(figures, folder)


def write_adapt(figures: Figures, folder: Path) -> None:
    """Write `adapt.json`, without the answers, which the parts keep, and `adapt.md`."""
    runs = {
        start: {
            seed: {k: v for k, v in part.items() if k != "answers"} for seed, part in seeds.items()
        }
        for start, seeds in figures["runs"].items()
    }
    page = ["# Adapters that learn to refuse\n", *_provenance(figures)]
    page += [grid.markdown() for grid in adapt_tables(figures)]
    _write({**figures, "runs": runs}, page, folder, "adapt")


def inference_remark(settings: Figures) -> str:
    """What random weights and directions mean for the figures; empty if there are none."""
    made = ["the weights"] * bool(settings["shape"])
    made += ["the codebook's directions"] * (settings["codebook"] == "random directions")
    if not made:
        return ""
    named = " and ".join(made)
    return (
        f"{named[0].upper()}{named[1:]} are random: speed and memory depend on shapes and "
        "lengths, not on what was learnt. The answers mean nothing."
    )


def _write(figures: Figures, page: Iterable[str], folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(compact(dict(figures)) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text("\n".join(page), encoding="utf-8")


def compact(value: Any, depth: int = 0) -> str:
    """Readable JSON that stays short: one line for each member of an object, one for a list."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    indent = "  " * (depth + 1)
    members = [f"{indent}{json.dumps(key)}: {compact(v, depth + 1)}" for key, v in value.items()]
    return "{\n" + ",\n".join(members) + "\n" + "  " * depth + "}"


def _provenance(figures: Figures) -> Iterator[str]:
    """Settings (a recipe by its name), machine and versions, one paragraph each."""
    settings = dict(figures["settings"])
    if settings.get("recipe"):
        settings["recipe"] = settings["recipe"]["name"]
    yield _sentence("Settings", settings)
    yield _sentence("Machine", figures["machine"])
    yield _sentence("Versions", figures["versions"])


def _sentence(label: str, values: Figures) -> str:
    listed = ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
    return f"{label}: {listed}.\n"
