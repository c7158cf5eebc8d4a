"""`s3 search`, `ask` and `explain`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from s3_retriever.cli import options
from s3_retriever.cli.console import ExitCode, results, say, show_table, write_json
from s3_retriever.cli.files import Counts, documents, find_files
from s3_retriever.cli.options import create_index, open_index
from s3_retriever.errors import InputError

if TYPE_CHECKING:
    from s3_retriever.search import Explanation, Span


# Wider lines are hard to read.
_WIDEST = 100
_INDENT = "   "


def span_json(span: Span) -> dict[str, Any]:
    """A span as JSON values."""
    return {
        "id": span.id,
        "document_id": span.document_id,
        "start": span.start,
        "end": span.end,
        "score": span.score,
        "sources": list(span.sources),
        "tokens": span.tokens,
        "text": span.text,
        "metadata": dict(span.metadata),
    }


def show_spans(console: Console, spans: Sequence[Span]) -> None:
    """Print spans, best first, with a blank line between."""
    for rank, span in enumerate(spans, 1):
        if rank > 1:
            console.print()
        show_heading(console, rank, span)
        show_text(console, Text(re.sub(r"\s+", " ", span.text)))


def show_heading(console: Console, rank: int, span: Span) -> None:
    """Print where a span is from and why it was found, on two lines."""
    title = " ".join(str(span.metadata.get("title") or span.document_id).split())
    console.print(Text.assemble((f"{rank}. ", "cyan"), (title, "bold")), soft_wrap=True)
    size = f"{span.tokens} token{'' if span.tokens == 1 else 's'}"
    facts = f"score {span.score:.2f}, {' + '.join(span.sources)}, {size}"
    console.print(Text(f"{_INDENT}{span.id}  ({facts})", "dim"), soft_wrap=True)


def show_text(console: Console, text: Text) -> None:
    """Print a text, wrapped and indented."""
    for line in _lines(console, text):
        console.print(Text(_INDENT) + line, soft_wrap=True)


def _lines(console: Console, text: Text) -> Iterator[Text]:
    for line in text.wrap(console, max(min(console.width, _WIDEST) - len(_INDENT), 20)):
        line.rstrip()
        yield line


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
    wanted, chosen = options.conditions(where), options.recipe(recipe)
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


def ask(
    question: options.Question,
    paths: options.Paths,
    host: options.HostName = None,
    codebook: options.CodebookName = None,
    k: options.Spans = None,
    budget: options.Budget = None,
    mode: options.ModeName = options.Mode.hybrid,
    device: options.Device = "auto",
    dtype: options.DtypeName = options.Dtype.auto,
    as_json: options.AsJson = False,
) -> None:
    """Search files at once, without keeping an index.

    Exit code 3 says that nothing was found.
    """
    files = find_files(paths)
    texts = list(documents(files, Counts()))
    if not texts:
        raise InputError(f"None of the {len(files)} files could be read.")
    with create_index(None, host, codebook, None, device, dtype) as index:
        index.add(texts)
        give(question, index.search(question, k, mode=mode.value, token_budget=budget), as_json)


_SHOWN_FEATURES = 10
_SHOWN_TOKENS = 8
# From the palest to the strongest background; the text on it is black.
_PALE, _STRONG = (255, 249, 219), (255, 170, 0)


def explanation_json(found: Explanation) -> dict[str, Any]:
    """An explanation as JSON values."""
    return {
        "span": span_json(found.span),
        "parts": dict(found.contributions),
        "bridge": None if found.bridge is None else span_json(found.bridge),
        "features": [asdict(feature) for feature in found.features],
        "terms": [asdict(term) for term in found.terms],
        "tokens": [{"text": token.text, **asdict(token)} for token in found.tokens],
    }


def show_explanation(console: Console, rank: int, found: Explanation) -> None:
    """Print a span with its tokens highlighted, and what its score is made of."""
    show_heading(console, rank, found.span)
    show_text(console, _highlighted(found))
    _show_parts(console, found)
    _show_tokens(console, found)
    _show_features(console, found)
    _show_terms(console, found)


def _show_parts(console: Console, found: Explanation) -> None:
    parts = ", ".join(f"{source} {part:+.2f}" for source, part in found.contributions.items())
    if parts:
        console.print(f"  score = {parts}", highlight=False)
    if found.bridge is not None:
        text = " ".join(found.bridge.text.split())
        console.print(f"  by way of {found.bridge.id}: {text}", markup=False, highlight=False)


def _highlighted(found: Explanation) -> Text:
    # Characters are replaced one by one, so that the tokens' offsets still hold.
    text = Text(re.sub(r"\s", " ", found.span.text))
    highest = max((token.score for token in found.tokens), default=0.0)
    for token in found.tokens:
        if token.score > 0:
            begin = found.span.start
            text.stylize(_background(token.score / highest), token.start - begin, token.end - begin)
    return text


def _background(strength: float) -> Style:
    """A background between pale and strong, for a strength of 0 to 1."""
    red, green, blue = (
        round(pale + (strong - pale) * strength)
        for pale, strong in zip(_PALE, _STRONG, strict=True)
    )
    return Style(color="black", bgcolor=Color.from_rgb(red, green, blue))


def _show_tokens(console: Console, found: Explanation) -> None:
    best = sorted(found.tokens, key=lambda token: -token.score)[:_SHOWN_TOKENS]
    strongest = [f"{token.text} {token.score:.2f}" for token in best if token.score > 0]
    _show_section(console, "Strongest tokens", ", ".join(strongest) or "none")


def _show_features(console: Console, found: Explanation) -> None:
    console.print()
    title = "Features by share of the co-activation score"
    if not found.features:
        console.print(Text.assemble((f"{title}: ", "bold"), "none"), soft_wrap=True)
        return
    if len(found.features) > _SHOWN_FEATURES:
        title += f" (the first {_SHOWN_FEATURES} of {len(found.features)})"
    console.print(Text(title, "bold"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("feature", no_wrap=True)
    table.add_column("in the question", overflow="fold")
    table.add_column("in the span", overflow="fold")
    for feature in found.features[:_SHOWN_FEATURES]:
        table.add_row(
            f"{feature.share:.1%}",
            f"{feature.tap}/{feature.feature}",
            _quoted(feature.question_tokens),
            _quoted(feature.span_tokens),
        )
    show_table(console, table)


def _show_terms(console: Console, found: Explanation) -> None:
    terms = [f"{term.term} {term.share:.1%}" for term in found.terms]
    _show_section(console, "Words by share of the BM25 score", ", ".join(terms) or "none")


def _show_section(console: Console, title: str, text: str) -> None:
    console.print()
    console.print(Text.assemble((f"{title}: ", "bold"), text))


def _quoted(tokens: tuple[str, ...]) -> str:
    """Distinct tokens in order, on one line."""
    return " ".join(dict.fromkeys(" ".join(token.split()) for token in tokens))


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
    wanted, chosen = options.conditions(where), options.recipe(recipe)
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
