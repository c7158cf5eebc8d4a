"""The commands `quality`, `relevance` and `retrieval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from s3_retriever import types
from s3_retriever_bench.shared import options


def quality(
    data: Annotated[
        list[str],
        options.option(
            "SET",
            "Question set: a JSON Lines file, or hotpotqa, 2wikimultihopqa, musique, fairytaleqa, "
            "qmsum or scifact from the Hub, or dialogues, which are made up; repeatable.",
        ),
    ],
    host: options.Host = "minilm",
    codebook: options.CodebookFolder = None,
    split: options.Split = "test",
    method: Annotated[
        list[str] | None, options.option("NAME", "Method; repeatable.", "all but those that rerank")
    ] = None,
    rerank_host: Annotated[
        str | None,
        options.option("HOST", "The language model that takes a second look.", "the host"),
    ] = None,
    token_budget: Annotated[
        list[int] | None,
        options.option("TOKENS", "Budget; repeatable.", "256, 512 and 1024", min=1),
    ] = None,
    questions: options.SetQuestions = None,
    paragraphs: options.Paragraphs = 60,
    corpus: options.Corpus = None,
    seed: options.Seed = 0,
    out: options.OutFolder = None,
    fresh: options.Fresh = False,
) -> None:
    """Evidence retrieval under a token budget: S3 beside BM25, vector stores and ensembles."""
    from s3_retriever import Codebook
    from s3_retriever.calibration.question_sets import Choice
    from s3_retriever_bench.retrieval.quality import run_quality
    from s3_retriever_bench.retrieval.report import show_quality

    figures = run_quality(
        data,
        host=host,
        codebook=Codebook.from_pretrained(codebook or host),
        budgets=token_budget or [256, 512, 1024],
        choice=Choice(split, questions, paragraphs, corpus, seed),
        methods=method,
        rerank_host=rerank_host,
        folder=out,
        fresh=fresh,
    )
    show_quality(figures, out)


def relevance(
    data: Annotated[
        list[str],
        options.option(
            "SET", "Question set, as for quality; repeatable, and off topic for the others."
        ),
    ],
    host: options.Host = "minilm",
    codebook: options.CodebookFolder = None,
    split: options.Split = "test",
    mode: Annotated[types.Mode, options.option("MODE", "Mode of the searches.")] = "hybrid",
    token_budget: Annotated[int, options.number("Tokens that a search may return.")] = 512,
    questions: options.SetQuestions = None,
    paragraphs: options.Paragraphs = 60,
    corpus: options.Corpus = None,
    seed: options.Seed = 0,
    out: options.OutFile = None,
) -> None:
    """What the relevance floor costs in recall, and what questions without an answer get."""
    from s3_retriever import Codebook
    from s3_retriever.calibration.question_sets import Choice
    from s3_retriever_bench.retrieval.relevance import run_relevance
    from s3_retriever_bench.retrieval.report import relevance_tables
    from s3_retriever_bench.shared.report import show_figures

    figures = run_relevance(
        data,
        host=host,
        codebook=Codebook.from_pretrained(codebook or host),
        choice=Choice(split, questions, paragraphs, corpus, seed),
        mode=mode,
        token_budget=token_budget,
    )
    show_figures(figures, relevance_tables(figures), out)


def retrieval(
    data: Annotated[
        list[Path],
        options.option(
            "FOLDER",
            "Collection in BEIR's form: corpus.jsonl, queries.jsonl and qrels/NAME.tsv; "
            "repeatable.",
        ),
    ],
    host: options.Host = "minilm",
    codebook: options.CodebookFolder = None,
    judgments: Annotated[str, options.option("NAME", "Which file in qrels.")] = "test",
    split: options.Split = "all",
    method: Annotated[
        list[str] | None,
        options.option(
            "NAME",
            "bm25, dense, ensemble-rrf, ensemble-zscore, s3 or hybrid; repeatable.",
            "all",
        ),
    ] = None,
    queries: Annotated[
        int | None, options.number("Maximum queries of a collection.", "all")
    ] = None,
    seed: options.Seed = 0,
    out: options.OutFolder = None,
    fresh: options.Fresh = False,
) -> None:
    """Documents ranked for queries: S3 beside BM25, dense vectors and both fused.

    With --out, the runs are written in TREC's form and the index is kept.
    """
    from s3_retriever import Codebook
    from s3_retriever_bench.retrieval.documents import Plan, run_retrieval
    from s3_retriever_bench.retrieval.report import show_retrieval

    figures = run_retrieval(
        Plan(
            data,
            host=host,
            codebook=Codebook.from_pretrained(codebook or host),
            judgments=judgments,
            split=split,
            queries=queries,
            methods=method or [],
            seed=seed,
            folder=out,
            fresh=fresh,
        )
    )
    show_retrieval(figures, out)
