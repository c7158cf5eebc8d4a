"""The commands `s3 bench …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(help="Measure what this package claims.", no_args_is_help=True)

_HOST = typer.Option(help="Host: minilm, a folder or a model on the Hugging Face Hub.")
_CODEBOOK = typer.Option(help="Folder of the host's codebook; the shipped one where left out.")
_JSON = typer.Option("--json", help="Write the figures to this file.")


@app.command()
def quality(
    data: Annotated[list[Path], typer.Option(help="Question set, JSON Lines; may be repeated.")],
    host: Annotated[str, _HOST] = "minilm",
    codebook: Annotated[Path | None, _CODEBOOK] = None,
    budget: Annotated[list[int] | None, typer.Option(help="Token budget; repeatable.")] = None,
    paragraphs: Annotated[int, typer.Option(help="Paragraphs of a context.", min=1)] = 60,
    questions: Annotated[
        int | None, typer.Option(help="Questions of a set at most.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the contexts.")] = 0,
    to: Annotated[Path | None, _JSON] = None,
) -> None:
    """Evidence recall under a token budget: BM25, and S3 with both recipes."""
    from s3_retriever.bench.quality import run_quality
    from s3_retriever.codebook import Codebook

    figures = run_quality(
        data,
        host=host,
        codebook=Codebook.from_pretrained(str(codebook or host)),
        budgets=budget or [256, 512, 1024],
        paragraphs=paragraphs,
        questions=questions,
        seed=seed,
    )
    for name, by_method in figures["results"].items():
        Console().print(_quality_table(name, by_method, figures["budgets"]))
    _write(figures, to)


@app.command()
def memory(
    tokens: Annotated[
        list[int] | None, typer.Option(help="Tokens to index; repeatable.", min=1)
    ] = None,
    host: Annotated[str, _HOST] = "minilm",
    codebook: Annotated[Path | None, _CODEBOOK] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(help="Plain text to index; the standard library's source where left out."),
    ] = None,
    to: Annotated[Path | None, _JSON] = None,
) -> None:
    """Peak resident memory of indexing, each size in a process of its own."""
    from s3_retriever.bench.memory import run_memory

    figures = run_memory(
        tokens or [200_000, 2_000_000],
        host=host,
        codebook=None if codebook is None else str(codebook),
        texts=text or [],
    )
    table = Table("tokens", "documents", "peak MiB", "index bytes/token", "tokens/s", box=None)
    for row in figures["rows"]:
        table.add_row(
            f"{row['tokens']:,}",
            f"{row['documents']:,}",
            f"{row['peak_bytes'] / 2**20:,.0f}",
            f"{row['index_bytes'] / max(row['tokens'], 1):.1f}",
            f"{row['tokens_per_second']:,.0f}",
        )
    Console().print(table)
    Console().print(f"Peak memory, last over first: {figures['ratio']:.3f}")
    _write(figures, to)


def _quality_table(name: str, by_method: dict[str, Any], budgets: list[int]) -> Table:
    columns = [f"@{budget}" for budget in budgets]
    table = Table("method", *columns, title=f"{name}: evidence recall (95 % interval)", box=None)
    for method, by_budget in by_method.items():
        cells = [by_budget[str(budget)] for budget in budgets]
        table.add_row(
            method,
            *(f"{c['evidence_recall']:.3f} ({c['low']:.3f}-{c['high']:.3f})" for c in cells),
        )
    return table


def _write(figures: dict[str, Any], to: Path | None) -> None:
    if to is not None:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(json.dumps(figures, indent=2) + "\n")
