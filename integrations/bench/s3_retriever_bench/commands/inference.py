"""`s3 bench inference`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s3_retriever_bench.commands.options import ASK, FRESH, out_folder


def inference(
    tokens: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="Tokens of a context that both ways answer from; repeatable. 4096, 8192, 16384 "
            "and 32768 where left out, of shape 0.6b the first two.",
            min=1,
        ),
    ] = None,
    scan_tokens: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="Tokens of a context that S3 alone scans and answers from; repeatable. 65536 and "
            "131072 where left out.",
            min=1,
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="SHAPE",
            help="A decoder with random weights: 135m or 0.6b. 135m where left out.",
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="A causal model instead: a folder, or a model id on the Hugging Face Hub.",
        ),
    ] = None,
    codebook: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="The host's codebook; random directions where left out."
        ),
    ] = None,
    tap: Annotated[
        str | None,
        typer.Option(
            metavar="TAP",
            help="Tap of the random directions, such as key.15; the keys of the middle layer "
            "where left out.",
        ),
    ] = None,
    token_budget: Annotated[
        int, typer.Option(metavar="N", help="Tokens of evidence.", min=1)
    ] = 1024,
    new_tokens: Annotated[
        int, typer.Option(metavar="N", help="Tokens of every answer.", min=2)
    ] = 16,
    questions: Annotated[int, typer.Option(metavar="N", help="Questions to a scan.", min=1)] = 4,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Text of the contexts: plain, or .jsonl with text in each line; repeatable. The "
            "standard library's source where left out.",
        ),
    ] = None,
    ask: Annotated[Path | None, ASK] = None,
    out: Annotated[Path | None, out_folder("figures, tables and a plot")] = None,
    fresh: Annotated[bool, FRESH] = False,
) -> None:
    """Long contexts: scanning and answering from evidence beside a KV cache of everything."""
    from s3_retriever_bench.inference import Plan, grids, remark, run_inference, write_inference

    plan = Plan(
        tokens or [],
        scan_tokens or [65_536, 131_072],
        shape=shape,
        host=host,
        codebook=codebook,
        tap=tap,
        token_budget=token_budget,
        new_tokens=new_tokens,
        questions=questions,
        texts=text or [],
        ask=ask,
        folder=out,
        fresh=fresh,
    )
    figures = run_inference(plan)
    for grid in grids(figures):
        Console().print(grid.rich(), "")
    Console().print(remark(figures["settings"]))
    if out is not None:
        write_inference(figures, out)
