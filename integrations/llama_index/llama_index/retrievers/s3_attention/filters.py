"""LlamaIndex's metadata filters as `where`, which S3 applies before ranking."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores import FilterCondition, MetadataFilter, MetadataFilters

# By the operators' values, because older releases of llama-index-core have fewer names.
_OPERATORS = {
    "==": "$eq",
    "!=": "$ne",
    ">": "$gt",
    ">=": "$gte",
    "<": "$lt",
    "<=": "$lte",
    "in": "$in",
    "nin": "$nin",
    "contains": "$contains",
    "text_match": "$contains",
    "text_match_insensitive": "$icontains",
}
# Other operators, and the conditions that they put on one key.
_OTHERS = ("any", "all", "is_empty")
_OF_LISTS = {"in", "nin", "any", "all"}
_OF_TEXTS = {"text_match", "text_match_insensitive"}
_OF_ORDER = {">", ">=", "<", "<="}

_EVERY: dict[str, Any] = {}
_NONE: dict[str, Any] = {"$not": _EVERY}


def where_of(filters: MetadataFilters | None) -> dict[str, Any] | None:
    """Translate filters to the operators of `where`.

    Filters mean the same as in LlamaIndex's own `SimpleVectorStore`, and may be nested. The
    condition defaults to `and`; `not` passes if no filter holds. A missing key, or None, passes
    only `!=`, `nin` and `is_empty`. Values that cannot be compared, such as a number with a text,
    do not match.

    Args:
        filters: The filters; None or an empty list passes everything.

    Returns:
        None if everything passes.

    Raises:
        ValueError: An operator or condition is unknown, or a filter's key or value does not suit.
    """
    if filters is None or not filters.filters:
        return None
    return _group(filters)


def _group(filters: MetadataFilters) -> dict[str, Any]:
    parts = [
        _group(item) if isinstance(item, MetadataFilters) else _single(item)
        for item in filters.filters
    ]
    condition = _name(filters.condition or FilterCondition.AND)
    if condition not in ("and", "or", "not"):
        raise ValueError(
            f"Filters are combined by and, or, or not; {condition!r} is not supported."
        )
    if not parts:
        return _NONE if condition == "or" else _EVERY
    return {f"${condition}": parts}


def _single(item: MetadataFilter) -> dict[str, Any]:
    key, wanted, operator = item.key, item.value, _name(item.operator)
    if operator not in _OPERATORS and operator not in _OTHERS:
        known = ", ".join([*_OPERATORS, *_OTHERS])
        raise ValueError(
            f"The filter on {key!r} has the operator {operator!r}, which is not supported; "
            f"use one of: {known}."
        )
    if key.startswith("$"):
        raise ValueError(f"Keys that begin with $ cannot be filtered, such as {key!r}.")
    if operator in _OF_LISTS and not isinstance(wanted, list):
        raise ValueError(f"The operator {operator!r} on {key!r} needs a list, not {wanted!r}.")
    if operator in _OF_TEXTS and not isinstance(wanted, str):
        raise ValueError(f"The operator {operator!r} on {key!r} needs a text, not {wanted!r}.")
    if operator in _OF_ORDER and not isinstance(wanted, (int, float, str)):
        raise ValueError(
            f"The operator {operator!r} on {key!r} needs a number or a text, not {wanted!r}."
        )
    if wanted is None and operator in ("==", "!="):
        return _NONE if operator == "==" else _EVERY
    return {key: _condition(operator, wanted)}


def _condition(operator: str, wanted: Any) -> dict[str, Any]:
    if operator == "is_empty":
        return {"$or": [{"$exists": False}, {"$in": [None, "", []]}]}
    if operator in ("any", "all"):
        each = [{"$contains": value} for value in wanted]
        if not each:  # all of nothing: the key has a value
            return {"$in": []} if operator == "any" else {"$exists": True, "$ne": None}
        return {"$or" if operator == "any" else "$and": each}
    return {_OPERATORS[operator]: wanted}


def _name(member: Any) -> str:
    """The value of an operator or condition, which may also be a plain string."""
    return str(getattr(member, "value", member))
