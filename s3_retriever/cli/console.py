"""What goes where: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
from enum import IntEnum
from typing import Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from s3_retriever.errors import S3Error


def results() -> Console:
    """The console of results; outside a terminal it writes no colours."""
    return Console(highlight=False, markup=False, emoji=False)


def messages() -> Console:
    """The console of progress, warnings and errors."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def show_table(console: Console, table: Table) -> None:
    """Print a table; outside a terminal, without padding at the ends of lines."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def say(sentence: str) -> None:
    """Print a status line."""
    messages().print(Text(_printable(sentence), "dim"), soft_wrap=True)


def warn(sentence: str) -> None:
    """Warn that something was skipped."""
    _labelled("Warning", "yellow", sentence)


def fail(sentence: str) -> None:
    """Print why the command failed."""
    _labelled("Error", "bold red", sentence)


def write_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def log_to_stderr(verbose: bool) -> None:
    """Log messages of all libraries if verbose, otherwise only their errors."""
    handler = RichHandler(console=messages(), show_path=False)
    level = logging.INFO if verbose else logging.ERROR
    logging.basicConfig(level=level, format="%(name)s: %(message)s", handlers=[handler])


def _labelled(label: str, style: str, sentence: str) -> None:
    text = Text.assemble((f"{label}: ", style), _printable(sentence))
    messages().print(text, soft_wrap=True)


def _printable(text: str) -> str:
    """Escape lone surrogates, which file names may contain and streams refuse."""
    return text.encode(errors="backslashreplace").decode()


class ExitCode(IntEnum):
    """Exit codes of `s3r`; the parser itself exits with 2 on a wrong command line."""

    FAILED = 1
    NOTHING_FOUND = 3
    INTERRUPTED = 130


class Commands(TyperGroup):
    """The group of all commands; turns their errors into one sentence and an exit code.

    A command that keeps its progress when interrupted says so in its `KeyboardInterrupt`.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            fail(f"Interrupted. {interrupt}".rstrip())
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except S3Error as error:
            _report(ctx, str(error))
            raise typer.Exit(ExitCode.FAILED) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            _report(ctx, f"{error.filename or 'A file'}: {error.strerror or error}.")
            raise typer.Exit(ExitCode.FAILED) from None


def _report(ctx: Any, sentence: str) -> None:
    if ctx.params.get("verbose"):
        messages().print_exception()
    fail(sentence)
