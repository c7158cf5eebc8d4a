"""`s3 search`: spans of an index that answer a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from s3_retriever.cli import options, values
from s3_retriever.cli.console import results, say, write_json
from s3_retriever.cli.failures import ExitCode
from s3_retriever.cli.loading import open_index
from s3_retriever.cli.spans_view import show_spans, span_json

if TYPE_CHECKING:
    from s3_retriever.search import Span


def search(
    question: options.Question,
    index: options.In,
    k: options.Spans = None,
    budget: options.Budget = None,
    mode: options.ModeName = options.Mode.hybrid,
    where: options.Conditions = None,
    order: options.OrderName = options.Order.score,
    recipe: options.SearchRecipe = None,
    host: options.MovedHost = None,
    codebook: options.MovedCodebook = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = options.Dtype.auto,
    as_json: options.AsJson = False,
) -> None:
    """Find the spans of an index that answer a question.

    Exit code 3 says that nothing was found.
    """
    wanted, chosen = values.conditions(where), values.recipe(recipe)
    spans = open_index(index, host, codebook, device, dtype).search(
        question,
        k,
        mode=mode.value,
        token_budget=budget,
        where=wanted,
        order=order.value,
        recipe=chosen,
    )
    give(question, spans, as_json)


def give(question: str, spans: Sequence[Span], as_json: bool) -> None:
    """Print what was found, or end the command with the exit code that says nothing was."""
    if as_json:
        write_json({"question": question, "spans": [span_json(span) for span in spans]})
    else:
        show_spans(results(), spans)
    if not spans:
        say("Nothing found.")
        raise typer.Exit(ExitCode.NOTHING_FOUND)
