"""Defaults of options from files, the user's own and the project's, and `s3r config`."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from s3_retriever.cli import options
from s3_retriever.cli.console import UsageError, results, say, show_table, write_json
from s3_retriever.errors import InputError, brief
from s3_retriever.paths import regular_size
from s3_retriever.printable import one_line
from s3_retriever.remote import is_url
from s3_retriever.types import shown

NAME = "s3r.toml"
_PYPROJECT = "pyproject.toml"
_LARGEST = 1 << 20

# What the file of a project may set, and of which commands. It comes with a folder that may be
# someone else's: it can choose no model, no file to read or write, no server and no secret. Two
# options are bounded: `in` to an index inside the project, `recipe` to those of the package.
PROJECT_OPTIONS = frozenset(
    {"device", "dtype", "in", "k", "min-relevance", "mode", "order", "recipe", "token-budget"}
)
PROJECT_COMMANDS = frozenset({"add", "answer", "explain", "index", "search", "sync"})
# Here the option means something else, so a setting for all commands does not count.
_OTHER_MEANING = frozenset({("fit", "k")})
_SECRET = frozenset({"token"})


@dataclass(frozen=True, slots=True)
class Setting:
    """The default of an option that a file sets.

    Attributes:
        command: The command, such as `search`.
        option: The option without dashes, such as `token-budget`.
        parameter: What the command's function calls it.
        value: As it would be on the command line; a list for a repeatable option.
        file: The file.
    """

    command: str
    option: str
    parameter: str
    value: str | bool | list[str]
    file: Path


def default_map(group: Any) -> dict[str, dict[str, Any]]:
    """The defaults that files set, by command and parameter.

    Args:
        group: The group of all commands.

    Raises:
        InputError: A file cannot be read, or sets what does not exist or what it may not.
    """
    defaults: dict[str, dict[str, Any]] = {}
    for setting in settings(group):
        defaults.setdefault(setting.command, {})[setting.parameter] = setting.value
    return defaults


def settings(group: Any) -> list[Setting]:
    """What files set, those last that have precedence: the project's over the user's.

    Raises:
        InputError: As `default_map`.
    """
    user, project = user_file(), _project_file(Path.cwd())
    found: list[Setting] = []
    if (table := _table(user)) is not None:
        found += _File(user, group, of_project=False).settings(table)
    if project is not None and not _same(project[0], user):
        found += _File(project[0], group, of_project=True).settings(project[1])
    return found


def user_file() -> Path:
    """Where the user's own defaults are, whether there are any or not."""
    from platformdirs import user_config_path

    return user_config_path("s3r", appauthor=False) / NAME


def exclusive(context: typer.Context, **values: Any) -> tuple[Any, ...]:
    """The values of options of which only one can be given.

    Those that come from a file give way to any of the command line.
    """
    configured = {name for name in values if _is_configured(context, name)}
    given = any(value for name, value in values.items() if name not in configured)
    return tuple(None if given and name in configured else values[name] for name in values)


def if_needed(context: typer.Context, name: str, value: str | None, *, needed: bool) -> str | None:
    """The value of an option; None if it comes from a file and nothing needs it."""
    return None if not needed and _is_configured(context, name) else value


def _is_configured(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT_MAP"


def _project_file(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The nearest file with defaults in a folder or above it, and what it says."""
    for above in (folder, *folder.parents):
        if (table := _table(above / NAME)) is not None:
            return above / NAME, table
        table = _table(above / _PYPROJECT, mark=b"tool.s3r")
        own = (table or {}).get("tool", {}).get("s3r")
        if isinstance(own, dict):
            return above / _PYPROJECT, own
    return None


def _table(path: Path, mark: bytes = b"") -> dict[str, Any] | None:
    """What a TOML file says; None if there is none, or none that contains a mark.

    Raises:
        InputError: It cannot be read.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        if not path.is_file():
            return None
    except OSError:  # a folder that may not be looked at
        return None
    try:
        if regular_size(path) > _LARGEST:
            raise ValueError(f"it is larger than {_LARGEST >> 20} MiB")
        content = path.read_bytes()
        return tomllib.loads(content.decode()) if mark in content else None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {brief(error).rstrip('.')}.") from error


def _same(path: Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


class _File:
    """Reads the settings of a file.

    Args:
        path: The file.
        group: The group of all commands.
        of_project: Whether only what is harmless may be set.
    """

    def __init__(self, path: Path, group: Any, *, of_project: bool) -> None:
        self._path = path
        self._commands = dict(_commands(group))
        self._options = {name: _options(command) for name, command in self._commands.items()}
        self._of_project = of_project

    def settings(self, table: Mapping[str, Any]) -> list[Setting]:
        """The settings; those for all commands first, because those of a command precede them.

        Raises:
            InputError: A key is unknown or not allowed, or its value does not fit.
        """
        general = [
            setting
            for key, value in table.items()
            if not isinstance(value, dict)
            for setting in self._for_all(key, value)
        ]
        own: list[Setting] = []
        for command, values in table.items():
            if not isinstance(values, dict):
                continue
            if command not in self._options:
                raise self._error(f"there is no command {shown(command)}", command, self._options)
            for key, value in values.items():
                if key not in self._options[command]:
                    known = self._options[command]
                    raise self._error(f"s3r {command} has no option {shown(key)}", key, known)
                own.append(self._setting(command, key, value))
        return general + own

    def _for_all(self, key: str, value: Any) -> Iterator[Setting]:
        """A setting for every command that has the option, and to which the file may set it."""
        commands = [
            name
            for name, known in self._options.items()
            if key in known and (name, key) not in _OTHER_MEANING
        ]
        if not commands:
            known = {option for options in self._options.values() for option in options}
            raise self._error(f"no command has an option {shown(key)}", key, known)
        for command in [name for name in commands if self._may_set(name, key)] or commands[:1]:
            yield self._setting(command, key, value)

    def _may_set(self, command: str, key: str) -> bool:
        return not self._of_project or (command in PROJECT_COMMANDS and key in PROJECT_OPTIONS)

    def _setting(self, command: str, key: str, value: Any) -> Setting:
        if not self._may_set(command, key):
            raise InputError(
                f"{self._path}: a project may not set {shown(key)} of s3r {command}; set it on the "
                f"command line or in {user_file()}."
            )
        parameter = self._options[command][key]
        try:
            text = _text(parameter, value)
            if self._of_project:
                text = self._bounded(key, text)
            parameter.process_value(typer.Context(self._commands[command]), text)
        except (ValueError, UsageError) as error:
            problem = brief(getattr(error, "message", error)).removeprefix("Value error, ")
            problem = problem.rstrip(".")
            raise InputError(f"{self._path}: {key} of s3r {command}: {problem}.") from error
        return Setting(command, key, parameter.name, text, self._path)

    def _bounded(self, key: str, text: Any) -> Any:
        """A value of a project's file.

        Raises:
            ValueError: It leads out of the project.
        """
        if key == "recipe" and text not in options.RECIPES:
            raise ValueError(
                f"a project may choose {', '.join(options.RECIPES)}, not {shown(text)}"
            )
        if key != "in":
            return text
        if is_url(text):
            raise ValueError(f"a project names a folder of its own, not the URL {shown(text)}")
        folder = Path(os.path.realpath(self._path.parent))
        index = folder / text
        if Path(text).is_absolute() or not Path(os.path.realpath(index)).is_relative_to(folder):
            raise ValueError(f"{shown(text)} is outside the folder of this file")
        return str(index)

    def _error(self, problem: str, name: str, known: Iterable[str]) -> InputError:
        near = difflib.get_close_matches(name[:100], known, n=1)
        advice = f"; did you mean {near[0]!r}?" if near else "; remove it."
        return InputError(f"{self._path}: {problem}{advice}")


def _text(parameter: Any, value: Any) -> str | bool | list[str]:
    """A value as the command line would have it.

    Raises:
        ValueError: It has another type than the option.
    """
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise ValueError(f"it must be true or false, not {shown(value)}")
        return value
    if parameter.multiple:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"it must be a list of texts, not {shown(value)}")
        return value
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"it must be a text or a number, not {shown(value)}")


def _commands(group: Any) -> list[tuple[str, Any]]:
    """The commands of the package itself; those of other distributions are groups."""
    return [(name, each) for name, each in group.commands.items() if not hasattr(each, "commands")]


def _options(command: Any) -> dict[str, Any]:
    """The options of a command by their long names without dashes."""
    return {
        max(parameter.opts, key=len).lstrip("-"): parameter
        for parameter in command.params
        if parameter.param_type_name == "option"
    }


def config(
    context: typer.Context,
    command: Annotated[
        str | None,
        typer.Argument(
            metavar="COMMAND", help="Show all options of this command.", show_default=False
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the defaults that files set, and which file each comes from.

    Files are s3r.toml, or the table tool.s3r of pyproject.toml, in the current folder or the
    nearest folder above it that has one, and the user's own s3r.toml. The project's file precedes
    the user's, and the command line precedes both.
    """
    group = context.find_root().command
    found = {(each.command, each.option): each for each in settings(group)}
    if command is not None:
        rows = _all_options(group, command, found)
    else:
        rows = [_row(each) for each in found.values()]
    if as_json:
        write_json(rows)
        return
    if rows:
        _show(rows)
    say(f"Your own defaults are set in {user_file()}, those of a project in its {NAME}.")


def _all_options(
    group: Any, command: str, found: Mapping[tuple[str, str], Setting]
) -> list[dict[str, Any]]:
    commands = dict(_commands(group))
    if command not in commands:
        raise InputError(f"There is no command {shown(command)}; list them with: s3r --help")
    rows = []
    for option, parameter in _options(commands[command]).items():
        if setting := found.get((command, option)):
            rows.append(_row(setting))
            continue
        described = parameter.show_default
        value = described if isinstance(described, str) else parameter.default
        rows.append({"command": command, "option": option, "value": value, "file": None})
    return rows


def _row(setting: Setting) -> dict[str, Any]:
    value = "***" if setting.option in _SECRET else setting.value
    row = {"command": setting.command, "option": setting.option, "value": value}
    return row | {"file": str(setting.file)}


def _show(rows: Iterable[Mapping[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in ("command", "option", "value", "from"):
        table.add_column(name, overflow="fold")
    for row in rows:
        value = row["value"]
        text = ", ".join(value) if isinstance(value, list) else str(value)
        table.add_row(row["command"], row["option"], one_line(text), row["file"] or "default")
    show_table(results(), table)
