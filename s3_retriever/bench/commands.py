"""The commands `s3 bench …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(help="Measure what this package claims.", no_args_is_help=True)

_HOST = typer.Option(
    metavar="HOST", help="minilm, a folder, or a model id on the Hugging Face Hub."
)
_CODEBOOK = typer.Option(
    metavar="FOLDER", help="The host's codebook; the shipped one where left out."
)
_OUT = typer.Option("--out", metavar="FILE", help="Write the figures to this file as JSON.")


@app.command()
def quality(
    data: Annotated[
        list[Path], typer.Option(metavar="FILE", help="Question set, JSON Lines; repeatable.")
    ],
    host: Annotated[str, _HOST] = "minilm",
    codebook: Annotated[Path | None, _CODEBOOK] = None,
    budget: Annotated[
        list[int] | None,
        typer.Option(
            metavar="TOKENS", help="Budget; repeatable. 256, 512 and 1024 where left out."
        ),
    ] = None,
    paragraphs: Annotated[
        int, typer.Option(metavar="N", help="Paragraphs of a context.", min=1)
    ] = 60,
    questions: Annotated[
        int | None, typer.Option(metavar="N", help="Questions of a set at most.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the contexts.")] = 0,
    out: Annotated[Path | None, _OUT] = None,
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
    _write(figures, out)


@app.command()
def memory(
    tokens: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="Tokens to index; repeatable. 200000 and 2000000 where left out.",
            min=1,
        ),
    ] = None,
    host: Annotated[str, _HOST] = "minilm",
    codebook: Annotated[Path | None, _CODEBOOK] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Plain text to index; the standard library's source where left out.",
        ),
    ] = None,
    out: Annotated[Path | None, _OUT] = None,
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
    _write(figures, out)


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


def _write(figures: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(figures, indent=2) + "\n")
