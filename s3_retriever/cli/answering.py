"""`s3 answer`: a question about texts that are longer than the model could read at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from s3_retriever.cli import options
from s3_retriever.cli.console import results, warn, write_json
from s3_retriever.cli.files import Counts, FoundFile, documents, find_files
from s3_retriever.cli.options import prepare
from s3_retriever.cli.readers import UnreadableError, check_head, read_text, reader_for
from s3_retriever.cli.searching import show_text, span_json
from s3_retriever.errors import InputError
from s3_retriever.recipe import Recipe

if TYPE_CHECKING:
    from s3_retriever.answer import Answer, AnswerStream, LongContext
    from s3_retriever.document import Document
    from s3_retriever.search import Span


class Fallback(str, Enum):
    """What retrieves where the host has no codebook."""

    bm25 = "bm25"


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
    codebook: options.CodebookName = None,
    recipe: options.RecipeName = None,
    fallback: Annotated[
        Fallback | None,
        typer.Option(
            "--fallback",
            metavar="bm25",
            show_default="an error",
            help="Where the host has no codebook, retrieve by words and the context's edges.",
        ),
    ] = None,
    token_budget: Annotated[
        int,
        typer.Option(
            "--token-budget", metavar="N", min=1, help="Tokens of evidence that the host reads."
        ),
    ] = 1024,
    max_new_tokens: Annotated[
        int,
        typer.Option("--max-new-tokens", metavar="N", min=1, help="Tokens of the answer at most."),
    ] = 256,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            show_default="a plain one",
            help="A text with {context} and {question}.",
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="PATH",
            show_default="no",
            help="Keep the scan in a folder, which further questions and s3 search read.",
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = options.Dtype.auto,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only the answer, without its evidence.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Answer a question from files of any length, on bounded memory.

    The model is loaded once: it scans the files window by window, keeping no KV cache, and then
    answers from the evidence alone. With --keep, an interrupted scan goes on where it was, and
    the same files are not scanned again for the next question.
    """
    chosen, found = options.recipe(recipe), _readable(find_files(files))
    model = _load(host, codebook, chosen or "default", fallback, device, dtype)
    try:
        with model.stream(
            question,
            _context(found),
            path=keep,
            token_budget=token_budget,
            max_new_tokens=max_new_tokens,
            prompt=prompt,
        ) as stream:
            _give(question, stream, quiet, as_json)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(keep)) from None


def _load(
    host: str,
    codebook: str | None,
    recipe: str | Recipe,
    fallback: Fallback | None,
    device: str,
    dtype: options.Dtype,
) -> LongContext:
    prepare()
    from s3_retriever.answer import LongContext

    return LongContext(
        options.location(host) or host,
        codebook=options.location(codebook),
        recipe=recipe,
        fallback="bm25" if fallback else None,
        device=device,
        dtype=dtype.value,
    )


def _readable(files: Sequence[FoundFile]) -> list[FoundFile]:
    """The files that are not binary where text is expected."""
    readable = [file for file in files if _is_readable(file)]
    if not readable:
        raise InputError(f"None of the {len(files)} files could be read.")
    return readable


def _is_readable(file: FoundFile) -> bool:
    try:
        check_head(file.path)
    except UnreadableError as error:
        if file.named:
            warn(f"{file.path} is skipped: {error}")
        return False
    return True


def _context(files: Sequence[FoundFile]) -> Iterator[Path | Document]:
    """Plain texts by their paths, so that they are read in blocks; what other files say."""
    for file in files:
        if reader_for(file.path) is read_text:
            yield file.path
        else:
            yield from documents([file], Counts())


def _give(question: str, stream: AnswerStream, quiet: bool, as_json: bool) -> None:
    """The answer as it comes, then its evidence; or all of it as JSON at the end."""
    if as_json:
        write_json(_json(question, stream.answer))
        return
    console = results()
    for piece in stream:
        console.print(Text(piece), end="", soft_wrap=True)
    console.print()
    if not quiet:
        _show_evidence(console, stream.evidence)


def _show_evidence(console: Console, spans: Sequence[Span]) -> None:
    for span in spans:
        size = f"{span.tokens} token{'' if span.tokens == 1 else 's'}"
        facts = ", ".join([" + ".join(span.sources) or "whole", size])
        console.print()
        console.print(Text(f"{span.id}  ({facts})", "dim"), soft_wrap=True)
        show_text(console, Text(" ".join(span.text.split())))


def _json(question: str, answer: Answer) -> dict[str, object]:
    return {
        "question": question,
        "answer": answer.text,
        "evidence": [span_json(span) for span in answer.evidence],
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": answer.new_tokens,
        "retrieval_seconds": round(answer.retrieval_seconds, 3),
        "generation_seconds": round(answer.generation_seconds, 3),
    }


def _kept(keep: Path | None) -> str:
    if keep is not None and (keep / "manifest.json").exists():
        return f"The scan is kept in {keep}; the same command goes on from there."
    return ""
