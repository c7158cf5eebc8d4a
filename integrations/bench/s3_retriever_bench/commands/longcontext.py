"""`s3 bench longcontext`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s3_retriever_bench.commands.options import CODEBOOK, FRESH, HOST, out_folder


def longcontext(
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Questions about long contexts: JSON Lines of LongBench's form; repeatable.",
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Task of public LongBench, from the Hub: narrativeqa, qasper, multifieldqa_en, "
            "hotpotqa, 2wikimqa, musique, gov_report, qmsum, triviaqa or passage_retrieval_en; "
            "repeatable.",
        ),
    ] = None,
    host: Annotated[str, HOST] = "minilm",
    codebook: Annotated[str | None, CODEBOOK] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="full, truncation, bm25, dense, s3 or hybrid; repeatable. All where left out.",
        ),
    ] = None,
    token_budget: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="Tokens of evidence; repeatable. 512, 1024 and 2048 where left out.",
            min=1,
        ),
    ] = None,
    questions: Annotated[
        int | None, typer.Option(metavar="N", help="Questions of a task at most.", min=1)
    ] = None,
    max_context_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", help="Leave out questions about longer contexts.", min=1),
    ] = None,
    needle: Annotated[
        bool, typer.Option("--needle/--no-needle", help="Look for needles in haystacks, too.")
    ] = True,
    needle_tokens: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="Tokens of a haystack; repeatable. 4096, 8192, 16384, 32768 and 65536 where left "
            "out.",
            min=1,
        ),
    ] = None,
    needle_depth: Annotated[
        list[float] | None,
        typer.Option(
            metavar="SHARE",
            help="Where a needle is, from 0 (beginning) to 1 (end); repeatable. 0, 0.25, 0.5, 0.75 "
            "and 1 where left out.",
        ),
    ] = None,
    needles: Annotated[
        int, typer.Option(metavar="N", help="Needles at each length and depth.", min=1)
    ] = 4,
    haystack: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Text of the haystacks: plain, or .jsonl with text in each line; repeatable. The "
            "standard library's source where left out.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of questions, needles and resampling.", min=0)
    ] = 0,
    out: Annotated[Path | None, out_folder("figures, tables and plots")] = None,
    fresh: Annotated[bool, FRESH] = False,
) -> None:
    """Long contexts: what the same model answers from S3's evidence, others', and all of it."""
    from s3_retriever_bench.longcontext import Plan, grids, run_longcontext, write_longcontext

    plan = Plan(
        host=host,
        codebook=codebook,
        data=data or [],
        tasks=task or [],
        methods=method or [],
        budgets=token_budget or [],
        questions=questions,
        max_context_tokens=max_context_tokens,
        needle=needle,
        lengths=needle_tokens or [],
        depths=needle_depth or [],
        needles=needles,
        haystack=haystack or [],
        folder=out,
        fresh=fresh,
        seed=seed,
    )
    figures = run_longcontext(plan)
    for grid in grids(figures):
        Console().print(grid.rich(), "")
    if figures["remark"]:
        Console().print(figures["remark"])
    if out is not None:
        write_longcontext(figures, out)
