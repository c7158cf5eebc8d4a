"""Types of settings."""

from __future__ import annotations

import operator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _whole(value: Any) -> Any:
    """Take whole numbers of any library, such as numpy; True is not a number."""
    if isinstance(value, bool):
        raise ValueError(f"must be a whole number, not {value}")  # noqa: TRY004 - for pydantic
    try:
        return operator.index(value)
    except TypeError:
        return value


Count = Annotated[int, BeforeValidator(_whole), Field(strict=True, ge=1)]
