"""`s3 bench frameworks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from s3_retriever_bench.commands.options import CODEBOOK, HOST, OUT_FILE, write_json


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
    host: Annotated[str, HOST] = "minilm",
    codebook: Annotated[Path | None, CODEBOOK] = None,
    out: Annotated[Path | None, OUT_FILE] = None,
) -> None:
    """The integrations: how long they hold an event loop up, and what importing them costs."""
    from s3_retriever_bench.frameworks import run_frameworks

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
    write_json(figures, out)
