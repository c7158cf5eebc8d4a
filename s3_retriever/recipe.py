"""`Recipe`: every choice of the scorer as data."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


class SentenceRecipe(BaseModel):
    """How the mean states of sentences take part in scoring.

    What a sentence says as a whole tells texts on one subject apart, which share most features of
    their tokens. The direction of its mean state is kept, and scores by its cosine with that of
    the question's mean state.

    Attributes:
        tap: Such as `sentence.5`.
        weight: Of the cosine in units of its standard deviation; co-activation has 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tap: str
    weight: float = Field(default=0.5, gt=0)


class DocumentRecipe(BaseModel):
    """How documents as wholes take part in scoring, in mode `hybrid`.

    Where one document is what the question is about, more of its sentences are evidence than
    their own words tell. So the sentences of the best documents gain: a document scores as its
    best sentence does, and what that exceeds the best documents' next one by goes to all of its
    sentences. Where many documents match alike, none gains, nor do they where there are no more.

    Attributes:
        weight: Of what a document's best sentence exceeds the next document's by.
        best: Documents that may gain; in an index that has no more, none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=0.5, gt=0)
    best: int = Field(default=2, ge=1)


class CoverageRecipe(BaseModel):
    """How much counts again what the spans taken so far have of the question.

    A span that repeats the best one's features and words adds less than one that has others. So
    whenever a span is taken, the features and the words of the question that it has are worth
    `decay` times what they were to the spans to come, but never less than `floor` of it: most
    questions have their evidence where the same words are. What else adds to a score stays.

    Attributes:
        decay: What is left of a feature's or a word's weight whenever a span has it.
        floor: What is left of it at least.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decay: float = Field(default=0.7, ge=0, le=1)
    floor: float = Field(default=0.3, ge=0, le=1)


class SecondHop(BaseModel):
    """A second pass for questions whose evidence lies in more than one document.

    "Where was the director of X born?" shares nothing with the sentence that answers it, but the
    sentence that names the director does. So the best spans of the first pass, the bridges, are
    taken as questions themselves: what they have beyond the question, features and terms, is
    looked for in other documents. The index knows both, so that the host reads the question only.
    What stands out is added to the score and no more, so that questions with all their evidence
    in one place lose nothing: a sentence gains what its match with a bridge exceeds that of the
    bridge's other neighbours, and at most what the bridges themselves get.

    Attributes:
        bridges: Spans of the first pass that the second one sets out from.
        neighbours: Sentences that a bridge may add to; in an index that has no more, none.
        weight: Of the co-activation with a bridge, in units of its standard deviation.
        lexical_weight: Of BM25 with a bridge, likewise; in mode `hybrid` only.
        idf_power: Exponent of the IDF of a bridge's features: a bridge is no question, most of
            it leads nowhere, and what does is rare.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bridges: int = Field(default=3, ge=1)
    neighbours: int = Field(default=10, ge=1)
    weight: float = Field(default=0.5, ge=0)
    lexical_weight: float = Field(default=1.0, ge=0)
    idf_power: float = Field(default=3.0, ge=0)


class Recipe(BaseModel):
    """How documents are indexed and questions are scored.

    A feature f of the question weighs

        W[f] = weight * w[f] ** weight_power * IDF(f) ** idf_power

    where w[f] is its activation in the question, pooled over the question's tokens, and IDF(f) =
    -log(share of the index's tokens on which f fires). A token scores the sum of W[f] over the
    features that fire on it (S3-Attention, eq. 7, where both powers are 1).

    Attributes:
        name: Shown in reports.
        taps: Tap name (such as `hidden.5`) to its part in the score.
        sentence: How the mean states of sentences are scored besides; None for not at all.
        document_k: Features kept per document token and tap (the SAE's k at most).
        query_k: Features kept per question token and tap.
        pooling: Over the question's tokens: `sum` or `max`.
        weight_power: Exponent of the pooled activation.
        idf_power: Exponent of the IDF.
        scoring: How a sentence scores. `peak`: as its best token after smoothing, as in the
            paper. `cover`: the sum of W[f] over the distinct features that fire in it, over
            `tokens ** length_power`.
        kernel: With `peak`, tokens of the box kernel that smooths scores within a document.
        length_power: With `cover`, how much a long sentence is discounted.
        radius: Tokens on either side of a peak that a span covers at least, before it is widened
            to sentence boundaries; 0 for the peak's own sentence.
        fusion: `sum`: standardised scores added, `lexical_weight` times BM25; `union`: the
            rankings' best in turn, as in the paper.
        lexical_weight: Weight of BM25 in fusion by sum.
        candidates: Sentences that each ranking contributes to those over whose scores all are
            standardised before they are added.
        edges: Tokens at the first and the last end of the index that the union adds (M_bias).
        second_hop: A second pass that sets out from the best spans of the first; None for one
            pass. It is added to the score, so that it goes with fusion by sum only.
        document: What sentences gain from the document they stand in; None for nothing. Added to
            the score likewise.
        coverage: How much counts again what the spans taken so far have of the question; None
            for all of it. With fusion by sum and scoring by `cover` only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "custom"
    taps: dict[str, TapRecipe] = Field(min_length=1)
    sentence: SentenceRecipe | None = None
    document_k: int = Field(default=16, ge=1)
    query_k: int = Field(default=32, ge=1)
    pooling: Literal["sum", "max"] = "sum"
    weight_power: float = Field(default=0.5, ge=0)
    idf_power: float = Field(default=1.5, ge=0)
    scoring: Literal["peak", "cover"] = "peak"
    kernel: int = Field(default=8, ge=1)
    length_power: float = Field(default=0.4, ge=0)
    radius: int = Field(default=0, ge=0)
    fusion: Literal["sum", "union"] = "sum"
    lexical_weight: float = Field(default=1.0, ge=0)
    candidates: int = Field(default=256, ge=1)
    edges: int = Field(default=0, ge=0)
    second_hop: SecondHop | None = None
    document: DocumentRecipe | None = None
    coverage: CoverageRecipe | None = None

    @property
    def tap_names(self) -> list[str]:
        """Names of all taps, that of sentences last."""
        return [*self.taps, *([self.sentence.tap] if self.sentence else [])]

    @model_validator(mode="after")
    def _parts_are_added(self) -> Recipe:
        for name in ("second_hop", "document", "coverage"):
            if getattr(self, name) is not None and self.fusion != "sum":
                raise ValueError(f"{name} needs fusion 'sum'")
        if self.coverage is not None and self.scoring != "cover":
            raise ValueError("coverage needs scoring 'cover'")
        return self
