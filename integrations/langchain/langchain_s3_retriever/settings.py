"""Settings and questions: types and checks."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from s3_retriever import InputError


def _whole(value: Any) -> Any:
    """Take whole numbers of any library, such as numpy; True is not a number."""
    if isinstance(value, bool):
        raise ValueError(f"must be a whole number, not {value}")  # noqa: TRY004 - for pydantic
    try:
        return operator.index(value)
    except TypeError:
        return value


Count = Annotated[int, BeforeValidator(_whole), Field(strict=True, ge=1)]


def refuse_filter(options: Iterable[str]) -> None:
    """Refuse `filter`, as vector stores call it.

    Raises:
        InputError: It is among the options.
    """
    if "filter" in options:
        raise InputError(
            "S3Retriever has no filter; write where={...}, which takes the same operators."
        )


def is_blank(query: object) -> bool:
    """Whether a question says nothing, as in a model's empty line or an agent's empty call."""
    return isinstance(query, str) and not query.strip()
