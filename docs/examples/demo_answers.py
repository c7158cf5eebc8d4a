"""Let SmolLM2 answer questions about the reference of the Python language, with citations.

The text has 14 times as many tokens as the model has positions. MiniLM finds the evidence, because
it scans several times as fast as SmolLM2 does; `LongContext("smollm2")` would find its own. Beside
it stands what the same model makes of the evidence that BM25 finds.

A model of 135 million parameters answers most questions about this text wrongly, whichever way the
evidence was found. These were picked from some 25 because at least one answer to them is right.
Run the demo with `make demo`.
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
from stdlib_corpus import language_reference

from s3_retriever import Answer, LongContext, Recipe, ScannedContext

QUESTIONS = [
    "What is the truth value of the Ellipsis object?",
    "What does the pass statement do when it is executed?",
    "Can a tuple be changed after it has been created?",
    "What does a complex number consist of?",
]
# A small model reads few good tokens better than many.
TOKEN_BUDGET = 256
MAX_NEW_TOKENS = 32

console = Console(width=100, highlight=False)


def main() -> None:
    """Scan, ask, and report the cost."""
    logging.basicConfig(level=logging.WARNING)
    documents = language_reference()
    started = time.perf_counter()
    model = LongContext("smollm2", retriever="minilm")
    loaded = time.perf_counter()
    scanned = model.scan(documents)
    seconds = time.perf_counter() - loaded
    # Without taps no model runs: BM25 finds the evidence, and the same model answers.
    lexical = LongContext(model.host, recipe=Recipe(name="bm25", taps={})).scan(documents)
    console.print(
        f"[bold]{len(documents)}[/] topics of the language reference, {lexical.tokens:,} tokens of "
        f"SmolLM2: scanned in {seconds:.1f} s; models loaded in {loaded - started:.1f} s.\n"
    )
    for question in QUESTIONS:
        ask(question, scanned, lexical)
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    console.print(Rule())
    console.print(f"Peak resident memory {peak / 2**20:,.0f} MiB.")


def ask(question: str, scanned: ScannedContext, lexical: ScannedContext) -> None:
    """Print the answer with its citations, next to the answer from BM25's evidence."""
    console.print(Rule(f"[bold]{question}", align="left"))
    table = Table.grid(padding=(0, 2))
    table.add_column(width=7, style="dim")
    table.add_column(width=90)
    answer, seconds = timed_answer(question, scanned)
    table.add_row("S3", Text(one_line(answer.text), style="bold"))
    for citation in answer.citations[:2]:
        span = citation.span
        where = Text(f"{span.document_id} {span.start:,}: ", style="cyan")
        table.add_row("cites", where.append(one_line(span.text), style="default"))
    other, other_seconds = timed_answer(question, lexical)
    table.add_row("BM25", Text(one_line(other.text), style="dim"))
    console.print(table)
    console.print(
        f"[dim]{answer.prompt_tokens} and {other.prompt_tokens} tokens read, "
        f"answered in {seconds:.1f} and {other_seconds:.1f} s.[/]\n"
    )


def timed_answer(question: str, scanned: ScannedContext) -> tuple[Answer, float]:
    """An answer, and the seconds it took."""
    started = time.perf_counter()
    answer = scanned.answer(question, token_budget=TOKEN_BUDGET, max_new_tokens=MAX_NEW_TOKENS)
    return answer, time.perf_counter() - started


def one_line(text: str) -> str:
    """A text without line breaks."""
    return " ".join(text.split())


if __name__ == "__main__":
    main()
