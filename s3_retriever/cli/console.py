"""What goes where: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
from typing import Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text


def results() -> Console:
    """The console of results. Colours and wide lines are left out where it is no terminal."""
    return Console(highlight=False, markup=False, emoji=False)


def messages() -> Console:
    """The console of progress, warnings and errors."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def show_table(console: Console, table: Table) -> None:
    """Print a table, without the white space that fills its lines where it is no terminal."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def say(sentence: str) -> None:
    """Tell how things stand."""
    messages().print(Text(_printable(sentence), "dim"), soft_wrap=True)


def warn(sentence: str) -> None:
    """Tell of something that was left out."""
    _labelled("Warning", "yellow", sentence)


def fail(sentence: str) -> None:
    """Tell why the command ends here."""
    _labelled("Error", "bold red", sentence)


def write_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def log_to_stderr(verbose: bool) -> None:
    """Show log messages of every library where asked to, else only their errors."""
    handler = RichHandler(console=messages(), show_path=False)
    level = logging.INFO if verbose else logging.ERROR
    logging.basicConfig(level=level, format="%(name)s: %(message)s", handlers=[handler])


def _labelled(label: str, style: str, sentence: str) -> None:
    text = Text.assemble((f"{label}: ", style), _printable(sentence))
    messages().print(text, soft_wrap=True)


def _printable(text: str) -> str:
    """A text without lone surrogates, which file names may have and streams refuse."""
    return text.encode(errors="backslashreplace").decode()
