"""`s3 bench speed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s3_retriever_bench.commands.options import ASK, CODEBOOK, FRESH, HOST, out_folder


def speed(
    tokens: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="Tokens of an index to search; repeatable. 100000, 1000000, 3000000 and 10000000 "
            "where left out.",
            min=1,
        ),
    ] = None,
    host: Annotated[str, HOST] = "minilm",
    codebook: Annotated[Path | None, CODEBOOK] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Text to index: plain, or .jsonl with text and title in each line; repeatable. "
            "The standard library's source where left out.",
        ),
    ] = None,
    ask: Annotated[Path | None, ASK] = None,
    questions: Annotated[int, typer.Option(metavar="N", help="Questions at most.", min=1)] = 30,
    scan_tokens: Annotated[
        int, typer.Option(metavar="N", help="Tokens that indexing is timed on.", min=1)
    ] = 100_000,
    rounds: Annotated[int, typer.Option(metavar="N", help="How often it is.", min=1)] = 3,
    slow_peers: Annotated[
        bool,
        typer.Option("--slow-peers/--no-slow-peers", help="Search also with rank-bm25."),
    ] = True,
    out: Annotated[Path | None, out_folder("figures, tables and plots")] = None,
    fresh: Annotated[bool, FRESH] = False,
) -> None:
    """Indexing beside the bare host; searching beside FAISS, bm25s and rank-bm25, in one run."""
    from s3_retriever_bench.speed import Plan, grids, run_speed, write_speed

    plan = Plan(
        tokens or [100_000, 1_000_000, 3_000_000, 10_000_000],
        host=host,
        codebook=None if codebook is None else str(codebook),
        texts=text or [],
        ask=ask,
        questions=questions,
        scan_tokens=scan_tokens,
        rounds=rounds,
        slow_peers=slow_peers,
        folder=out,
        fresh=fresh,
    )
    figures = run_speed(plan)
    for grid in grids(figures):
        Console().print(grid.rich(), "")
    if out is not None:
        write_speed(figures, out)
