"""Metadata filters, applied before ranking: the operators of `where`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3_retriever.errors import InputError
from s3_retriever.index import Column, Segment, Snapshot
from s3_retriever.metadata import json_value
from s3_retriever.types import Where, shown

logger = logging.getLogger(__name__)

Flags = NDArray[np.bool_]
# Which documents of a segment pass, bool [documents].
Filter = Callable[[Segment], Flags]

# How a column is compared with an operator's value.
_COMPARISONS: dict[str, Callable[[Column, Any], Flags]] = {
    "$eq": lambda column, value: column.equal([value]),
    "$gt": lambda column, value: column.within("$gt", value),
    "$gte": lambda column, value: column.within("$gte", value),
    "$lt": lambda column, value: column.within("$lt", value),
    "$lte": lambda column, value: column.within("$lte", value),
    "$in": lambda column, values: column.equal(values),
    "$contains": lambda column, value: column.containing(value),
    "$icontains": lambda column, value: column.containing_folded(value),
    "$exists": lambda column, _: column.exists(),
}
# Operators that pass where another does not, also where a document lacks the key.
_NEGATIONS = {"$ne": "$eq", "$nin": "$in", "$not_contains": "$contains"}
_COMBINATIONS = ("$and", "$or", "$not")
# In the place of a key: ids of documents.
_IDS = "$ids"
_KNOWN = (
    "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $contains, $icontains, $not_contains, $exists, "
    "$and, $or, $not and $ids"
)
_NAMED_KEYS = 8


@dataclass(frozen=True, slots=True)
class Unknown:
    """What a filter names that documents do not have.

    Attributes:
        keys: Keys that no document of a part has.
        known: Keys that some have; empty if none is missing.
    """

    keys: frozenset[str]
    known: frozenset[str]

    @classmethod
    def of(cls, snapshot: Snapshot, where: Where | None) -> Unknown:
        """What a filter names that the documents of a snapshot do not have."""
        named = _Conditions(where).keys if isinstance(where, Mapping) else set()
        segments = snapshot.segments
        missing = frozenset(
            key for key in named if all(segment.column(key) is None for segment in segments)
        )
        known = [segment.metadata_keys for segment in segments] if missing else []
        return cls(missing, frozenset().union(*known))

    def __add__(self, other: Unknown) -> Unknown:
        """What the documents of both parts do not have."""
        return Unknown(self.keys & other.keys, self.known | other.known)

    def warn(self) -> None:
        """Log the keys, with similar ones."""
        known = sorted(self.known)
        for key in sorted(self.keys):
            close = get_close_matches(key, known)
            named = ", ".join(map(repr, close or known[:_NAMED_KEYS])) or "none"
            hint = "similar keys" if close else "their keys"
            logger.warning(
                "No document has the metadata key %r, which where names (%s: %s).",
                key, hint, named,
            )  # fmt: skip


def admitted(snapshot: Snapshot, where: Where | None, *, warn: bool = True) -> Flags:
    """Flag the sentences that a search may return: those of live documents that pass a filter.

    Args:
        snapshot: What is searched.
        where: As in `passing_documents`; None admits all.
        warn: As in `passing_documents`.

    Returns:
        bool [n].

    Raises:
        InputError: As in `passing_documents`.
    """
    if where is None:
        return snapshot.live
    return snapshot.of_documents(passing_documents(snapshot, where, warn=warn))


def passing_documents(snapshot: Snapshot, where: Where, *, warn: bool = True) -> Filter:
    """Make a filter of the live documents of a snapshot.

    A key that no document has is logged as a warning with similar keys, unless only `$exists` asks
    for it.

    Args:
        snapshot: What is searched.
        where: Metadata that documents must have, as values or with operators, or a function of a
            document's metadata.
        warn: Whether keys are logged.

    Raises:
        InputError: `where` is neither a mapping nor a function, an operator is unknown or its
            value does not suit it, or (from the filter) the function fails.
    """
    if isinstance(where, Mapping):
        conditions = _Conditions(where)
        if warn and snapshot.segments:
            Unknown.of(snapshot, where).warn()
        return _every([conditions.passing, _live])
    if callable(where) and not isinstance(where, type):
        return _by_function(where)
    raise InputError(
        "where must be a mapping such as {'year': 2024} or a function of a document's metadata, "
        f"not {type(where).__name__}."
    )


def _live(segment: Segment) -> Flags:
    return np.ones(segment.n_documents, dtype=np.bool_) if segment.live is None else segment.live


def _by_function(where: Callable[[Mapping[str, Any]], bool]) -> Filter:
    def passes(segment: Segment, ordinal: int) -> bool:
        try:
            return bool(where(segment.metadata(ordinal)))
        except Exception as error:
            raise InputError(
                f"The function given as where fails for document {segment.document(ordinal).id!r}: "
                f"{type(error).__name__}: {error}."
            ) from error

    def passing(segment: Segment) -> Flags:
        chosen = np.zeros(segment.n_documents, dtype=np.bool_)
        live = segment.live_documents()
        chosen[live] = [passes(segment, ordinal) for ordinal in live.tolist()]
        return chosen

    return passing


class _Conditions:
    """A filter in the form of a mapping, checked.

    Args:
        where: Keys with values or operators, and `$and`, `$or`, `$not`.

    Attributes:
        passing: Which documents of a segment pass.
        keys: Keys that are compared with a value.

    Raises:
        InputError: An operator is unknown, or its value does not suit it.
    """

    def __init__(self, where: Mapping[str, Any]) -> None:
        self.keys: set[str] = set()
        self.passing = self._mapping(json_value(where, "where"), "where")

    def _mapping(self, where: Any, name: str) -> Filter:
        """Every key of a mapping must pass."""
        if not isinstance(where, dict):
            raise InputError(
                f"{name} must be a mapping such as {{'year': 2024}}, not {shown(where)}."
            )
        filters = []
        for key, value in where.items():
            inner = f"{name}[{key!r}]"
            if key in _COMBINATIONS:
                filters.append(_combined(key, value, inner, self._mapping))
            elif key == _IDS:
                filters.append(_with_ids(value, inner))
            elif key in _COMPARISONS or key in _NEGATIONS:
                raise InputError(f"{inner} needs a key; write {{'key': {{{key!r}: ...}}}}.")
            elif key.startswith("$"):
                raise _unknown(inner)
            else:
                filters.append(self._field(key, value, inner))
        return _every(filters)

    def _field(self, key: str, condition: Any, name: str) -> Filter:
        """One key's value, or a mapping of operators that must all pass."""
        if not isinstance(condition, dict) or not any(map(_is_operator, condition)):
            if _has_operators(condition):
                (first, *_) = condition
                raise InputError(
                    f"{name} has operators below a key; write the keys with a dot between them, "
                    f"such as {f'{key}.{first}'!r}."
                )
            return self._comparison(key, "$eq", condition, name)
        filters = []
        for operator, value in condition.items():
            inner = f"{name}[{operator!r}]"
            if operator in _COMBINATIONS:
                filters.append(
                    _combined(operator, value, inner, lambda v, n: self._field(key, v, n))
                )
            elif _is_operator(operator):
                filters.append(self._comparison(key, operator, value, inner))
            else:
                raise InputError(f"{name} mixes operators with the key {operator!r}; use either.")
        return _every(filters)

    def _comparison(self, key: str, operator: str, value: Any, name: str) -> Filter:
        """One key compared with a value."""
        positive = _NEGATIONS.get(operator, operator)
        if positive not in _COMPARISONS:
            raise _unknown(name)
        _check_operand(positive, value, name)
        if positive != "$exists":
            self.keys.add(key)
        negated = positive != operator or (positive == "$exists" and not value)
        compare = _COMPARISONS[positive]

        def passing(segment: Segment) -> Flags:
            column = segment.column(key)
            if column is None:
                return np.full(segment.n_documents, negated)
            return np.not_equal(compare(column, value), negated)

        return passing


def _combined(operator: str, value: Any, name: str, parse: Callable[[Any, str], Filter]) -> Filter:
    """`$and` and `$or` of a list of conditions, `$not` of one or of every one in a list."""
    if operator == "$not" and not isinstance(value, list):
        return _negated(parse(value, name))
    if not isinstance(value, list) or not value:
        raise InputError(f"{name} must be a list of conditions, not {shown(value)}.")
    filters = [parse(item, f"{name}[{at}]") for at, item in enumerate(value)]
    if operator == "$and":
        return _every(filters)
    none = _every([_negated(item) for item in filters])
    return none if operator == "$not" else _negated(none)


def _with_ids(ids: Any, name: str) -> Filter:
    """Documents that have one of these ids."""
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise InputError(f"{name} must be a list of ids of documents, not {shown(ids)}.")
    names = sorted(set(ids))

    def passing(segment: Segment) -> Flags:
        chosen = np.zeros(segment.n_documents, dtype=np.bool_)
        places = (segment.find(each) for each in names)
        chosen[[place for place in places if place is not None]] = True
        return chosen

    return passing


def _every(filters: list[Filter]) -> Filter:
    def passing(segment: Segment) -> Flags:
        chosen = np.ones(segment.n_documents, dtype=np.bool_)
        for item in filters:
            chosen &= item(segment)
        return chosen

    return passing


def _negated(item: Filter) -> Filter:
    return lambda segment: np.logical_not(item(segment))


def _check_operand(operator: str, value: Any, name: str) -> None:
    if operator == "$exists":
        suits, wanted = isinstance(value, bool), "true or false"
    elif operator == "$in":
        suits, wanted = isinstance(value, list), "a list"
    elif operator == "$icontains":
        suits, wanted = isinstance(value, str), "a text"
    elif operator in ("$gt", "$gte", "$lt", "$lte"):
        suits = isinstance(value, (int, float, str)) and not isinstance(value, bool)
        wanted = "a number, a text or a date"
    else:
        return
    if not suits:
        raise InputError(f"{name} must be {wanted}, not {shown(value)}.")


def _is_operator(key: str) -> bool:
    return key.startswith("$")


def _has_operators(value: Any) -> bool:
    """Whether a mapping has an operator at any depth."""
    return isinstance(value, dict) and any(
        _is_operator(key) or _has_operators(item) for key, item in value.items()
    )


def _unknown(name: str) -> InputError:
    return InputError(f"{name} is not an operator; where knows {_KNOWN}.")
