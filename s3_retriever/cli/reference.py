"""The reference of all commands in Markdown: `python -m s3_retriever.cli.reference`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperArgument

from s3_retriever.cli.app import app

_START = """\
# Command line

This page is generated from the commands themselves with
`python -m s3_retriever.cli.reference > docs/cli.md`.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([_START, *_group("s3r", typer.main.get_command(app))])


def _group(name: str, group: Any) -> Iterator[str]:
    """A group of commands, then each of them."""
    yield from _command(name, group, f"{name} [OPTIONS] COMMAND ...")
    context = typer.Context(group)
    for key in group.list_commands(context):
        command, full = group.get_command(context, key), f"{name} {key}"
        if hasattr(command, "list_commands"):
            yield from _group(full, command)
        else:
            yield from _command(full, command, _usage(full, command))


def _command(name: str, command: Any, usage: str) -> Iterator[str]:
    yield f"## {name}\n"
    yield f"```\n{usage}\n```\n"
    yield f"{inspect.cleandoc(command.help)}\n"
    if not command.params:
        return
    yield "| Parameter | Meaning | Default |\n| --- | --- | --- |"
    yield from map(_row, command.params)
    yield ""


def _usage(name: str, command: Any) -> str:
    """A command with its arguments and required options, in order."""
    words = [_syntax(parameter) for parameter in command.params if parameter.required]
    return " ".join([name, *words, "[OPTIONS]"])


def _row(parameter: Any) -> str:
    cells = [f"`{_syntax(parameter, ', ')}`", parameter.help or "", _default(parameter)]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _syntax(parameter: Any, names: str = "") -> str:
    """How a parameter is written: with its longest name, or all of them joined by `names`."""
    if isinstance(parameter, TyperArgument):
        return f"{parameter.metavar}..." if parameter.nargs == -1 else str(parameter.metavar)
    name = names.join(parameter.opts) if names else max(parameter.opts, key=len)
    return name if _is_flag(parameter) else f"{name} {parameter.metavar}"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    default = parameter.default
    return "" if default is None or _is_flag(parameter) else f"`{default}`"


def _is_flag(parameter: Any) -> bool:
    """Options that take a value are declared with a metavar."""
    return parameter.metavar is None


if __name__ == "__main__":
    typer.echo(reference(), nl=False)
