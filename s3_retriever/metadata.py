"""Metadata: what values of Python, NumPy and pandas become in JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import numpy as np

from s3_retriever.errors import InputError
from s3_retriever.types import shown

# Lists and mappings are nested at most this deep.
MAX_DEPTH = 64
# Larger whole numbers are beyond what other readers of JSON, and comparisons with floats, can hold.
_MAX_BITS = 1024


# A value's name in messages: what holds it, and the keys and positions that lead to it.
_Path = tuple[Any, ...]


def json_value(value: Any, name: str) -> Any:
    """Convert a value to what JSON gives back: None, bools, numbers, text, lists and dicts.

    NumPy scalars become Python's and arrays lists; dates and times ISO 8601 text; `Decimal` a
    number; UUIDs and paths text; tuples lists; sets sorted lists; an `Enum` member its value; keys
    that are whole numbers text.

    Args:
        value: The value.
        name: What messages call it, such as `metadata`; items are named like `metadata['year']`.

    Raises:
        InputError: A value has no JSON form (NaN, NaT, bytes, other objects), a key is neither text
            nor a whole number, or values are nested more than 64 levels deep.
    """
    return _convert(value, (name,))


def value_at(metadata: Mapping[str, Any], key: str, default: Any) -> Any:
    """The value of a key; that of `author.name` may also be `name` in the mapping `author`."""
    if key in metadata:
        return metadata[key]
    for dot, letter in enumerate(key):
        if letter == "." and isinstance(inner := metadata.get(key[:dot]), Mapping):
            value = value_at(inner, key[dot + 1 :], default)
            if value is not default:
                return value
    return default


def key_paths(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Every key for which `value_at` finds a value."""
    for key, value in metadata.items():
        yield key
        if isinstance(value, Mapping):
            for inner in key_paths(value):
                yield f"{key}.{inner}"


def _convert(value: Any, path: _Path) -> Any:
    # What is plain already comes first, because filters may have lists of thousands.
    if type(value) in (str, bool, type(None)):
        return value
    if type(value) in (int, float):
        return _number(value, path)
    if len(path) > MAX_DEPTH + 1:
        raise InputError(f"{path[0]} is nested more than {MAX_DEPTH} levels deep.")
    if isinstance(value, Mapping):
        return _mapping(value, path)
    value = _scalar(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (int, float)):
        return _number(value, path)
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise InputError(f"{_name(path)} is bytes; decode it to text.")
    if isinstance(value, (Sequence, Set, np.ndarray)):
        items = [_convert(item, (*path, place)) for place, item in enumerate(value)]
        return sorted(items, key=_sort_key) if isinstance(value, Set) else items
    raise InputError(f"{_name(path)} is of type {type(value).__name__}, which has no JSON form.")


def _scalar(value: Any) -> Any:
    """Take a value out of the types that wrap one."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, np.datetime64) and isinstance(value.item(), int):
        value = value.astype("datetime64[us]")  # finer than Python's dates
    if isinstance(value, (np.datetime64, np.timedelta64)) and np.isnat(value):
        return value  # its item would be None
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim):
        # The item of a `longdouble` is a `longdouble`.
        value = float(value) if isinstance(value, np.floating) else value.item()
    if isinstance(value, (date, datetime, time)) and value == value:  # pandas' NaT differs
        return value.isoformat()
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value.as_tuple().exponent == 0 else float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return str(value) if isinstance(value, UUID) else value


def _number(value: float, path: _Path) -> float:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{_name(path)} is {value}; use None or leave it out.")
        return float(value)
    if value.bit_length() > _MAX_BITS:
        raise InputError(
            f"{_name(path)} is a number of more than {_MAX_BITS} bits; store it as text."
        )
    return int(value)


def _mapping(value: Mapping[Any, Any], path: _Path) -> dict[str, Any]:
    converted = {_text_key(key, path): _convert(item, (*path, key)) for key, item in value.items()}
    if len(converted) < len(value):
        raise InputError(f"{_name(path)} has a key twice, as a number and as a string.")
    return converted


def _text_key(key: Any, path: _Path) -> str:
    """A key as JSON has it: text; whole numbers are written out."""
    if isinstance(key, (int, np.integer)) and not isinstance(key, (bool, Enum)):
        return str(int(key))
    if not isinstance(key, str):
        raise InputError(f"{_name(path)} has the key {shown(key)}, which is not a string.")
    return str(key.value if isinstance(key, Enum) else key)


def _name(path: _Path) -> str:
    return "".join([path[0], *(f"[{shown(key)}]" for key in path[1:])])


def _sort_key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
