"""`s3 bench quality`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s3_retriever_bench.commands.options import CODEBOOK, FRESH, HOST, out_folder


class SplitName(str, Enum):
    """Which questions of a set."""

    TEST = "test"
    DEV = "dev"
    ALL = "all"


def quality(
    data: Annotated[
        list[str],
        typer.Option(
            metavar="SET",
            help="Question set: a JSON Lines file, or hotpotqa, 2wikimultihopqa, musique, "
            "fairytaleqa, qmsum or scifact from the Hub; repeatable.",
        ),
    ],
    host: Annotated[str, HOST] = "minilm",
    codebook: Annotated[Path | None, CODEBOOK] = None,
    split: Annotated[
        SplitName, typer.Option(metavar="SPLIT", help="Questions: test, dev (for tuning) or all.")
    ] = SplitName.TEST,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Method; repeatable. All where left out."),
    ] = None,
    budget: Annotated[
        list[int] | None,
        typer.Option(
            metavar="TOKENS", help="Budget; repeatable. 256, 512 and 1024 where left out.", min=1
        ),
    ] = None,
    questions: Annotated[
        int | None, typer.Option(metavar="N", help="Questions of a set at most.", min=1)
    ] = None,
    paragraphs: Annotated[
        int, typer.Option(metavar="N", help="Paragraphs of a mixed context.", min=1)
    ] = 60,
    corpus: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Documents of a shared corpus at most, with evidence first.", min=1
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of contexts and resampling.", min=0)
    ] = 0,
    out: Annotated[Path | None, out_folder("figures, tables and plots")] = None,
    fresh: Annotated[bool, FRESH] = False,
) -> None:
    """GoldSpan retrieval under a token budget: S3 beside BM25, vector stores and ensembles."""
    from s3_retriever.calibration.question_sets import Choice
    from s3_retriever.codebook import Codebook
    from s3_retriever_bench.quality import run_quality
    from s3_retriever_bench.report.files import write_report
    from s3_retriever_bench.report.tables import grids

    measured = run_quality(
        data,
        host=host,
        codebook=Codebook.from_pretrained(str(codebook or host)),
        budgets=budget or [256, 512, 1024],
        choice=Choice(split.value, questions, paragraphs, corpus, seed),
        methods=method,
        folder=out,
        fresh=fresh,
    )
    for summary in measured.summaries:
        for grid in grids(summary):
            Console().print(grid.rich(), "")
    if out is not None:
        write_report(measured, out)
