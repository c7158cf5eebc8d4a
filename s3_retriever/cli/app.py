"""The command `s3r`: its subcommands and the options they all have."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Annotated

import typer

from s3_retriever import __version__
from s3_retriever.cli.adapting import adapt
from s3_retriever.cli.answering import answer
from s3_retriever.cli.calibrating import calibrate
from s3_retriever.cli.combining import export, merge, split
from s3_retriever.cli.configuring import config, default_map
from s3_retriever.cli.console import Commands, log_to_stderr, results
from s3_retriever.cli.fitting import fit
from s3_retriever.cli.indexing import (
    add,
    compact,
    delete,
    index,
    info,
    list_documents,
    show,
    sync,
    verify,
)
from s3_retriever.cli.mcp import mcp
from s3_retriever.cli.searching import explain, search
from s3_retriever.cli.serving import serve

app = typer.Typer(
    name="s3r",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        results().print(f"s3-retriever {__version__}")
        raise typer.Exit


def _paragraphs(command: Callable[..., None]) -> str:
    """A command's help with one line per paragraph, for the terminal to wrap."""
    paragraphs = inspect.getdoc(command) or ""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", paragraphs)


def s3r(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - the callback does the work
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Log to stderr, and show the traceback of an error."),
    ] = False,
    no_config: Annotated[
        bool,
        typer.Option("--no-config", help="Leave the files out that set defaults of options."),
    ] = False,
) -> None:
    """Use any Hugging Face transformer as its own retriever.

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed (with one
    sentence on why), 2 wrong command line, 3 nothing found, 130 interrupted.
    """
    log_to_stderr(verbose)
    # What is wrong in a file is no obstacle to reading how the command is used.
    if not no_config and not {"-h", "--help"} & set(sys.argv[1:]):
        context.default_map = default_map(context.command)


app.callback(help=_paragraphs(s3r))(s3r)
_COMMANDS: dict[str, Callable[..., None]] = {
    "index": index,
    "add": add,
    "sync": sync,
    "search": search,
    "answer": answer,
    "explain": explain,
    "list": list_documents,
    "show": show,
    "info": info,
    "delete": delete,
    "compact": compact,
    "verify": verify,
    "merge": merge,
    "split": split,
    "export": export,
    "serve": serve,
    "mcp": mcp,
    "fit": fit,
    "calibrate": calibrate,
    "config": config,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, help=_paragraphs(_command))(_command)
app.add_typer(adapt, name="adapt")

# Other distributions, such as the benchmarks, add commands of their own.
for _point in entry_points(group="s3_retriever.commands"):
    app.add_typer(_point.load(), name=_point.name)
