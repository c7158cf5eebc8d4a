"""The commands `s3 bench …`."""

import typer

from s3_retriever_bench.commands.frameworks import frameworks
from s3_retriever_bench.commands.inference import inference
from s3_retriever_bench.commands.longcontext import longcontext
from s3_retriever_bench.commands.memory import memory
from s3_retriever_bench.commands.quality import quality
from s3_retriever_bench.commands.speed import speed

app = typer.Typer(help="Measure what this package claims.", no_args_is_help=True)

for _command in (quality, memory, frameworks, speed, inference, longcontext):
    app.command()(_command)

__all__ = ["app"]
