"""`Column`: the values that documents have for one metadata key, ready to be compared."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# A document without the key.
MISSING: Any = object()

# Kinds of values in the order in which a column keeps them; numbers are never equal to bools.
_NULL, _BOOL, _NUMBER, _TEXT, _LIST, _OBJECT = range(6)

Bound = Literal["$gt", "$gte", "$lt", "$lte"]


class Column:
    """The values of one metadata key.

    Each distinct value is compared once, however many documents have it. Values of different kinds
    are neither equal nor above or below each other: `True` is not 1, in lists too.

    Args:
        values: The value of each document, `MISSING` for those without the key.
    """

    def __init__(self, values: Iterable[Any]) -> None:
        keys = [None if value is MISSING else _key(value) for value in values]
        # Distinct values, sorted by kind and then by value.
        self._keys = sorted(key for key in set(keys) if key is not None)
        self._places = {key: place for place, key in enumerate(self._keys)}
        # The place of each document's value; -1 without.
        places = [-1 if key is None else self._places[key] for key in keys]
        self._of_documents = np.array(places, dtype=np.int64)

    def exists(self) -> NDArray[np.bool_]:
        """Which documents have the key, bool [documents]."""
        return np.greater_equal(self._of_documents, 0)

    def equal(self, values: Iterable[Any]) -> NDArray[np.bool_]:
        """Which documents have one of these values, bool [documents]."""
        chosen = self._none()
        places = (self._places.get(_key(value)) for value in values)
        chosen[[place for place in places if place is not None]] = True
        return self._documents(chosen)

    def within(self, bound: Bound, value: float | str) -> NDArray[np.bool_]:
        """Which documents have a number or text above or below this one, bool [documents]."""
        key = _key(value)
        kind, chosen = self._kind(key[0]), self._none()
        cut = (bisect_left if bound in ("$gte", "$lt") else bisect_right)(self._keys, key)
        if bound in ("$gt", "$gte"):
            chosen[cut : kind.stop] = True
        else:
            chosen[kind.start : cut] = True
        return self._documents(chosen)

    def containing(self, value: Any) -> NDArray[np.bool_]:
        """Which documents have a list with this item, or a text with this text."""
        item, chosen = _key(value), self._none()
        lists = self._kind(_LIST)
        chosen[lists] = [item in items for _, items in self._keys[lists]]
        if isinstance(value, str):
            texts = self._kind(_TEXT)
            chosen[texts] = [value in text for _, text in self._keys[texts]]
        return self._documents(chosen)

    def containing_folded(self, value: str) -> NDArray[np.bool_]:
        """Which documents have a text with this text in any case, bool [documents]."""
        folded, chosen, texts = value.casefold(), self._none(), self._kind(_TEXT)
        chosen[texts] = [folded in text.casefold() for _, text in self._keys[texts]]
        return self._documents(chosen)

    def _kind(self, kind: int) -> slice:
        """Where the values of a kind are."""
        return slice(bisect_left(self._keys, (kind,)), bisect_left(self._keys, (kind + 1,)))

    def _none(self) -> NDArray[np.bool_]:
        """A flag for each distinct value, and one for documents without the key."""
        return np.zeros(len(self._keys) + 1, dtype=np.bool_)

    def _documents(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        flags: NDArray[np.bool_] = chosen[self._of_documents]
        return flags


def _key(value: Any) -> tuple[Any, ...]:
    """A kind and a content that compare, sort and hash as the value should."""
    if value is None:
        return (_NULL,)
    if isinstance(value, bool):
        return _BOOL, value
    if isinstance(value, (int, float)):
        return _NUMBER, value
    if isinstance(value, str):
        return _TEXT, value
    if isinstance(value, list):
        return _LIST, tuple(map(_key, value))
    return _OBJECT, tuple((name, _key(value[name])) for name in sorted(value))
