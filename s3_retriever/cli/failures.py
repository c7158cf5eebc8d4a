"""How commands end: exit codes, and errors told in one sentence."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from s3_retriever.cli.console import fail, messages
from s3_retriever.errors import S3Error


class ExitCode(IntEnum):
    """Exit codes of `s3`; 2, a wrong command line, is given by the parser."""

    FAILED = 1
    NOTHING_FOUND = 3
    INTERRUPTED = 130


class Commands(TyperGroup):
    """The group of all commands, which turns their errors into a sentence and an exit code.

    A command that keeps something when it is interrupted says what in its `KeyboardInterrupt`.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            fail(f"Interrupted. {interrupt}".rstrip())
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except S3Error as error:
            _tell(ctx, str(error))
            raise typer.Exit(ExitCode.FAILED) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            _tell(ctx, f"{error.filename or 'A file'}: {error.strerror or error}.")
            raise typer.Exit(ExitCode.FAILED) from None


def _tell(ctx: Any, sentence: str) -> None:
    if ctx.params.get("verbose"):
        messages().print_exception()
    fail(sentence)
