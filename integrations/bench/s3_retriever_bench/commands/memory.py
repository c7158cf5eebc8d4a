"""`s3 bench memory`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from s3_retriever_bench.commands.options import CODEBOOK, HOST, OUT_FILE, write_json


def memory(
    tokens: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="Tokens to index; repeatable. 200000 and 2000000 where left out.",
            min=1,
        ),
    ] = None,
    host: Annotated[str, HOST] = "minilm",
    codebook: Annotated[Path | None, CODEBOOK] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Plain text to index; the standard library's source where left out.",
        ),
    ] = None,
    out: Annotated[Path | None, OUT_FILE] = None,
) -> None:
    """Peak resident memory of indexing, each size in a process of its own."""
    from s3_retriever_bench.memory import run_memory

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
    write_json(figures, out)
