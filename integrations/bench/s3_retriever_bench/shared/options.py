"""Options that several commands of `s3r bench` have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from s3_retriever import types


def option(metavar: str, text: str, default: str | bool = True, **settings: Any) -> Any:
    """An option that takes a value; `default` describes a default that is not a value."""
    return typer.Option(metavar=metavar, help=text, show_default=default, **settings)


def number(text: str, default: str | bool = True, least: int = 1) -> Any:
    """An option that takes a whole number."""
    return option("N", text, default, min=least)


PLAIN_OR_JSON = "plain, or .jsonl with text and optionally title in each line; repeatable."
LIBRARY = "the standard library's source"
CAUSAL = "smollm2, a local folder, or a model id on the Hugging Face Hub."
Host = Annotated[str, option("HOST", f"minilm, {CAUSAL}")]
CodebookFolder = Annotated[
    str | None, option("FOLDER", "The host's codebook.", "the host's shipped codebook")
]
Text = Annotated[list[Path] | None, option("FILE", f"Text to read: {PLAIN_OR_JSON}", LIBRARY)]
Ask = Annotated[
    Path | None,
    option(
        "FILE",
        "Questions: one per line, or .jsonl with question in each line.",
        "questions made from the text",
    ),
]
AskedQuestions = Annotated[int, number("Maximum questions.")]
Split = Annotated[types.Split, option("SPLIT", "What is asked: test, dev (for tuning) or all.")]
SetQuestions = Annotated[int | None, number("Maximum questions of a set or task.", "all")]
Paragraphs = Annotated[int, number("Paragraphs of a mixed context.")]
Corpus = Annotated[
    int | None, number("Maximum documents of a shared corpus, evidence first.", "all")
]
Seed = Annotated[int, number("Seed of what is drawn and of resampling.", least=0)]
OutFile = Annotated[Path | None, option("FILE", "JSON file for the figures.", "not written")]
OutFolder = Annotated[
    Path | None,
    option(
        "FOLDER",
        "Folder for figures, tables and plots; an interrupted run resumes there.",
        "not written",
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Measure again what the folder already holds.")
]
