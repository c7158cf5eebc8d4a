"""Settings and questions: types and checks."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo

from s3_retriever.types import check_count, check_share


def _count(value: Any, field: ValidationInfo) -> int | None:
    return None if value is None else check_count(value, field.field_name or "")


def _share(value: Any, field: ValidationInfo) -> float | None:
    return check_share(value, field.field_name or "")


# Whole numbers of at least 1, and numbers from 0 to 1, also NumPy's; True is not a number.
Count = Annotated[int | None, BeforeValidator(_count)]
Share = Annotated[float | None, BeforeValidator(_share)]


def is_blank(query: object) -> bool:
    """Whether a question says nothing, as in a model's empty line or an agent's empty call."""
    return isinstance(query, str) and not query.strip()
