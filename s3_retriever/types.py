"""Types that every room uses, and checks of arguments."""

from __future__ import annotations

import math
import os
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from s3_retriever.errors import InputError

# How sentences are ranked: features of the host, BM25, or both.
Mode = Literal["hybrid", "s3", "bm25"]
# Questions of a labelled set: for tuning, for reporting, or all.
Split = Literal["dev", "test", "all"]
# How spans are returned: best first, or as in the documents.
Order = Literal["score", "document"]
# What the results of a search are, if not spans.
GroupBy = Literal["document"]
# What a span takes along of the text around it; see `search.context`.
ContextForm = Literal["sentence", "passage", "neighbours", "section"]
# The same for searches, answers, compressors and integrations; see docs/research-log.md.
DEFAULT_CONTEXT: ContextForm = "sentence"
# When an answer's evidence is searched for again: after so many tokens, or where the next token is
# uncertain.
Refresh = int | Literal["uncertain"]
# What evidence is made of: sentences, or lines that are never cut or joined.
Unit = Literal["sentence", "line"]
# Metadata that documents must have, as values or with the operators of `search.filtering`, or a
# function of a document's metadata.
Where = Mapping[str, Any] | Callable[[Mapping[str, Any]], bool]
# Where the weights of a question's features come from at a key tap; see `TapRecipe`.
QuerySide = Literal["same", "query", "decoder"]
# A signal that can find a span.
Source = Literal["s3", "sentence", "heads", "bm25", "edge", "hop"]
# What can raise or lower a span's score.
Contribution = Literal[Source, "document", "rerank", "redundancy"]

# One score per sentence, float64 [sentences].
Scores = NDArray[np.float64]


# Most bytes of the name of a file.
_NAME_BYTES = 255
# Values are shown in messages on one line and in bounded length.
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 100


def shown(value: object) -> str:
    """A value as messages show it: its `repr` on one line, shortened."""
    return " ".join(_REPR.repr(value).split())


def check_type(value: object, kind: type, name: str) -> None:
    """Check that a value is of a type.

    Raises:
        InputError: It is not.
    """
    if not isinstance(value, kind):
        raise InputError(f"The {name} must be a {kind.__name__}, not {type(value).__name__}.")


def check_count(value: Any, name: str, *, least: int = 1) -> int:
    """Check a whole number, of Python or NumPy, and return it as an int.

    Args:
        value: The number.
        name: What messages call it.
        least: The smallest number allowed.

    Raises:
        InputError: It is too small or of another type; booleans are refused too.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {shown(value)}.")
    return min(int(value), sys.maxsize)


def check_refresh(value: Any) -> Refresh | None:
    """Check a `Refresh`, or None, and return it.

    Raises:
        InputError: It is neither a count nor `uncertain`.
    """
    if value is None or (isinstance(value, str) and value == "uncertain"):
        return value  # type: ignore[return-value]
    if isinstance(value, str):
        raise InputError(
            f"refresh must be a whole number of at least 1, or 'uncertain', not {shown(value)}."
        )
    return check_count(value, "refresh")


def check_flag(value: Any, name: str) -> bool:
    """Check True or False, of Python or NumPy, and return it as a bool.

    Raises:
        InputError: It is of another type.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} must be True or False, not {shown(value)}.")
    return bool(value)


def check_positive(value: Any, name: str) -> float:
    """Check a finite number above zero, of Python or NumPy, and return it as a float.

    Raises:
        InputError: It is not above zero or of another type.
    """
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise InputError(f"{name} must be a number above zero, not {shown(value)}.")
    return float(value)


def check_share(value: Any, name: str) -> float | None:
    """Check a number from 0 to 1, of Python or NumPy, or None, and return it.

    Raises:
        InputError: It is outside that range or of another type; booleans are refused too.
    """
    if value is None:
        return None
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        raise InputError(f"{name} must be a number from 0 to 1, not {shown(value)}.")
    return float(value)


def check_text(value: Any, name: str) -> str:
    """Check that a value is Unicode text and not blank.

    Raises:
        InputError: It is not a string, is blank, or has a lone surrogate.
    """
    check_string(value, name)
    if not value.strip():
        raise InputError(f"The {name} is empty; write something.")
    return str(value)


def check_string(value: Any, name: str) -> str:
    """Check that a value is Unicode text, which may be blank.

    Raises:
        InputError: It is not a string, or has a lone surrogate.
    """
    if isinstance(value, (bytes, bytearray)):
        raise InputError(f"The {name} is bytes; decode it to a string.")
    if not isinstance(value, str):
        raise InputError(f"The {name} must be a string, not {type(value).__name__}.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"The {name} has a lone surrogate, which is not valid Unicode; decode its source with "
            "errors='replace'."
        ) from None
    return value


def check_items(values: Any, name: str, single: tuple[type, ...] = (str,)) -> Iterable[Any]:
    """Check that something is an iterable of items; a single item is put into a list.

    Args:
        values: An item or an iterable of items.
        name: What messages call the items, in the plural.
        single: Types of an item.

    Raises:
        InputError: It is bytes, a mapping or not iterable.
    """
    if isinstance(values, single):
        return [values]
    if isinstance(values, (bytes, bytearray)):
        raise InputError(f"The {name} are bytes; decode them to strings.")
    try:
        iter(values)
        listed = not isinstance(values, Mapping)
    except TypeError:
        listed = False
    if not listed:
        raise InputError(f"The {name} must be in a list, not {type(values).__name__}.")
    return values  # type: ignore[no-any-return]


def check_path(value: Any, name: str = "path") -> Path:
    """Check that a value is a path, as text or `os.PathLike`.

    Raises:
        InputError: It is of another type, is empty, or has a null character.
    """
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path:
        raise InputError(f"The {name} must be a str or pathlib.Path, not {shown(value)}.")
    try:
        names = os.fsencode(path).split(b"/")
        valid = all(b"\0" not in name and len(name) <= _NAME_BYTES for name in names)
    except UnicodeEncodeError:
        valid = False
    if not valid:
        raise InputError(f"The {name} {shown(path)} cannot be the name of a file or folder.")
    return Path(path)


def check_source(value: Any, name: str) -> str:
    """Check what may be a folder or an id on the Hub, and return it as it was written.

    A `Path` would drop the dot of `./model`, which means a folder and never an id.

    Raises:
        InputError: As `check_path`.
    """
    check_path(value, name)
    return os.fspath(value)  # type: ignore[no-any-return]


def refuse_arguments(call: str, unknown: Iterable[str]) -> None:
    """Refuse keyword arguments that a call does not have.

    Raises:
        InputError: A filter has the name that other libraries give it.
        TypeError: There is another argument.
    """
    for name in unknown:
        if name in ("filter", "filters"):
            raise InputError(
                f"{call} has no argument {name!r}; use where=, such as {{'year': 2024}}."
            )
        raise TypeError(f"{call}() got an unexpected keyword argument {name!r}.")


def check_choice(value: object, name: str, choices: Any) -> None:
    """Check that a value is one of a `Literal`'s.

    Raises:
        InputError: It is not.
    """
    *others, last = get_args(choices)
    if not isinstance(value, str) or value not in [*others, last]:
        allowed = f"{', '.join(others)} or {last}" if others else last
        raise InputError(f"{name} must be {allowed}, not {shown(value)}.")
