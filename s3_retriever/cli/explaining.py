"""`s3 explain`: why a span was found."""

from __future__ import annotations

from typing import Annotated

import typer

from s3_retriever.cli import options, values
from s3_retriever.cli.console import results, say, write_json
from s3_retriever.cli.explanation_view import explanation_json, show_explanation
from s3_retriever.cli.failures import ExitCode
from s3_retriever.cli.loading import open_index


def explain(
    question: options.Question,
    index: options.In,
    rank: Annotated[
        int, typer.Option("--rank", metavar="N", min=1, help="Which span of the search: 1 is best.")
    ] = 1,
    mode: options.ModeName = options.Mode.hybrid,
    where: options.Conditions = None,
    recipe: options.SearchRecipe = None,
    host: options.MovedHost = None,
    codebook: options.MovedCodebook = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = options.Dtype.auto,
    as_json: options.AsJson = False,
) -> None:
    """Show why a span was found: its tokens' scores, its features and its words.

    Takes the span of that rank from the search that the same options give. In a terminal, the
    stronger a token's background, the higher its co-activation with the question.
    """
    wanted, chosen = values.conditions(where), values.recipe(recipe)
    opened = open_index(index, host, codebook, device, dtype)
    spans = opened.search(question, rank, mode=mode.value, where=wanted, recipe=chosen)
    if len(spans) < rank:
        say(f"Nothing found at rank {rank}; the search gives {len(spans)} spans.")
        raise typer.Exit(ExitCode.NOTHING_FOUND)
    found = opened.explain(question, spans[rank - 1], recipe=chosen)
    if as_json:
        write_json({"question": question, "rank": rank, **explanation_json(found)})
    else:
        show_explanation(results(), rank, found)
