"""Options that several of these commands have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

HOST = typer.Option(metavar="HOST", help="minilm, a folder, or a model id on the Hugging Face Hub.")
CODEBOOK = typer.Option(
    metavar="FOLDER", help="The host's codebook; the shipped one where left out."
)
ASK = typer.Option(
    metavar="FILE",
    help="Questions: a line each, or .jsonl with question in each line. Made from the text "
    "where left out.",
)
OUT_FILE = typer.Option("--out", metavar="FILE", help="Write the figures to this file as JSON.")
FRESH = typer.Option("--fresh", help="Measure again what the folder has already.")


def out_folder(what: str) -> Any:
    """The option `--out` of a command that writes several files."""
    return typer.Option(
        "--out",
        metavar="FOLDER",
        help=f"Write {what} here; a run that was interrupted goes on.",
    )


def write_json(figures: dict[str, Any], out: Path | None) -> None:
    """Write figures where a file is given."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(figures, indent=2) + "\n")
