"""The commands `speed`, `memory` and `startup`."""

from __future__ import annotations

from typing import Annotated

import typer

from s3_retriever_bench.shared import options


def memory(
    tokens: Annotated[
        list[int] | None, options.number("Tokens to index; repeatable.", "200000 and 2000000")
    ] = None,
    host: options.Host = "minilm",
    codebook: options.CodebookFolder = None,
    text: options.Text = None,
    out: options.OutFile = None,
) -> None:
    """Peak resident memory of indexing, each size in its own process."""
    from s3_retriever_bench.shared.report import show_figures
    from s3_retriever_bench.speed.processes import run_memory
    from s3_retriever_bench.speed.report import memory_tables

    figures = run_memory(
        tokens or [200_000, 2_000_000], host=host, codebook=codebook, texts=text or []
    )
    remark = f"Peak memory, last over first: {figures['ratio']:.3f}"
    show_figures(figures, memory_tables(figures), out, remark)


def startup(
    rounds: Annotated[int, options.number("How often each process runs.")] = 5,
    out: options.OutFile = None,
) -> None:
    """A cold `s3r search` in fresh processes, beside the imports that it cannot do without."""
    from s3_retriever_bench.shared.report import show_figures
    from s3_retriever_bench.speed.processes import run_startup
    from s3_retriever_bench.speed.report import startup_tables

    figures = run_startup(rounds)
    show_figures(figures, startup_tables(figures), out)


def speed(
    tokens: Annotated[
        list[int] | None,
        options.number(
            "Tokens of an index to search; repeatable.", "100000, 1000000, 3000000 and 10000000"
        ),
    ] = None,
    host: options.Host = "minilm",
    codebook: options.CodebookFolder = None,
    text: options.Text = None,
    ask: options.Ask = None,
    questions: options.AskedQuestions = 30,
    scan_tokens: Annotated[int, options.number("Tokens to time indexing on.")] = 100_000,
    rounds: Annotated[int, options.number("How often to time indexing.")] = 3,
    slow_peers: Annotated[
        bool, typer.Option("--slow-peers/--no-slow-peers", help="Search rank-bm25 too.")
    ] = True,
    out: options.OutFolder = None,
    fresh: options.Fresh = False,
) -> None:
    """Indexing beside the bare host; searching beside FAISS, bm25s and rank-bm25, in one run."""
    from s3_retriever_bench.speed.report import show_speed
    from s3_retriever_bench.speed.run import run_speed

    figures = run_speed(
        tokens or [100_000, 1_000_000, 3_000_000, 10_000_000],
        host=host,
        codebook=codebook,
        texts=text or [],
        ask=ask,
        questions=questions,
        scan_tokens=scan_tokens,
        rounds=rounds,
        slow_peers=slow_peers,
        folder=out,
        fresh=fresh,
    )
    show_speed(figures, out)
