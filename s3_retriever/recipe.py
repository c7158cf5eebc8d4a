"""`Recipe`: every choice of the scorer as data."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

QuerySide = Literal["same", "query"]


class TapRecipe(BaseModel):
    """How one tap takes part in scoring.

    Attributes:
        weight: Factor of the tap's co-activation score.
        query_side: What the question's features are read from: `same`, the tap's own site, or
            `query`, the query projection of the same layer, encoded by the key SAE as in the
            paper.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=1.0, gt=0)
    query_side: QuerySide = "same"


class Recipe(BaseModel):
    """How documents are indexed and questions are scored.

    The score of a token (S3-Attention, eq. 7, is the case where both powers are 1) is

        S[t] = sum over taps, sum over features f of the question that fire on t of
               weight * w[f] ** weight_power * IDF(f) ** idf_power

    where w[f] is the feature's activation in the question, pooled over its tokens, and
    IDF(f) = -log(share of the index's tokens on which f fires).

    Attributes:
        name: Shown in reports.
        taps: Tap name (such as `hidden.5`) to its part in the score.
        document_k: Features kept per document token and tap (the SAE's k at most).
        query_k: Features kept per question token and tap.
        pooling: Over the question's tokens: `sum` or `max`.
        weight_power: Exponent of the pooled activation.
        idf_power: Exponent of the IDF.
        kernel: Tokens of the box kernel that smooths the scores within a document.
        radius: Tokens on either side of a peak that a span covers at least, before it is widened
            to sentence boundaries; 0 for the peak's own sentence.
        fusion: `sum`: standardised scores added, `lexical_weight` times BM25; `union`: the
            rankings' best in turn, as in the paper.
        lexical_weight: Weight of BM25 in fusion by sum.
        edges: Tokens at the first and the last end of the index that the union adds (M_bias).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "custom"
    taps: dict[str, TapRecipe] = Field(min_length=1)
    document_k: int = Field(default=16, ge=1)
    query_k: int = Field(default=32, ge=1)
    pooling: Literal["sum", "max"] = "sum"
    weight_power: float = Field(default=0.5, ge=0)
    idf_power: float = Field(default=1.5, ge=0)
    kernel: int = Field(default=8, ge=1)
    radius: int = Field(default=0, ge=0)
    fusion: Literal["sum", "union"] = "sum"
    lexical_weight: float = Field(default=0.5, ge=0)
    edges: int = Field(default=0, ge=0)
