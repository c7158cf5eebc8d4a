"""What goes where: results to stdout, everything else to stderr."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.logging import RichHandler
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from s3_retriever.errors import S3Error
from s3_retriever.printable import UNSAFE, one_line, printable


class _Console(Console):
    """A console that shows no control characters of what it prints, only its own colours."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render, with the text of every segment made printable."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


def results() -> Console:
    """The console of results; outside a terminal it writes no colours."""
    return _Console(highlight=False, markup=False, emoji=False)


def messages() -> Console:
    """The console of progress, warnings and errors."""
    return _Console(stderr=True, highlight=False, markup=False, emoji=False)


def accept_any_terminal() -> None:
    """Let streams write characters that their encoding lacks as escapes, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
    messages().print(Text(one_line(sentence), "dim"), soft_wrap=True)


def warn(sentence: str) -> None:
    """Warn that something was skipped."""
    _labelled("Warning", "yellow", sentence)


def fail(sentence: str) -> None:
    """Print why the command failed."""
    _labelled("Error", "bold red", sentence)


def write_json(value: Any) -> None:
    """Write one JSON document to stdout, in which control characters are escaped."""
    text = json.dumps(value, ensure_ascii=not _writes_unicode(), indent=2)
    typer.echo(UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def _writes_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def log_to_stderr(verbose: bool) -> None:
    """Log messages of all libraries if verbose, otherwise only their errors."""
    handler = RichHandler(console=messages(), show_path=False)
    level = logging.INFO if verbose else logging.ERROR
    logging.basicConfig(level=level, format="%(name)s: %(message)s", handlers=[handler])


def _labelled(label: str, style: str, sentence: str) -> None:
    messages().print(Text.assemble((f"{label}: ", style), one_line(sentence)), soft_wrap=True)


class ExitCode(IntEnum):
    """Exit codes of `s3r`; the parser itself exits with 2 on a wrong command line."""

    FAILED = 1
    NOTHING_FOUND = 3
    INTERRUPTED = 130


# The class of wrong command lines; some versions of typer have a copy of click of their own.
UsageError: Any = typer.BadParameter.__bases__[0]


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
        except UsageError as error:
            error.message = printable(error.message)
            raise
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
