"""What a search may be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

Mode = Literal["hybrid", "s3", "bm25"]
Order = Literal["score", "document"]
# Metadata that documents must have, or a function of a document's metadata.
Where = Mapping[str, Any] | Callable[[Mapping[str, Any]], bool]


class SearchOptions(TypedDict, total=False):
    """Options of one search; what is left out is as the retriever says.

    Attributes:
        k: Spans at most; None for no such limit, or for 5 where `token_budget` is None as well.
        mode: `s3` (co-activation of features), `bm25`, or `hybrid`, both fused.
        token_budget: Tokens of the host at most, all spans together; None for no such limit.
        where: Metadata that documents must have, such as `{"year": 2024}`, or a function of a
            document's metadata. Applied before ranking.
        order: `score`, best first, or `document`, as in the documents.
        unique: Whether a sentence that stands in several places comes once.
    """

    k: int | None
    mode: Mode
    token_budget: int | None
    where: Where | None
    order: Order
    unique: bool


class Settings(SearchOptions, total=False):
    """What a retriever may be told when it is made.

    Attributes:
        name: Of the retriever, in traces.
        tags: For every call, in traces.
        metadata: For every call, in traces.
    """

    name: str | None
    tags: list[str] | None
    metadata: dict[str, Any] | None
