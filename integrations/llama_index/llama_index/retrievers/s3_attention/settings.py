"""What decides which spans come back."""

from __future__ import annotations

from typing import Annotated, Literal

from llama_index.core.vector_stores import MetadataFilters
from pydantic import BaseModel, ConfigDict, Field, field_validator

from llama_index.retrievers.s3_attention.filters import predicate

Mode = Literal["hybrid", "s3", "bm25"]
Order = Literal["score", "document"]
Limit = Annotated[int, Field(strict=True, ge=0)]
Budget = Annotated[int, Field(strict=True, ge=1)]


class Settings(BaseModel):
    """Settings of a retriever, checked; as JSON they are what it keeps on disk."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    similarity_top_k: Limit | None = None
    token_budget: Budget | None = None
    mode: Mode = "hybrid"
    order: Order = "score"
    unique: bool = True
    filters: MetadataFilters | None = None

    @field_validator("filters")
    @classmethod
    def _supported(cls, filters: MetadataFilters | None) -> MetadataFilters | None:
        predicate(filters)
        return filters
