"""Index the documentation of Python's standard library and ask it five questions.

The questions use mostly other words than the sentences that answer them. BM25 prefers other
sentences; the host's features find the right ones. The questions were picked to show this, and
docs/benchmarks measures how often it works. Run the demo with `make demo`.
"""

from __future__ import annotations

import logging
import resource
import sys
import time

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text
from stdlib_corpus import stdlib_documents

from s3_retriever import S3Index, Span

QUESTIONS = [
    "Remember earlier results of a slow function",
    "Find out whether two files have the same content",
    "Delete a folder with everything in it",
    "Smallest items of a large collection",
    "Number of processors of this computer",
]

console = Console(width=100, highlight=False)


def main() -> None:
    """Index, ask, and report the cost."""
    logging.basicConfig(level=logging.WARNING)
    documents = stdlib_documents()
    modules = {document.metadata["module"] for document in documents}
    started = time.perf_counter()
    index = S3Index.create(host="minilm")
    loaded = time.perf_counter()
    index.add(documents)
    scanned = time.perf_counter()
    stats = index.stats()
    console.print(
        f"[bold]{len(documents):,}[/] functions and classes of [bold]{len(modules)}[/] modules, "
        f"{stats['tokens']:,} tokens: scanned in {scanned - loaded:.1f} s "
        f"({stats['tokens'] / (scanned - loaded):,.0f} tokens/s); "
        f"host loaded in {loaded - started:.1f} s; "
        f"index {stats['bytes'] / 2**20:.1f} MiB.\n"
    )
    for question in QUESTIONS:
        ask(index, question)
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    console.print(Rule())
    console.print(f"Peak resident memory {peak / 2**20:,.0f} MiB.")


def ask(index: S3Index, question: str) -> None:
    """Print the best evidence, its tokens highlighted by score, next to BM25's best."""
    started = time.perf_counter()
    spans = index.search(question, k=3, mode="s3")
    seconds = time.perf_counter() - started
    lexical = index.search(question, k=1, mode="bm25")
    console.print(Rule(f"[bold]{question}", align="left"))
    table = Table.grid(padding=(0, 2))
    table.add_column(width=7, style="dim")
    table.add_column(width=26, style="cyan", overflow="fold")
    table.add_column()
    for rank, span in enumerate(spans, 1):
        table.add_row(f"S3 {rank}", span.document_id, highlighted(index, question, span))
    for span in lexical:
        table.add_row("BM25 1", span.document_id, Text(one_line(span.text), style="dim"))
    console.print(table)
    explained = index.explain(question, spans[0])
    matched = ", ".join(term.term for term in explained.terms)
    brightest = sorted(explained.tokens, key=lambda token: -token.score)[:3]
    tokens = ", ".join(token.text for token in brightest)
    console.print(
        f"[dim]Words shared by question and first span: {matched or 'none'}. "
        f"Tokens that co-activate most: {tokens}. Found in {seconds * 1000:.0f} ms.[/]\n"
    )


def highlighted(index: S3Index, question: str, span: Span) -> Text:
    """A span's text, with tokens brighter the more their features co-activate with the question."""
    text = Text(one_line(span.text))
    tokens = index.explain(question, span).tokens
    top = max((token.score for token in tokens), default=0.0) or 1.0
    for token in tokens:
        if token.score > 0.35 * top:
            style = "bold yellow" if token.score > 0.7 * top else "yellow"
            text.stylize(style, token.start - span.start, token.end - span.start)
    return text


def one_line(text: str) -> str:
    """Replace each white-space character with a space, which keeps offsets valid."""
    return "".join(" " if character.isspace() else character for character in text)


if __name__ == "__main__":
    main()
