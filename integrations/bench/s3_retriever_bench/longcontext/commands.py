"""The command `longcontext`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3_retriever_bench.shared import options


def longcontext(
    data: Annotated[
        list[str] | None,
        options.option(
            "SET",
            "Questions about long contexts: JSON Lines of LongBench's form, or a question set as "
            "for quality; repeatable.",
            "none",
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        options.option(
            "NAME",
            "Task of public LongBench, from the Hub: narrativeqa, qasper, multifieldqa_en, "
            "hotpotqa, 2wikimqa, musique, gov_report, qmsum, triviaqa or passage_retrieval_en; "
            "repeatable.",
            "none",
        ),
    ] = None,
    host: options.Host = "minilm",
    codebook: options.CodebookFolder = None,
    kv_codebook: Annotated[
        str | None,
        options.option(
            "FOLDER",
            "For hybrid-cache, dictionaries of the host's keys and values.",
            "those shipped for the host",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        options.option(
            "NAME",
            "full, truncation, bm25, dense, s3, hybrid, hybrid-minilm or hybrid-cache; hybrid and "
            "hybrid-minilm also with a form of evidence, such as hybrid-section; repeatable.",
            "all but hybrid-cache, in the default form",
        ),
    ] = None,
    token_budget: Annotated[
        list[int] | None, options.number("Tokens of evidence; repeatable.", "512, 1024 and 2048")
    ] = None,
    split: options.Split = "test",
    paragraphs: options.Paragraphs = 60,
    questions: options.SetQuestions = None,
    max_context_tokens: Annotated[
        int | None, options.number("Skip questions about longer contexts.", "none skipped")
    ] = None,
    kl: Annotated[
        bool,
        typer.Option(
            "--kl/--no-kl",
            help="Read whole contexts, too, to see how far evidence changes what the host expects.",
        ),
    ] = True,
    needle: Annotated[
        bool, typer.Option("--needle/--no-needle", help="Look for needles in haystacks, too.")
    ] = True,
    needle_tokens: Annotated[
        list[int] | None,
        options.number("Tokens of a haystack; repeatable.", "4096, 8192, 16384, 32768 and 65536"),
    ] = None,
    needle_depth: Annotated[
        list[float] | None,
        options.option(
            "SHARE",
            "Position of a needle, from 0 (beginning) to 1 (end); repeatable.",
            "0, 0.25, 0.5, 0.75 and 1",
        ),
    ] = None,
    needles: Annotated[int, options.number("Needles at each length and depth.")] = 4,
    haystack: Annotated[
        list[Path] | None,
        options.option("FILE", f"Text of the haystacks: {options.PLAIN_OR_JSON}", options.LIBRARY),
    ] = None,
    seed: options.Seed = 0,
    out: options.OutFolder = None,
    fresh: options.Fresh = False,
) -> None:
    """Long contexts: what the same model answers from S3's evidence, others', and all of it."""
    from s3_retriever_bench.longcontext.report import show_longcontext
    from s3_retriever_bench.longcontext.run import Plan, run_longcontext

    plan = Plan(
        host=host,
        codebook=codebook,
        kv_codebook=kv_codebook,
        data=data or [],
        tasks=task or [],
        methods=method or [],
        budgets=token_budget or [],
        split=split,
        paragraphs=paragraphs,
        questions=questions,
        max_context_tokens=max_context_tokens,
        kl=kl,
        needle=needle,
        lengths=needle_tokens or [],
        depths=needle_depth or [],
        needles=needles,
        haystack=haystack or [],
        folder=out,
        fresh=fresh,
        seed=seed,
    )
    show_longcontext(run_longcontext(plan), out)
