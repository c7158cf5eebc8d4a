"""The commands `s3 bench …`."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


class SplitName(str, Enum):
    """Which questions of a set."""

    TEST = "test"
    DEV = "dev"
    ALL = "all"


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
        list[str],
        typer.Option(
            metavar="SET",
            help="Question set: a JSON Lines file, or hotpotqa, 2wikimultihopqa, musique, "
            "fairytaleqa, qmsum or scifact from the Hub; repeatable.",
        ),
    ],
    host: Annotated[str, _HOST] = "minilm",
    codebook: Annotated[Path | None, _CODEBOOK] = None,
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
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write figures, tables and plots here; a run that was interrupted goes on.",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what the folder has already.")
    ] = False,
) -> None:
    """Evidence retrieval under a token budget: S3 beside BM25, vector stores and ensembles."""
    from s3_retriever.bench.datasets import Choice
    from s3_retriever.bench.quality import run_quality
    from s3_retriever.bench.report.files import write_report
    from s3_retriever.bench.report.tables import grids
    from s3_retriever.codebook import Codebook

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


@app.command()
def frameworks(
    framework: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="langchain or llama-index; repeatable. Those installed where left out.",
        ),
    ] = None,
    calls: Annotated[int, typer.Option(metavar="N", help="Questions asked at once.", min=1)] = 64,
    rounds: Annotated[int, typer.Option(metavar="N", help="How often they are asked.", min=1)] = 4,
    imports: Annotated[
        int, typer.Option(metavar="N", help="Fresh processes that import each one.", min=1)
    ] = 5,
    host: Annotated[str, _HOST] = "minilm",
    codebook: Annotated[Path | None, _CODEBOOK] = None,
    out: Annotated[Path | None, _OUT] = None,
) -> None:
    """The integrations: how long they hold an event loop up, and what importing them costs."""
    from s3_retriever.bench.frameworks import run_frameworks

    figures = run_frameworks(
        framework,
        host=host,
        codebook=None if codebook is None else str(codebook),
        calls=calls,
        rounds=rounds,
        imports=imports,
    )
    late = Table("framework", "worst late ms", "p99 late ms", "round s", "as one by one", box=None)
    loading = Table("framework", "import best s", "median s", "slow libraries loaded", box=None)
    for name, row in figures["frameworks"].items():
        loop, imported = row["responsiveness"], row["import"]
        late.add_row(
            name,
            f"{loop['worst_ms']:.1f}",
            f"{loop['p99_ms']:.1f}",
            f"{loop['seconds']:.2f}",
            "yes" if loop["equal"] else "NO",
        )
        loading.add_row(
            name,
            f"{imported['best_seconds']:.2f}",
            f"{imported['median_seconds']:.2f}",
            ", ".join(imported["loaded"]) or "none",
        )
    Console().print(late, "", loading)
    claims = figures["claims"]
    Console().print(
        f"Claimed: at most {claims['late_ms_at_most']} ms late; imported in less than "
        f"{claims['import_seconds_below']} s, without torch and transformers."
    )
    _write(figures, out)


@app.command()
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
    host: Annotated[str, _HOST] = "minilm",
    codebook: Annotated[Path | None, _CODEBOOK] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Text to index: plain, or .jsonl with text and title in each line; repeatable. "
            "The standard library's source where left out.",
        ),
    ] = None,
    ask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Questions: a line each, or .jsonl with question in each line. Made from the "
            "text where left out.",
        ),
    ] = None,
    questions: Annotated[int, typer.Option(metavar="N", help="Questions at most.", min=1)] = 30,
    scan_tokens: Annotated[
        int, typer.Option(metavar="N", help="Tokens that indexing is timed on.", min=1)
    ] = 100_000,
    rounds: Annotated[int, typer.Option(metavar="N", help="How often it is.", min=1)] = 3,
    slow_peers: Annotated[
        bool,
        typer.Option("--slow-peers/--no-slow-peers", help="Search also with rank-bm25."),
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write figures, tables and plots here; a run that was interrupted goes on.",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what the folder has already.")
    ] = False,
) -> None:
    """Indexing beside the bare host; searching beside FAISS, bm25s and rank-bm25, in one run."""
    from s3_retriever.bench.speed import Plan, grids, run_speed, write_speed

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


@app.command()
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
    ask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Questions: a line each, or .jsonl with question in each line. Made from the "
            "text where left out.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write figures, tables and a plot here; a run that was interrupted goes on.",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what the folder has already.")
    ] = False,
) -> None:
    """Long contexts: scanning and answering from evidence beside a KV cache of everything."""
    from s3_retriever.bench.inference import Plan, grids, remark, run_inference, write_inference

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


def _write(figures: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(figures, indent=2) + "\n")
