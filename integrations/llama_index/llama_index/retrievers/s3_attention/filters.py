"""LlamaIndex's metadata filters as a predicate, which S3 applies before ranking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llama_index.core.vector_stores import FilterCondition, MetadataFilter, MetadataFilters

Predicate = Callable[[Mapping[str, Any]], bool]

# By the operators' values, because older releases of llama-index-core have fewer names.
# The first argument is the node's value, which is never None; the second the filter's.
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda value, wanted: _equal(value, wanted),
    ">": lambda value, wanted: value > wanted,
    ">=": lambda value, wanted: value >= wanted,
    "<": lambda value, wanted: value < wanted,
    "<=": lambda value, wanted: value <= wanted,
    "in": lambda value, wanted: any(_equal(value, item) for item in wanted),
    "any": lambda value, wanted: any(_contains(value, item) for item in wanted),
    "all": lambda value, wanted: all(_contains(value, item) for item in wanted),
    "contains": lambda value, wanted: _contains(value, wanted),
    "text_match": lambda value, wanted: wanted in value,
    "text_match_insensitive": lambda value, wanted: wanted.lower() in value.lower(),
}
# Negations of the above; they also hold for nodes without the key.
_NEGATIONS = {"!=": "==", "nin": "in"}
_OF_LISTS = {"in", "nin", "any", "all"}
_OF_TEXTS = {"text_match", "text_match_insensitive"}
_OF_EITHER = "is_empty"


def predicate(filters: MetadataFilters | None) -> Predicate | None:
    """Make a function that checks whether a node's metadata passes the filters.

    Filters mean the same as in LlamaIndex's own `SimpleVectorStore`, and may be nested. The
    condition defaults to `and`; `not` passes if no filter holds. A missing key, or None, passes
    only `!=`, `nin` and `is_empty`. Values that cannot be compared, such as a number with a text,
    do not match.

    Args:
        filters: The filters; None or an empty list passes everything.

    Raises:
        ValueError: An operator or condition is unknown, or a filter's value does not suit its
            operator.
    """
    if filters is None or not filters.filters:
        return None
    return _group(filters)


def _group(filters: MetadataFilters) -> Predicate:
    parts = [
        _group(item) if isinstance(item, MetadataFilters) else _single(item)
        for item in filters.filters
    ]
    condition = _name(filters.condition or FilterCondition.AND)
    if condition == "and":
        return lambda metadata: all(_results(parts, metadata))
    if condition == "or":
        return lambda metadata: any(_results(parts, metadata))
    if condition == "not":
        return lambda metadata: not any(_results(parts, metadata))
    raise ValueError(f"Filters are combined by and, or, or not; {condition!r} is not supported.")


def _results(parts: Iterable[Predicate], metadata: Mapping[str, Any]) -> Iterable[bool]:
    return (part(metadata) for part in parts)


def _single(item: MetadataFilter) -> Predicate:
    key, wanted, operator = item.key, item.value, _name(item.operator)
    if operator == _OF_EITHER:
        return lambda metadata: metadata.get(key) in (None, "", [])
    positive = _NEGATIONS.get(operator, operator)
    if positive not in _COMPARISONS:
        known = ", ".join([*_COMPARISONS, *_NEGATIONS, _OF_EITHER])
        raise ValueError(
            f"The filter on {key!r} has the operator {operator!r}, which is not supported; "
            f"use one of: {known}."
        )
    if operator in _OF_LISTS and not isinstance(wanted, list):
        raise ValueError(f"The operator {operator!r} on {key!r} needs a list, not {wanted!r}.")
    if operator in _OF_TEXTS and not isinstance(wanted, str):
        raise ValueError(f"The operator {operator!r} on {key!r} needs a text, not {wanted!r}.")
    compare, negated = _COMPARISONS[positive], operator in _NEGATIONS

    def holds(metadata: Mapping[str, Any]) -> bool:
        value = metadata.get(key)
        if value is None:
            return negated
        try:
            return compare(value, wanted) != negated
        except (TypeError, AttributeError):
            return negated

    return holds


def _equal(value: Any, wanted: Any) -> bool:
    """Whether two values are equal; True is not 1."""
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def _contains(value: Any, wanted: Any) -> bool:
    if isinstance(value, str):
        return wanted in value
    return any(_equal(item, wanted) for item in value)


def _name(member: Any) -> str:
    """The value of an operator or condition, which may also be a plain string."""
    return str(getattr(member, "value", member))
