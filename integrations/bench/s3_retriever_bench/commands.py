"""The commands `s3r bench ...`.

`quality`, `retrieval` and `longcontext` measure users' own data and hosts, `cache` and `adapt` the
other methods; `speed`, `memory`, `startup`, `serve`, `cluster`, `inference` and `frameworks` check
what this project claims. Each imports its benchmark when it runs, to keep the command line quick.
"""

from __future__ import annotations

import typer

from s3_retriever_bench.adapters.commands import adapt, recovery
from s3_retriever_bench.cache.commands import cache
from s3_retriever_bench.inference.commands import inference
from s3_retriever_bench.longcontext.commands import longcontext
from s3_retriever_bench.retrieval.commands import quality, relevance, retrieval
from s3_retriever_bench.serving.commands import build, cluster, frameworks, serve
from s3_retriever_bench.speed.commands import memory, speed, startup

app = typer.Typer(help="Measure what this package claims.", no_args_is_help=True)
for _command in (
    quality,
    relevance,
    retrieval,
    memory,
    build,
    serve,
    cluster,
    frameworks,
    startup,
    speed,
    inference,
    longcontext,
    cache,
    adapt,
    recovery,
):
    app.command()(_command)
