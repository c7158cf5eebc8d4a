"""The commands `serve`, `cluster`, `build` and `frameworks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3_retriever.errors import S3Error
from s3_retriever_bench.shared import options


def build(
    characters: Annotated[
        list[int] | None, options.number("Characters to index; repeatable.", "1000000")
    ] = None,
    workers: Annotated[list[int] | None, options.number("Workers; repeatable.", "1 and 2")] = None,
    host: options.Host = "minilm",
    codebook: options.CodebookFolder = None,
    recipe: Annotated[str, options.option("RECIPE", "default, paper, or a JSON file.")] = "default",
    text: options.Text = None,
    out: options.OutFile = None,
) -> None:
    """Speed and memory of cluster.build, by workers of one thread; needs the extra ray."""
    from s3_retriever.cli.options import recipe as read_recipe
    from s3_retriever_bench.serving.build import run_building
    from s3_retriever_bench.serving.report import building_tables
    from s3_retriever_bench.shared.report import show_figures

    figures = run_building(
        characters or [1_000_000],
        workers or [1, 2],
        host=host,
        codebook=codebook,
        recipe=read_recipe(recipe) or "default",
        texts=text or [],
    )
    show_figures(figures, building_tables(figures), out)


def serve(
    clients: Annotated[int, options.number("Clients that search at once.")] = 32,
    seconds: Annotated[float, options.option("S", "Seconds of load.", min=1.0)] = 60.0,
    tokens: Annotated[int, options.number("Tokens of the index.")] = 100_000,
    host: options.Host = "minilm",
    codebook: options.CodebookFolder = None,
    text: options.Text = None,
    ask: options.Ask = None,
    questions: options.AskedQuestions = 100,
    page: Annotated[
        bool,
        typer.Option("--page", help="Also how soon the page shows 1,000 spans, in Chromium."),
    ] = False,
    out: options.OutFile = None,
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


def cluster(
    index: Annotated[
        Path | None, options.option("FOLDER", "An index to search.", "made of the text")
    ] = None,
    tokens: Annotated[int, options.number("Tokens of the index that is made.")] = 1_000_000,
    shards: Annotated[int, options.number("Workers that share it.")] = 4,
    clients: Annotated[int, options.number("Searches at once.")] = 8,
    seconds: Annotated[float, options.option("S", "Seconds of load.", min=1.0)] = 20.0,
    kills: Annotated[int, options.number("Workers to kill during searches.", least=0)] = 25,
    host: options.Host = "minilm",
    codebook: options.CodebookFolder = None,
    text: options.Text = None,
    ask: options.Ask = None,
    questions: options.AskedQuestions = 50,
    out: options.OutFile = None,
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


def frameworks(
    calls: Annotated[int, options.number("Questions to ask at once.")] = 64,
    rounds: Annotated[int, options.number("How often to ask them.")] = 4,
    imports: Annotated[int, options.number("Fresh processes that import each integration.")] = 5,
    host: options.Host = "minilm",
    codebook: options.CodebookFolder = None,
    out: options.OutFile = None,
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
