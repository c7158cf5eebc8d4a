"""`s3r answer`: answer a question about texts that the model could not read at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from s3_retriever.cli import options
from s3_retriever.cli.console import ExitCode, results, say, write_json
from s3_retriever.cli.files import none_readable, warn_skipped
from s3_retriever.cli.options import prepare
from s3_retriever.cli.searching import show_text, size, span_json
from s3_retriever.errors import InputError
from s3_retriever.files import (
    FoundFile,
    FoundFiles,
    SkippedFile,
    UnreadableError,
    check_readable,
    find_files,
    is_utf8,
    read_files,
    read_text,
    reader_for,
)
from s3_retriever.printable import one_line
from s3_retriever.recipe import Recipe
from s3_retriever.types import DEFAULT_CONTEXT, ContextForm, Refresh, check_refresh

if TYPE_CHECKING:
    from s3_retriever.answer import Answer, AnswerStream, LongContext
    from s3_retriever.document import Document


# What retrieves for a host without a codebook.
Fallback = Literal["bm25"]


def answer(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="The context: files, folders and globs. Plain text may be of any length.",
        ),
    ],
    question: Annotated[str, typer.Option("--question", metavar="TEXT", help="Any text.")],
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="HOST",
            help="A causal model: a local folder, or a model id on the Hugging Face Hub.",
        ),
    ],
    retriever: Annotated[
        str | None,
        typer.Option(
            "--retriever",
            metavar="HOST",
            show_default="the host itself",
            help="Another host that finds the evidence, such as minilm.",
        ),
    ] = None,
    codebook: options.CodebookName = None,
    recipe: options.RecipeName = None,
    fallback: Annotated[
        Fallback | None,
        typer.Option(
            "--fallback",
            metavar="bm25",
            show_default="an error",
            help="For a host without a codebook: retrieve by words and the edges of the context.",
        ),
    ] = None,
    token_budget: Annotated[
        int | None,
        typer.Option(
            "--token-budget",
            metavar="N",
            min=1,
            show_default="256 for a host of less than a billion parameters, else 1024",
            help="Maximum tokens of evidence to read.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int,
        typer.Option("--max-new-tokens", metavar="N", min=1, help="Maximum tokens of the answer."),
    ] = 256,
    min_relevance: Annotated[
        float | None,
        typer.Option(
            "--min-relevance",
            metavar="R",
            min=0.0,
            max=1.0,
            show_default="0.05, or 0 for a retriever whose relevance is not known",
            help="Leave out evidence of a lower relevance, 0 to 1.",
        ),
    ] = None,
    refresh: Annotated[
        str | None,
        typer.Option(
            "--refresh",
            metavar="N|uncertain",
            show_default="never",
            help="Search again after every N tokens of the answer, or before each token that the "
            "model is not sure of, with what is written so far.",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            show_default="a plain one",
            help="A template with {context} and {question}.",
        ),
    ] = None,
    context: options.ContextName = DEFAULT_CONTEXT,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="PATH",
            show_default="no",
            help="Keep the scan in this folder for further questions and s3r search.",
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = "auto",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only the answer, without its evidence.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Answer a question from files of any length, in bounded memory.

    The model is loaded once: it scans the files window by window, keeping no KV cache, and then
    answers from the evidence alone. With --keep, an interrupted scan continues where it stopped,
    and the next question about the same files needs no scan. If nothing in the files is relevant to
    the question, the model is not asked, and the exit code is 3.
    """
    pauses = _refresh(refresh)
    chosen, readable = options.recipe(recipe), _readable(find_files(files))
    model = _load(host, retriever, codebook, chosen or "default", fallback, context, device, dtype)
    try:
        with model.stream(
            question,
            _context(readable),
            path=keep,
            token_budget=token_budget,
            max_new_tokens=max_new_tokens,
            min_relevance=min_relevance,
            refresh=pauses,
            prompt=prompt,
        ) as stream:
            _give(question, stream, quiet, as_json)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(keep)) from None


def _load(
    host: str,
    retriever: str | None,
    codebook: str | None,
    recipe: str | Recipe,
    fallback: Fallback | None,
    context: ContextForm,
    device: str,
    dtype: options.Dtype,
) -> LongContext:
    prepare()
    from s3_retriever.answer import LongContext

    return LongContext(
        options.location(host) or host,
        retriever=options.location(retriever),
        codebook=options.location(codebook),
        recipe=recipe,
        fallback=fallback,
        context=context,
        device=device,
        dtype=dtype,
    )


def _refresh(text: str | None) -> Refresh | None:
    """A number of tokens, or `uncertain`.

    Raises:
        typer.BadParameter: It is neither.
    """
    try:
        return check_refresh(int(text) if text and text.isdecimal() else text)
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint="--refresh") from None


def _readable(found: FoundFiles) -> list[FoundFile]:
    """The readable files; warns about others."""
    readable = [file for file in found.files if _is_readable(file)]
    if not readable:
        raise none_readable(found)
    return readable


def _is_readable(file: FoundFile) -> bool:
    try:
        check_readable(file.path)
    except UnreadableError as error:
        warn_skipped(SkippedFile(file.path, str(error), file.named))
        return False
    return True


def _context(files: Sequence[FoundFile]) -> Iterator[Path | Document]:
    """Plain texts as paths, to be read in blocks; other files as documents."""
    for file in files:
        if reader_for(file.path) is read_text and is_utf8(file.path):
            yield file.path
        else:
            yield from read_files(FoundFiles([file]), on_skip=warn_skipped)


def _give(question: str, stream: AnswerStream, quiet: bool, as_json: bool) -> None:
    """Print the answer as it comes, then its evidence; or all of it as JSON at the end."""
    if as_json:
        write_json(_json(question, stream.answer))
    else:
        console = results()
        for piece in stream:
            console.print(Text(piece), end="", soft_wrap=True)
        console.print()
        if not quiet:
            _show_evidence(console, stream.answer)
    if not stream.answer.found:
        say(
            "Nothing in the files is relevant to the question; rephrase it, or pass "
            "--min-relevance 0."
        )
        raise typer.Exit(ExitCode.NOTHING_FOUND)


def _show_evidence(console: Console, answer: Answer) -> None:
    """Print the numbered evidence; what the answer's words come from is marked as cited."""
    cited = {citation.span.id for citation in answer.citations}
    for number, span in enumerate(answer.evidence, 1):
        facts = [" + ".join(span.sources) or "whole", size(span), *["cited"] * (span.id in cited)]
        console.print()
        head = f"[{number}] {one_line(span.id)}  ({', '.join(facts)})"
        console.print(Text(head, "dim"), soft_wrap=True)
        show_text(console, Text(" ".join(span.text.split())))


def _json(question: str, answer: Answer) -> dict[str, object]:
    return {
        "question": question,
        "answer": answer.text,
        "found": answer.found,
        "evidence": [span_json(span) for span in answer.evidence],
        "citations": [
            {
                "start": citation.start,
                "end": citation.end,
                "evidence": answer.evidence.index(citation.span),
                "support": round(citation.support, 3),
            }
            for citation in answer.citations
        ],
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": answer.new_tokens,
        "retrieval_seconds": round(answer.retrieval_seconds, 3),
        "generation_seconds": round(answer.generation_seconds, 3),
    }


def _kept(keep: Path | None) -> str:
    if keep is not None and (keep / "manifest.json").exists():
        return f"The scan is kept in {keep}; the same command continues from there."
    return ""
