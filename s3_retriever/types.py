"""Types that every room uses, and checks of arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
# What evidence is made of: sentences, or lines that are never cut or joined.
Unit = Literal["sentence", "line"]
# Metadata that documents must have, or a function of a document's metadata.
Where = Mapping[str, Any] | Callable[[Mapping[str, Any]], bool]
# The projection that a question's features are read from at a key tap.
QuerySide = Literal["same", "query"]
# A signal that can find a span.
Source = Literal["s3", "sentence", "bm25", "edge", "hop"]
# What can raise or lower a span's score.
Contribution = Literal[Source, "document", "redundancy"]

# One score per sentence, float64 [sentences].
Scores = NDArray[np.float64]


def check_count(value: object, name: str) -> None:
    """Check that a value is a count of at least 1.

    Raises:
        InputError: It is not; booleans are refused too.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, not {value!r}.")


def check_text(value: object, name: str) -> str:
    """Check that a value is Unicode text and not blank.

    Raises:
        InputError: It is not a string, is blank, or has a lone surrogate.
    """
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"The {name} is empty; write something.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"The {name} has a lone surrogate, which is not valid Unicode; decode its source with "
            "errors='replace'."
        ) from None
    return value


def check_choice(value: object, name: str, choices: Any) -> None:
    """Check that a value is one of a `Literal`'s.

    Raises:
        InputError: It is not.
    """
    *others, last = get_args(choices)
    if value not in [*others, last]:
        raise InputError(f"{name} must be {', '.join(others)} or {last}, not {value!r}.")
