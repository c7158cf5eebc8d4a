"""The commands `s3r bench ...`.

`quality`, `retrieval` and `longcontext` measure users' own data and hosts, `cache` and `adapt` the
other methods; `speed`, `memory`, `startup`, `serve`, `cluster`, `inference` and `frameworks` check
what this project claims. Each imports its benchmark when it runs, to keep the command line quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from s3_retriever import types
from s3_retriever.errors import S3Error

app = typer.Typer(help="Measure what this package claims.", no_args_is_help=True)


def _option(metavar: str, text: str, default: str | bool = True, **settings: Any) -> Any:
    """An option that takes a value; `default` describes a default that is not a value."""
    return typer.Option(metavar=metavar, help=text, show_default=default, **settings)


def _number(text: str, default: str | bool = True, least: int = 1) -> Any:
    return _option("N", text, default, min=least)


_PLAIN_OR_JSON = "plain, or .jsonl with text and optionally title in each line; repeatable."
_LIBRARY = "the standard library's source"
_CAUSAL = "smollm2, a local folder, or a model id on the Hugging Face Hub."

Host = Annotated[str, _option("HOST", f"minilm, {_CAUSAL}")]
CodebookFolder = Annotated[
    str | None, _option("FOLDER", "The host's codebook.", "the host's shipped codebook")
]
Text = Annotated[list[Path] | None, _option("FILE", f"Text to read: {_PLAIN_OR_JSON}", _LIBRARY)]
Ask = Annotated[
    Path | None,
    _option(
        "FILE",
        "Questions: one per line, or .jsonl with question in each line.",
        "questions made from the text",
    ),
]
AskedQuestions = Annotated[int, _number("Maximum questions.")]
Split = Annotated[types.Split, _option("SPLIT", "What is asked: test, dev (for tuning) or all.")]
SetQuestions = Annotated[int | None, _number("Maximum questions of a set or task.", "all")]
Paragraphs = Annotated[int, _number("Paragraphs of a mixed context.")]
Corpus = Annotated[
    int | None, _number("Maximum documents of a shared corpus, evidence first.", "all")
]
Seed = Annotated[int, _number("Seed of what is drawn and of resampling.", least=0)]
OutFile = Annotated[Path | None, _option("FILE", "JSON file for the figures.", "not written")]
OutFolder = Annotated[
    Path | None,
    _option(
        "FOLDER",
        "Folder for figures, tables and plots; an interrupted run resumes there.",
        "not written",
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Measure again what the folder already holds.")
]


@app.command()
def quality(
    data: Annotated[
        list[str],
        _option(
            "SET",
            "Question set: a JSON Lines file, or hotpotqa, 2wikimultihopqa, musique, fairytaleqa, "
            "qmsum or scifact from the Hub, or dialogues, which are made up; repeatable.",
        ),
    ],
    host: Host = "minilm",
    codebook: CodebookFolder = None,
    split: Split = "test",
    method: Annotated[
        list[str] | None, _option("NAME", "Method; repeatable.", "all but hybrid-rerank")
    ] = None,
    rerank_host: Annotated[
        str | None,
        _option("HOST", "The language model that hybrid-rerank reads with.", "the host"),
    ] = None,
    token_budget: Annotated[
        list[int] | None, _option("TOKENS", "Budget; repeatable.", "256, 512 and 1024", min=1)
    ] = None,
    questions: SetQuestions = None,
    paragraphs: Paragraphs = 60,
    corpus: Corpus = None,
    seed: Seed = 0,
    out: OutFolder = None,
    fresh: Fresh = False,
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


@app.command()
def relevance(
    data: Annotated[
        list[str],
        _option("SET", "Question set, as for quality; repeatable, and off topic for the others."),
    ],
    host: Host = "minilm",
    codebook: CodebookFolder = None,
    split: Split = "test",
    mode: Annotated[types.Mode, _option("MODE", "Mode of the searches.")] = "hybrid",
    token_budget: Annotated[int, _number("Tokens that a search may return.")] = 512,
    questions: SetQuestions = None,
    paragraphs: Paragraphs = 60,
    corpus: Corpus = None,
    seed: Seed = 0,
    out: OutFile = None,
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


@app.command()
def retrieval(
    data: Annotated[
        list[Path],
        _option(
            "FOLDER",
            "Collection in BEIR's form: corpus.jsonl, queries.jsonl and qrels/NAME.tsv; "
            "repeatable.",
        ),
    ],
    host: Host = "minilm",
    codebook: CodebookFolder = None,
    judgments: Annotated[str, _option("NAME", "Which file in qrels.")] = "test",
    split: Split = "all",
    method: Annotated[
        list[str] | None,
        _option(
            "NAME",
            "bm25, dense, ensemble-rrf, ensemble-zscore, s3 or hybrid; repeatable.",
            "all",
        ),
    ] = None,
    queries: Annotated[int | None, _number("Maximum queries of a collection.", "all")] = None,
    seed: Seed = 0,
    out: OutFolder = None,
    fresh: Fresh = False,
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


@app.command()
def memory(
    tokens: Annotated[
        list[int] | None, _number("Tokens to index; repeatable.", "200000 and 2000000")
    ] = None,
    host: Host = "minilm",
    codebook: CodebookFolder = None,
    text: Text = None,
    out: OutFile = None,
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


@app.command()
def build(
    characters: Annotated[
        list[int] | None, _number("Characters to index; repeatable.", "1000000")
    ] = None,
    workers: Annotated[list[int] | None, _number("Workers; repeatable.", "1 and 2")] = None,
    host: Host = "minilm",
    codebook: CodebookFolder = None,
    recipe: Annotated[str, _option("RECIPE", "default, paper, or a JSON file.")] = "default",
    text: Text = None,
    out: OutFile = None,
) -> None:
    """Speed and memory of cluster.build, by workers of one thread; needs the extra ray."""
    from s3_retriever.cli import options
    from s3_retriever_bench.serving.build import run_building
    from s3_retriever_bench.serving.report import building_tables
    from s3_retriever_bench.shared.report import show_figures

    figures = run_building(
        characters or [1_000_000],
        workers or [1, 2],
        host=host,
        codebook=codebook,
        recipe=options.recipe(recipe) or "default",
        texts=text or [],
    )
    show_figures(figures, building_tables(figures), out)


@app.command()
def serve(
    clients: Annotated[int, _number("Clients that search at once.")] = 32,
    seconds: Annotated[float, _option("S", "Seconds of load.", min=1.0)] = 60.0,
    tokens: Annotated[int, _number("Tokens of the index.")] = 100_000,
    host: Host = "minilm",
    codebook: CodebookFolder = None,
    text: Text = None,
    ask: Ask = None,
    questions: AskedQuestions = 100,
    page: Annotated[
        bool,
        typer.Option("--page", help="Also how soon the page shows 1,000 spans, in Chromium."),
    ] = False,
    out: OutFile = None,
) -> None:
    """A served index under load while a writer changes it; fails if a result is wrong."""
    from s3_retriever_bench.serving.report import serving_tables
    from s3_retriever_bench.serving.serve import run_serving
    from s3_retriever_bench.shared.report import show_figures

    figures = run_serving(
        clients=clients,
        seconds=seconds,
        tokens=tokens,
        host=host,
        codebook=codebook,
        texts=text or [],
        ask=ask,
        questions=questions,
        page=page,
    )
    show_figures(figures, serving_tables(figures), out)
    if wrong := [*figures["first_errors"], *figures["first_uncommitted"]]:
        raise S3Error(f"The server failed under load: {wrong[0]}")


@app.command()
def cluster(
    index: Annotated[
        Path | None, _option("FOLDER", "An index to search.", "made of the text")
    ] = None,
    tokens: Annotated[int, _number("Tokens of the index that is made.")] = 1_000_000,
    shards: Annotated[int, _number("Workers that share it.")] = 4,
    clients: Annotated[int, _number("Searches at once.")] = 8,
    seconds: Annotated[float, _option("S", "Seconds of load.", min=1.0)] = 20.0,
    kills: Annotated[int, _number("Workers to kill during searches.", least=0)] = 25,
    host: Host = "minilm",
    codebook: CodebookFolder = None,
    text: Text = None,
    ask: Ask = None,
    questions: AskedQuestions = 50,
    out: OutFile = None,
) -> None:
    """A sharded index on Ray beside one index; fails if a result differs or is lost."""
    from s3_retriever_bench.serving.cluster import run_cluster
    from s3_retriever_bench.serving.report import cluster_tables
    from s3_retriever_bench.shared.report import show_figures

    figures = run_cluster(
        index=index,
        tokens=tokens,
        shards=shards,
        clients=clients,
        seconds=seconds,
        kills=kills,
        host=host,
        codebook=codebook,
        texts=text or [],
        ask=ask,
        questions=questions,
    )
    show_figures(figures, cluster_tables(figures), out)
    killed = figures["kills"]
    different = any(each["different"] for each in figures["search"].values())
    if different or killed["wrong"] or killed["errors"]:
        raise S3Error("Results of the sharded index differ from those of one index, or are lost.")


@app.command()
def frameworks(
    calls: Annotated[int, _number("Questions to ask at once.")] = 64,
    rounds: Annotated[int, _number("How often to ask them.")] = 4,
    imports: Annotated[int, _number("Fresh processes that import each integration.")] = 5,
    host: Host = "minilm",
    codebook: CodebookFolder = None,
    out: OutFile = None,
) -> None:
    """The integrations: how long they block an event loop, and what importing them costs."""
    from s3_retriever_bench.serving.frameworks import run_frameworks
    from s3_retriever_bench.serving.report import frameworks_tables
    from s3_retriever_bench.shared.report import show_figures

    figures = run_frameworks(
        host=host, codebook=codebook, calls=calls, rounds=rounds, imports=imports
    )
    claims = figures["claims"]
    remark = (
        f"Claimed: at most {claims['late_ms_at_most']} ms late; imported in less than "
        f"{claims['import_seconds_below']} s, without torch and transformers."
    )
    show_figures(figures, frameworks_tables(figures), out, remark)


@app.command()
def startup(
    rounds: Annotated[int, _number("How often each process runs.")] = 5, out: OutFile = None
) -> None:
    """A cold `s3r search` in fresh processes, beside the imports that it cannot do without."""
    from s3_retriever_bench.shared.report import show_figures
    from s3_retriever_bench.speed.processes import run_startup
    from s3_retriever_bench.speed.report import startup_tables

    figures = run_startup(rounds)
    show_figures(figures, startup_tables(figures), out)


@app.command()
def speed(
    tokens: Annotated[
        list[int] | None,
        _number(
            "Tokens of an index to search; repeatable.", "100000, 1000000, 3000000 and 10000000"
        ),
    ] = None,
    host: Host = "minilm",
    codebook: CodebookFolder = None,
    text: Text = None,
    ask: Ask = None,
    questions: AskedQuestions = 30,
    scan_tokens: Annotated[int, _number("Tokens to time indexing on.")] = 100_000,
    rounds: Annotated[int, _number("How often to time indexing.")] = 3,
    slow_peers: Annotated[
        bool, typer.Option("--slow-peers/--no-slow-peers", help="Search rank-bm25 too.")
    ] = True,
    out: OutFolder = None,
    fresh: Fresh = False,
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


@app.command()
def inference(
    tokens: Annotated[
        list[int] | None,
        _number(
            "Tokens of a context to answer from in both ways; repeatable.",
            "4096, 8192, 16384 and 32768; of shape 0.6b the first two",
        ),
    ] = None,
    scan_tokens: Annotated[
        list[int] | None,
        _number(
            "Tokens of a context that S3 alone scans and answers from; repeatable.",
            "65536 and 131072",
        ),
    ] = None,
    shape: Annotated[
        str | None, _option("SHAPE", "A decoder with random weights: 135m or 0.6b.", "135m")
    ] = None,
    host: Annotated[
        str | None, _option("HOST", f"A causal model instead: {_CAUSAL}", "the shape")
    ] = None,
    codebook: Annotated[
        str | None,
        _option("FOLDER", "The host's codebook.", "the host's own, else random directions"),
    ] = None,
    tap: Annotated[
        str | None,
        _option("TAP", "Tap of the random directions, e.g. key.15.", "keys of the middle layer"),
    ] = None,
    token_budget: Annotated[int, _number("Tokens of evidence.")] = 1024,
    new_tokens: Annotated[int, _number("Tokens of every answer.", least=2)] = 16,
    questions: Annotated[int, _number("Questions per scan.")] = 4,
    text: Text = None,
    ask: Ask = None,
    out: OutFolder = None,
    fresh: Fresh = False,
) -> None:
    """Long contexts: scanning and answering from evidence beside a KV cache of everything."""
    from s3_retriever_bench.inference.report import show_inference
    from s3_retriever_bench.inference.run import Plan, run_inference

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
    show_inference(run_inference(plan), out)


@app.command()
def longcontext(
    data: Annotated[
        list[str] | None,
        _option(
            "SET",
            "Questions about long contexts: JSON Lines of LongBench's form, or a question set as "
            "for quality; repeatable.",
            "none",
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        _option(
            "NAME",
            "Task of public LongBench, from the Hub: narrativeqa, qasper, multifieldqa_en, "
            "hotpotqa, 2wikimqa, musique, gov_report, qmsum, triviaqa or passage_retrieval_en; "
            "repeatable.",
            "none",
        ),
    ] = None,
    host: Host = "minilm",
    codebook: CodebookFolder = None,
    kv_codebook: Annotated[
        str | None,
        _option(
            "FOLDER",
            "For hybrid-cache, dictionaries of the host's keys and values.",
            "those shipped for the host",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        _option(
            "NAME",
            "full, truncation, bm25, dense, s3, hybrid, hybrid-minilm or hybrid-cache; hybrid and "
            "hybrid-minilm also with a form of evidence, such as hybrid-section; repeatable.",
            "all but hybrid-cache, in the default form",
        ),
    ] = None,
    token_budget: Annotated[
        list[int] | None, _number("Tokens of evidence; repeatable.", "512, 1024 and 2048")
    ] = None,
    split: Split = "test",
    paragraphs: Paragraphs = 60,
    questions: SetQuestions = None,
    max_context_tokens: Annotated[
        int | None, _number("Skip questions about longer contexts.", "none skipped")
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
        _number("Tokens of a haystack; repeatable.", "4096, 8192, 16384, 32768 and 65536"),
    ] = None,
    needle_depth: Annotated[
        list[float] | None,
        _option(
            "SHARE",
            "Position of a needle, from 0 (beginning) to 1 (end); repeatable.",
            "0, 0.25, 0.5, 0.75 and 1",
        ),
    ] = None,
    needles: Annotated[int, _number("Needles at each length and depth.")] = 4,
    haystack: Annotated[
        list[Path] | None, _option("FILE", f"Text of the haystacks: {_PLAIN_OR_JSON}", _LIBRARY)
    ] = None,
    seed: Seed = 0,
    out: OutFolder = None,
    fresh: Fresh = False,
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


@app.command()
def cache(
    host: Annotated[str, _option("HOST", f"A causal model: {_CAUSAL}")] = "smollm2",
    codebook: Annotated[
        str | None,
        _option(
            "FOLDER",
            "Dictionaries of its keys and values, from s3r fit HOST --kv.",
            "those shipped for the host",
        ),
    ] = None,
    text: Text = None,
    tokens: Annotated[
        list[int] | None, _number("Tokens of a window for perplexity; repeatable.", "1024")
    ] = None,
    decode_tokens: Annotated[
        list[int] | None,
        _number("Tokens of a cache to decode with; repeatable.", "1024 and 4096"),
    ] = None,
    windows: Annotated[int, _number("Windows of each length.")] = 2,
    method: Annotated[
        list[str] | None,
        _option(
            "NAME",
            "exact, int8, int4, int3, int2, hqq-4, quanto-4, streaming, knorm, snapkv, "
            "expected-attention or atoms-8-16, also with other numbers of bits and atoms; "
            "repeatable.",
            "those without other packages",
        ),
    ] = None,
    needles: Annotated[
        int, _number("Haystacks of each length, with five needles in each.", least=0)
    ] = 0,
    answers: Annotated[
        list[str] | None,
        _option(
            "FILE",
            "Questions with contexts, as --data of longcontext; those that fit into the largest "
            "--tokens are asked; repeatable.",
            "none",
        ),
    ] = None,
    questions: SetQuestions = None,
    decode_method: Annotated[
        list[str] | None, _option("NAME", "Method to time decoding of; repeatable.", "all")
    ] = None,
    seed: Seed = 0,
    out: OutFolder = None,
    fresh: Fresh = False,
) -> None:
    """Key-value caches: perplexity, bytes and seconds a token of atoms, whole numbers, eviction."""
    from s3_retriever_bench.cache.report import show_cache
    from s3_retriever_bench.cache.run import Plan, run_cache

    plan = Plan(
        host=host,
        codebook=codebook,
        texts=text or [],
        tokens=tokens or [],
        decode_tokens=decode_tokens or [],
        windows=windows,
        methods=method or [],
        needles=needles,
        answers=answers or [],
        questions=questions,
        decode_methods=decode_method or [],
        folder=out,
        fresh=fresh,
        seed=seed,
    )
    show_cache(run_cache(plan), out)


@app.command()
def adapt(
    harmful: Annotated[
        Path,
        _option("FILE", "Harmful prompts, .jsonl with prompt and compliant_start.", default=True),
    ],
    benign: Annotated[
        Path, _option("FILE", "Ordinary prompts, .jsonl with prompt and answer.", default=True)
    ],
    contrast: Annotated[
        Path, _option("FILE", "XSTest, .jsonl with prompt and label: safe or unsafe.", default=True)
    ],
    text: Annotated[Path, _option("FILE", f"Text for perplexity: {_PLAIN_OR_JSON}", default=True)],
    host: Annotated[str, _option("HOST", f"A causal model with a chat template: {_CAUSAL}")] = (
        "smollm2"
    ),
    codebook: Annotated[str, _option("FOLDER", "The codebook with the SAE.")] = "smollm2",
    tap: Annotated[
        str, _option("TAP", "Its hidden tap; adapters are in the layers after it.")
    ] = "hidden.8",
    start: Annotated[
        list[str] | None,
        _option(
            "NAME", "lora, pissa, olora, sails or full; repeatable.", "all; --quick: lora, sails"
        ),
    ] = None,
    seeds: Annotated[int | None, _number("Seeds: 0, 1 and so on.", "3")] = None,
    steps: Annotated[int | None, _number("Training steps of 8 examples.", "12")] = None,
    prompts: Annotated[int | None, _number("Maximum prompts of each kind.", "32")] = None,
    rank: Annotated[int, _number("Rank of the adapters.")] = 8,
    rate: Annotated[
        list[float] | None,
        _option("X", "Learning rate of adapters; repeatable.", "0.001 and 0.003"),
    ] = None,
    full_rate: Annotated[float, _option("X", "Learning rate of full fine-tuning.")] = 5e-5,
    compare: Annotated[
        str,
        _option("KIND", "Examples that sails compares: answers or prompts."),
    ] = "answers",
    tokens: Annotated[str, _option("WHICH", "Where: last, first_answer or all.")] = "all",
    features: Annotated[int, _number("Features that sails chooses.")] = 32,
    quick: Annotated[
        bool, typer.Option("--quick", help="1 seed, 8 steps, 16 prompts of each kind.")
    ] = False,
    only_start: Annotated[
        int | None, _number("Train nothing; time the starts with N examples a side.", "not set")
    ] = None,
    split: Split = "test",
    out: OutFolder = None,
    fresh: Fresh = False,
) -> None:
    """Adapters: refusals learnt in a few steps by SAILS, other LoRA starts and full training."""
    from s3_retriever_bench.adapters.data import Sources
    from s3_retriever_bench.adapters.report import show_adapt, starting_table
    from s3_retriever_bench.adapters.run import STARTS, Plan, run_adapt, run_starting
    from s3_retriever_bench.shared.report import show_tables

    plan = Plan(
        Sources(harmful, benign, contrast, text),
        host=host,
        codebook=codebook,
        tap=tap,
        starts=start or (["lora", "sails"] if quick else STARTS),
        seeds=seeds or (1 if quick else 3),
        steps=steps or (8 if quick else 12),
        prompts=prompts or (16 if quick else 32),
        rank=rank,
        rates=rate or [1e-3, 3e-3],
        full_rate=full_rate,
        text_tokens=512 if quick else 1_024,
        contrast=compare,
        tokens=tokens,
        features=features,
        split=split,
        folder=out,
        fresh=fresh,
    )
    if only_start is not None:
        remark = f"sails compares {only_start} examples on each side."
        show_tables([starting_table(run_starting(plan, only_start))], remark)
    else:
        show_adapt(run_adapt(plan), out)


@app.command()
def recovery(
    seeds: Annotated[int, _number("Made-up worlds.")] = 3,
    out: Annotated[
        Path | None, _option("FOLDER", "Folder for figures and the plot.", "not written")
    ] = None,
) -> None:
    """The theory of SAILS on made-up features: subspaces found through SAEs and among neurons."""
    from s3_retriever_bench.adapters.recovery import draw_recovery, run_recovery
    from s3_retriever_bench.adapters.report import recovery_tables
    from s3_retriever_bench.shared.report import show_figures

    figures = run_recovery(seeds)
    show_figures(figures, recovery_tables(figures), out and out / "recovery.json")
    if out is not None:
        draw_recovery(figures, out / "recovery")
