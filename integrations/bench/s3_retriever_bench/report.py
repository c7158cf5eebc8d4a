"""What a command shows: tables in the terminal, figures as JSON, a Markdown page, and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from s3_retriever_bench import plots
from s3_retriever_bench.adapt_tables import adapt_tables
from s3_retriever_bench.cache_views import cache_tables, draw_cache
from s3_retriever_bench.statistics import Figures, quality_summaries
from s3_retriever_bench.tables import (
    Grid,
    inference_tables,
    longcontext_tables,
    quality_tables,
    retrieval_tables,
    skipped_searches,
    speed_tables,
)

STAR = "A star marks a difference whose interval leaves 0 out.\n"


def show_quality(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `quality`; write them, and the pictures `recall` and `cost`."""
    summaries = list(quality_summaries(figures))
    page: list[Grid | str] = []
    for summary in summaries:
        page += [f"## {summary.name}\n", *quality_tables(summary)]
    title = "Evidence retrieval under a token budget"
    show_run(figures, [*page, STAR], folder, "quality", title)
    if folder is not None:
        plots.draw_quality(summaries, folder)


def show_retrieval(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `retrieval`, and write them."""
    page = [*retrieval_tables(figures), STAR]
    show_run(figures, page, folder, "retrieval", "Documents ranked for queries")


def show_speed(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `speed`; write them, and the pictures `speed` and `bars`."""
    page: list[Grid | str] = [*speed_tables(figures)]
    if skipped := skipped_searches(figures):
        page.append(sentence("Left out", skipped))
    page.append("![Search without the host against tokens](speed.svg)\n")
    page.append("![What the host has of indexing and searching](bars.svg)\n")
    show_run(figures, page, folder, "speed", "Speed")
    if folder is not None:
        plots.draw_speed(figures, folder)


def show_inference(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `inference`; write them, and the picture `inference`."""
    picture = "![Time to first token and peak memory against tokens](inference.svg)\n"
    page = [*inference_tables(figures), picture]
    remark = inference_remark(figures["settings"])
    show_run(figures, page, folder, "inference", "Inference", remark)
    if folder is not None:
        plots.draw_inference(figures, folder)


def show_longcontext(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `longcontext`; write them, and the pictures `scores` and `needle`.

    Omits the picture of what was not measured.
    """
    page = [*longcontext_tables(figures), STAR]
    asked, needles = figures["questions"]["task"], figures["needles"]
    if asked:
        page.append("![What is left of the answers against the budget](scores.svg)\n")
    if needles:
        page.append("![Needles found by length and depth](needle.svg)\n")
    show_run(figures, page, folder, "longcontext", "Long contexts", figures["remark"])
    if folder is not None and asked:
        plots.draw_scores(figures, folder)
    if folder is not None and needles:
        plots.draw_needles(figures, folder)


def show_cache(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `cache`; write them, `perplexity` and, with atoms, `elbow`."""
    page = [*cache_tables(figures), "![Perplexity against bytes a token](perplexity.svg)\n"]
    if figures["unexplained"]:
        page.append("![What atoms leave unexplained, by layer](elbow.svg)\n")
    show_run(figures, page, folder, "cache", "Key-value caches")
    if folder is not None:
        draw_cache(figures, folder)


def show_adapt(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `adapt`, and write them without the answers, which the parts keep."""
    runs = {
        start: {
            seed: {k: v for k, v in part.items() if k != "answers"} for seed, part in seeds.items()
        }
        for start, seeds in figures["runs"].items()
    }
    title = "Adapters that learn to refuse"
    show_run({**figures, "runs": runs}, adapt_tables(figures), folder, "adapt", title)


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


def show_run(
    figures: Figures,
    page: Iterable[Grid | str],
    folder: Path | None,
    name: str,
    title: str,
    remark: str = "",
) -> None:
    """Print the tables of a run; with a folder, write `NAME.json` and `NAME.md`.

    Args:
        figures: JSON values with `settings`, `machine` and `versions`.
        page: Tables, and Markdown that only the file has.
        folder: Where to write; None prints only.
        name: Name of the files.
        title: Heading of the page.
        remark: What has to be known to read the figures.
    """
    parts = list(page)
    show_tables((part for part in parts if isinstance(part, Grid)), remark)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(compact(dict(figures)) + "\n", encoding="utf-8")
    lines = [f"# {title}\n", *([f"{remark}\n"] if remark else ()), *_provenance(figures)]
    lines += [part.markdown() if isinstance(part, Grid) else part for part in parts]
    (folder / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")


def show_figures(
    figures: Figures, grids: Iterable[Grid], path: Path | None, remark: str = ""
) -> None:
    """Print tables; with a path, write the figures there as JSON."""
    show_tables(grids, remark)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2) + "\n")


def show_tables(grids: Iterable[Grid], remark: str = "") -> None:
    """Print tables, then a remark if there is one."""
    for grid in grids:
        Console().print(grid.rich(), "")
    if remark:
        Console().print(remark)


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
    yield sentence("Settings", settings)
    yield sentence("Machine", figures["machine"])
    yield sentence("Versions", figures["versions"])


def sentence(label: str, values: Figures) -> str:
    """A paragraph that lists values by name, without those that are None."""
    listed = ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
    return f"{label}: {listed}.\n"
