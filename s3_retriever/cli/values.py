"""What the texts on the command line stand for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from s3_retriever.errors import InputError
from s3_retriever.recipe import Recipe


def conditions(texts: Sequence[str] | None) -> dict[str, Any] | None:
    """The metadata filter that `KEY=VALUE` texts describe; None where there are none.

    Raises:
        typer.BadParameter: A text is no `KEY=VALUE`.
    """
    pairs = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE.", param_hint="--where")
        pairs[key] = _json_or_text(value)
    return pairs or None


def recipe(text: str | None) -> str | Recipe | None:
    """A recipe's name, or the recipe in the JSON file of that name.

    Raises:
        InputError: The file is missing or holds no recipe.
    """
    if text is None or text in ("default", "paper"):
        return text
    try:
        return Recipe.model_validate_json(Path(text).read_bytes())
    except OSError as error:
        raise InputError(
            f"The recipe {text!r} is neither default nor paper nor a readable JSON file "
            f"({error.strerror})."
        ) from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise InputError(f"{text} holds no recipe: {problem['msg']} at {where}.") from error


def location(name: str | None) -> str | None:
    """A host's or codebook's name; a local folder as an absolute path.

    An index remembers where its host and codebook are, and is opened from other folders too.
    """
    if name is not None and Path(name).expanduser().is_dir():
        return str(Path(name).expanduser().resolve())
    return name


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
