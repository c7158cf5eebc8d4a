"""`s3r search` and `explain`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from s3_retriever.cli import options
from s3_retriever.cli.configuring import exclusive, if_needed
from s3_retriever.cli.console import ExitCode, results, say, show_table, write_json
from s3_retriever.cli.files import none_readable, warn_skipped
from s3_retriever.cli.options import create_index, open_index
from s3_retriever.errors import InputError
from s3_retriever.files import find_files, place, read_files
from s3_retriever.printable import one_line
from s3_retriever.recipe import Recipe
from s3_retriever.types import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from s3_retriever.engine import S3Index
    from s3_retriever.engine.s3index import SearchOptions
    from s3_retriever.search import DocumentResult, Explanation, Span
    from s3_retriever.server.client import RemoteIndex

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
        "relevance": span.relevance,
        "sources": list(span.sources),
        "tokens": span.tokens,
        "text": span.text,
        "metadata": dict(span.metadata),
    }


def document_json(result: DocumentResult, found_at: Mapping[Span, str]) -> dict[str, Any]:
    """A document and its spans as JSON values."""
    return {
        "document_id": result.document_id,
        "title": result.title,
        "score": result.score,
        "relevance": result.relevance,
        "metadata": dict(result.metadata),
        "spans": [span_json(span) | {"place": found_at[span]} for span in result.spans],
    }


def places(index: S3Index | RemoteIndex, spans: Sequence[Span]) -> list[str]:
    """Where spans are: file and line, page or cell; for documents from elsewhere, their ids."""

    @cache
    def text_of(document_id: str) -> str:
        try:
            return index.get(document_id).text
        except InputError:
            return ""  # deleted since the search

    return [
        place(span.metadata, text_of(span.document_id), span.start) or span.id for span in spans
    ]


def show_spans(console: Console, spans: Sequence[Span], found_at: Sequence[str]) -> None:
    """Print spans in order, with a blank line between them."""
    for rank, (span, where) in enumerate(zip(spans, found_at, strict=True), 1):
        if rank > 1:
            console.print()
        show_heading(console, rank, span, where)
        show_text(console, Text(re.sub(r"\s+", " ", span.text)))


def show_documents(
    console: Console, documents: Sequence[DocumentResult], found_at: Mapping[Span, str]
) -> None:
    """Print documents in order, each with its spans below it."""
    for rank, document in enumerate(documents, 1):
        if rank > 1:
            console.print()
        title = one_line(document.title or document.document_id)
        console.print(Text.assemble((f"{rank}. ", "cyan"), (title, "bold")), soft_wrap=True)
        facts = f"score {document.score:.2f}, relevance {document.relevance:.2f}"
        line = f"{_INDENT}{one_line(document.document_id)}  ({facts})"
        console.print(Text(line, "dim"), soft_wrap=True)
        for span in document.spans:
            where = f"{_INDENT}{one_line(found_at[span])}  ({size(span)})"
            console.print(Text(where, "dim"), soft_wrap=True)
            show_text(console, Text(re.sub(r"\s+", " ", span.text)))


def show_heading(console: Console, rank: int, span: Span, where: str) -> None:
    """Print two lines: where a span comes from and why it was found."""
    title = one_line(str(span.metadata.get("title") or span.document_id))
    console.print(Text.assemble((f"{rank}. ", "cyan"), (title, "bold")), soft_wrap=True)
    sources = " + ".join(span.sources)
    line = f"{_INDENT}{one_line(where)}  (score {span.score:.2f}, {sources}, {size(span)})"
    console.print(Text(line, "dim"), soft_wrap=True)


def size(span: Span) -> str:
    """The length of a span, such as `12 tokens`."""
    return f"{span.tokens} token{'' if span.tokens == 1 else 's'}"


def show_text(console: Console, text: Text) -> None:
    """Print a text, wrapped and indented."""
    for line in text.wrap(console, max(min(console.width, _WIDEST) - len(_INDENT), 20)):
        line.rstrip()
        console.print(Text(_INDENT) + line, soft_wrap=True)


def search(
    context: typer.Context,
    question: options.Question,
    index: Annotated[
        str | None,
        typer.Option(
            "--in",
            metavar="INDEX",
            show_default="none",
            help=options.PLACE,
            autocompletion=options.indexes,
        ),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--files",
            metavar="PATH",
            show_default="none",
            help="File, folder (with everything below it) or glob to search without keeping an "
            "index; repeatable.",
        ),
    ] = None,
    k: options.Spans = None,
    token_budget: options.TokenBudget = None,
    min_relevance: options.MinRelevance = None,
    mode: options.ModeName = "hybrid",
    where: options.Conditions = None,
    order: options.OrderName = "score",
    group_by: options.GroupByName = None,
    spans_per_document: options.SpansPerDocument = None,
    text_around: options.ContextName = DEFAULT_CONTEXT,
    rerank: options.Rerank = None,
    rerank_host: options.RerankHost = None,
    recipe: options.SearchRecipe = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="HOST",
            show_default="the one the index was made with; minilm for --files",
            help=f"Host model: {options.HOST_NAMES}. With --in, only if it has moved.",
        ),
    ] = None,
    codebook: Annotated[
        str | None,
        typer.Option(
            "--codebook",
            metavar="DIR",
            show_default="the one the index was made with, or the host's own",
            help="The host's codebook: a folder or an id on the Hugging Face Hub. With --in, only "
            "if it has moved.",
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = "auto",
    server: options.Server = None,
    token: options.Token = None,
    as_json: options.AsJson = False,
) -> None:
    """Find the spans that answer a question, or documents, in an index, in files or on a server.

    With --in, mode bm25 does not load the host. With --server, --in is the name of an index there,
    and not needed if there is only one. Exits with code 3 if nothing is found.
    """
    index, files, server = exclusive(context, index=index, files=files, server=server)
    reads = rerank is not None and not server
    rerank_host = if_needed(context, "rerank_host", rerank_host, needed=reads)
    if server is None and (index is None) == (not files):
        raise typer.BadParameter("Give either an index with --in or files with --files.")
    if server and files:
        raise typer.BadParameter("A server searches its indexes; give either --server or --files.")
    wanted, chosen = options.conditions(where), options.recipe(recipe)
    opened: S3Index | RemoteIndex
    if server:
        opened = options.open_remote(server, index, token)
    elif index is not None:
        needs_host = mode != "bm25" or chosen is not None or rerank is not None
        opened = open_index(index, host, codebook, device, dtype, needs_host=needs_host)
    else:
        opened = _index_of(files or [], host, codebook, chosen, device, dtype)
    limits: SearchOptions = {
        "mode": mode,
        "token_budget": token_budget,
        "min_relevance": min_relevance,
        "where": wanted,
        "order": order,
        "recipe": chosen,
        "spans_per_document": spans_per_document,
        "context": text_around,
        "rerank": rerank,
        "rerank_host": options.location(rerank_host),
    }
    with opened:
        documents, spans = [], []
        if group_by is None:
            spans = opened.search(question, k, **limits)
        else:
            documents = opened.search(question, k, group_by=group_by, **limits)
            spans = [span for document in documents for span in document.spans]
        found_at = dict(zip(spans, places(opened, spans), strict=True))
    if as_json and group_by is not None:
        rows = [document_json(document, found_at) for document in documents]
        write_json({"question": question, "documents": rows})
    elif as_json:
        rows = [span_json(span) | {"place": found_at[span]} for span in spans]
        write_json({"question": question, "spans": rows})
    elif group_by is not None:
        show_documents(results(), documents, found_at)
    else:
        show_spans(results(), spans, list(found_at.values()))
    if not spans:
        say("Nothing found.")
        raise typer.Exit(ExitCode.NOTHING_FOUND)


def _index_of(
    paths: Sequence[str],
    host: str | None,
    codebook: str | None,
    recipe: str | Recipe | None,
    device: str,
    dtype: options.Dtype,
) -> S3Index:
    """An index in memory of the files that paths name."""
    found = find_files(paths)
    texts = list(read_files(found, on_skip=warn_skipped))
    if not texts:
        raise none_readable(found)
    index = create_index(None, host, codebook, recipe, device, dtype)
    index.add(texts)
    return index


_SHOWN_FEATURES = 10
_SHOWN_TOKENS = 8
# Backgrounds of the weakest and the strongest token; their text is black.
_PALE, _STRONG = (255, 249, 219), (255, 170, 0)


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """An explanation as JSON values."""
    return {
        "span": span_json(explanation.span),
        "contributions": dict(explanation.contributions),
        "bridge": None if explanation.bridge is None else span_json(explanation.bridge),
        "features": [asdict(feature) for feature in explanation.features],
        "terms": [asdict(term) for term in explanation.terms],
        "attention": [asdict(share) for share in explanation.attention],
        "tokens": [{"text": token.text, **asdict(token)} for token in explanation.tokens],
    }


def show_explanation(console: Console, rank: int, explanation: Explanation, where: str) -> None:
    """Print a span with its tokens highlighted, and what its score consists of."""
    show_heading(console, rank, explanation.span, where)
    show_text(console, _highlighted(explanation))
    _show_contributions(console, explanation)
    _show_tokens(console, explanation)
    _show_features(console, explanation)
    _show_attention(console, explanation)
    _show_terms(console, explanation)


def _show_contributions(console: Console, explanation: Explanation) -> None:
    contributions = ", ".join(
        f"{name} {value:+.2f}" for name, value in explanation.contributions.items()
    )
    if contributions:
        console.print(f"  score = {contributions}", highlight=False)
    if explanation.bridge is not None:
        text = " ".join(explanation.bridge.text.split())
        console.print(f"  by way of {explanation.bridge.id}: {text}", markup=False, highlight=False)


def _highlighted(explanation: Explanation) -> Text:
    # Replaced character by character, which keeps the offsets of the tokens.
    text = Text(re.sub(r"\s", " ", explanation.span.text))
    highest = max((token.score for token in explanation.tokens), default=0.0)
    for token in explanation.tokens:
        if token.score > 0:
            begin = explanation.span.start
            text.stylize(_background(token.score / highest), token.start - begin, token.end - begin)
    return text


def _background(strength: float) -> Style:
    """A background between pale (strength 0) and strong (1)."""
    red, green, blue = (
        round(pale + (strong - pale) * strength)
        for pale, strong in zip(_PALE, _STRONG, strict=True)
    )
    return Style(color="black", bgcolor=Color.from_rgb(red, green, blue))


def _show_tokens(console: Console, explanation: Explanation) -> None:
    best = sorted(explanation.tokens, key=lambda token: -token.score)[:_SHOWN_TOKENS]
    strongest = [f"{token.text} {token.score:.2f}" for token in best if token.score > 0]
    _show_section(console, "Strongest tokens", ", ".join(strongest) or "none")


def _show_features(console: Console, explanation: Explanation) -> None:
    console.print()
    title = "Features by share of the co-activation score"
    if not explanation.features:
        console.print(Text.assemble((f"{title}: ", "bold"), "none"), soft_wrap=True)
        return
    if len(explanation.features) > _SHOWN_FEATURES:
        title += f" (the first {_SHOWN_FEATURES} of {len(explanation.features)})"
    console.print(Text(title, "bold"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("feature", no_wrap=True)
    table.add_column("in the question", overflow="fold")
    table.add_column("in the span", overflow="fold")
    for feature in explanation.features[:_SHOWN_FEATURES]:
        table.add_row(
            f"{feature.share:.1%}",
            f"{feature.tap}/{feature.feature}",
            _quoted(feature.question_tokens),
            _quoted(feature.span_tokens),
        )
    show_table(console, table)


def _show_terms(console: Console, explanation: Explanation) -> None:
    terms = [f"{term.term} {term.share:.1%}" for term in explanation.terms]
    _show_section(console, "Words by share of the BM25 score", ", ".join(terms) or "none")


def _show_attention(console: Console, explanation: Explanation) -> None:
    """What retrieval heads look at; nothing for a recipe without heads."""
    if not explanation.attention:
        return
    pairs = [
        f"{one_line(share.question_token)} -> {one_line(share.span_token)} {share.share:.0%}"
        for share in explanation.attention[:_SHOWN_TOKENS]
    ]
    _show_section(console, "Attention, from -> at", ", ".join(pairs))


def _show_section(console: Console, title: str, text: str) -> None:
    console.print()
    console.print(Text.assemble((f"{title}: ", "bold"), text))


def _quoted(tokens: tuple[str, ...]) -> str:
    """Distinct tokens in order, on one line."""
    return " ".join(dict.fromkeys(" ".join(token.split()) for token in tokens))


def explain(
    context: typer.Context,
    question: options.Question,
    index: options.InPlace,
    rank: Annotated[
        int, typer.Option("--rank", metavar="N", min=1, help="Rank of the span; 1 is best.")
    ] = 1,
    mode: options.ModeName = "hybrid",
    where: options.Conditions = None,
    rerank: options.Rerank = None,
    rerank_host: options.RerankHost = None,
    recipe: options.SearchRecipe = None,
    host: options.MovedHost = None,
    codebook: options.MovedCodebook = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = "auto",
    server: options.Server = None,
    token: options.Token = None,
    as_json: options.AsJson = False,
) -> None:
    """Show why a span was found: the scores of its tokens, its features and its words.

    Explains the span at the given rank of a search with the same options. In a terminal, a
    stronger background marks tokens with a higher co-activation with the question.
    """
    wanted, chosen = options.conditions(where), options.recipe(recipe)
    opened = (
        options.open_remote(server, index, token)
        if server
        else open_index(index, host, codebook, device, dtype)
    )
    reads = rerank is not None and not server
    reader = options.location(if_needed(context, "rerank_host", rerank_host, needed=reads))
    spans = opened.search(
        question,
        rank,
        mode=mode,
        where=wanted,
        recipe=chosen,
        rerank=rerank,
        rerank_host=reader,
    )
    if len(spans) < rank:
        say(f"Nothing found at rank {rank}: the search found {len(spans)} spans.")
        raise typer.Exit(ExitCode.NOTHING_FOUND)
    explanation = opened.explain(
        question, spans[rank - 1], recipe=chosen, rerank=rerank, rerank_host=reader
    )
    if as_json:
        write_json({"question": question, "rank": rank, **explanation_json(explanation)})
    else:
        [where_found] = places(opened, [explanation.span])
        show_explanation(results(), rank, explanation, where_found)
