"""`Recipe`: every choice of the scorer, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from s3_retriever.errors import InputError
from s3_retriever.types import QuerySide, check_string

# Bounds of all numbers. A recipe may come with an index or a codebook from someone else, and these
# keep what it asks for within memory and within the range of a float.
_COUNT = 1 << 31
_FEW = 1 << 12
# Each takes as much memory as the scores of all sentences.
_MOST_BRIDGES = 64
_LARGEST_WEIGHT = 1e6
_LARGEST_POWER = 16.0

Weight = Annotated[float, Field(ge=0, le=_LARGEST_WEIGHT)]
PositiveWeight = Annotated[float, Field(gt=0, le=_LARGEST_WEIGHT)]
Power = Annotated[float, Field(ge=0, le=_LARGEST_POWER)]
# Of a few spans, documents or features.
Few = Annotated[int, Field(ge=1, le=_FEW)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, fields: Any) -> Any:
        """Take NumPy's numbers, and refuse booleans, which pydantic would take for 0 and 1."""
        if not isinstance(fields, Mapping):
            return fields
        for name, value in fields.items():
            if isinstance(value, (bool, np.bool_)):
                raise ValueError(f"{name} must not be a boolean")  # noqa: TRY004
        return {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in fields.items()
        }

    def changed(self, field: str, value: object) -> Self:
        """Return a copy with one field changed.

        Args:
            field: Name of the field; dots lead into parts, as in `hop.weight`.
            value: Its new value.

        Raises:
            InputError: The field is in a part that this recipe does not have.
            ValidationError: There is no such field, or the value does not fit it or the rest.
        """
        name, _, rest = check_string(field, "field").partition(".")
        if rest:
            part = getattr(self, name, None)
            if not isinstance(part, _Part):
                raise InputError(f"{rest!r} belongs to {name!r}, which is not set; set that first.")
            value = part.changed(rest, value)
        return self.model_validate({**dict(self), name: value})


class TapRecipe(_Part):
    """How one tap scores.

    Attributes:
        weight: Factor of the tap's co-activation.
        query_side: Where the question's features come from. `same`: the tap's own site. At key
            taps also `decoder`: a feature weighs what the question's queries make of its decoder
            direction, `q . W_dec[f]`, so that a key's features add up to its attention logit, which
            scoring `FeatureAttention` needs; or `query`: the queries encoded by the key SAE, as the
            paper has it.
    """

    weight: PositiveWeight = 1.0
    query_side: QuerySide = "same"


class RelevanceRecipe(_Part):
    """What makes evidence likelier than chance, for one host.

    The log-odds that a sentence is evidence rather than drawn at random are

        bias + similarity * cosine + words * coverage

    where coverage is the share of the question's words that the sentence has, weighted by their
    IDF; in mode `s3`, which looks at no words, it counts as 0.1.

    Attributes:
        similarity: Factor of the cosine.
        words: Factor of the coverage.
        bias: Log-odds of a sentence that has nothing of the question.
    """

    similarity: PositiveWeight
    words: Weight
    bias: float = Field(ge=-_LARGEST_WEIGHT, le=_LARGEST_WEIGHT)


class SentenceRecipe(_Part):
    """How the mean states of sentences score.

    Texts on one subject share most features of their tokens; what a sentence says as a whole sets
    it apart. The index keeps the direction of each sentence's mean state, which scores by its
    cosine with the direction of the question's.

    Attributes:
        layer: Layer whose output is averaged, counted from 0.
        weight: Factor of the cosine, in units of its standard deviation; co-activation weighs 1.
        relevance: What the cosine says about relevance; None if that was not measured for the
            host: then the best span of every question has relevance 1, except in mode `bm25`.
    """

    layer: int = Field(ge=0, le=_FEW)
    weight: PositiveWeight = 0.5
    relevance: RelevanceRecipe | None = None


# A query head: a layer, a dot and a number.
HeadName = Annotated[str, Field(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}$")]


class HeadsRecipe(_Part):
    """How retrieval heads score.

    A few heads of a language model look from a question at what answers it. The index keeps the
    keys of their tokens. A token scores the attention that the question's tokens pay to it (the
    softmax of `q . k` over the candidates, before the rotary embedding, the mean over the
    question's tokens and the heads); a sentence scores the sum over its tokens, divided by the root
    of their number.

    Attributes:
        query_heads: The heads, such as `17.5`: layer and number, both counted from 0.
        weight: Factor of the score, in units of its standard deviation; co-activation weighs 1.
        candidates: Most tokens that are scored. An index with more scores those of the sentences
            that the other signals rank best.
    """

    query_heads: Annotated[tuple[HeadName, ...], Field(min_length=1, max_length=64)]
    weight: PositiveWeight = 0.5
    candidates: int = Field(default=1 << 16, ge=1, le=1 << 20)


class FeatureCoverage(_Part):
    """A sentence scores the sum of W[f] over the distinct features that fire in it.

    Attributes:
        length_power: How strongly long sentences are discounted: the sum is divided by
            `tokens ** length_power`.
    """

    kind: Literal["feature_coverage"] = "feature_coverage"
    length_power: Power = 0.4


class MaxToken(_Part):
    """A sentence scores what its best token scores after smoothing (S3-Attention).

    Attributes:
        kernel: Width in tokens of the box kernel that smooths scores within a document.
    """

    kind: Literal["max_token"] = "max_token"
    kernel: int = Field(default=8, ge=1, le=_COUNT)


class FeatureAttention(_Part):
    """A sentence scores the attention that the question pays to the features of its tokens.

    Each token of the question looks by itself, through every query head. Its logit for a token is
    the sum over the features that fire there of `q . W_dec[f] * a[f] / sqrt(head size)`, where a[f]
    is the feature's mean activation: the attention logit of the key that these features stand for,
    but for a constant of the query. A softmax over all tokens that are scored makes attention of
    it. A token scores the mean over the question's tokens and the heads; a sentence scores the sum
    over its tokens, divided by the root of their number.

    Needs key taps with query side `decoder`. Neither IDF nor pooling plays a part in it.
    """

    kind: Literal["feature_attention"] = "feature_attention"


class ZScore(_Part):
    """Signals are standardised and added.

    Attributes:
        bm25_weight: Weight of BM25; co-activation weighs 1.
        candidates: How many of each signal's best sentences enter the mean and the deviation by
            which scores are standardised.
    """

    kind: Literal["z_score"] = "z_score"
    bm25_weight: Weight = 1.0
    candidates: int = Field(default=256, ge=1, le=_COUNT)


class Interleave(_Part):
    """The signals' rankings take turns, best first, as in the paper (M_S3 U M_BM25 U M_bias).

    Attributes:
        edge_tokens: How many tokens at the start and at the end of the index are always added
            (M_bias).
    """

    kind: Literal["interleave"] = "interleave"
    edge_tokens: int = Field(default=0, ge=0, le=_COUNT)


class SecondHop(_Part):
    """A second pass for questions whose evidence lies in more than one document.

    "Where was the director of X born?" shares nothing with the sentence that answers it, but the
    sentence that names the director does. The best spans of the first pass, the bridges, become
    questions themselves: the features and terms that they have beyond the question are looked up
    in other documents. The index holds both, so the host does not run again. Only what stands out
    counts: a sentence gains the margin by which it matches a bridge better than the bridge's next
    neighbour, and never more than the bridges themselves.

    Attributes:
        bridges: How many spans of the first pass start the second one.
        neighbours: How many sentences each bridge may add to; an index with no more sentences
            than that gets no second hop.
        weight: Factor of the co-activation with a bridge, in units of its standard deviation.
        bm25_weight: Factor of the BM25 score with a bridge as the question, in the same units; mode
            `hybrid` only.
        similarity_weight: Factor of the cosine with a bridge's sentence vector, less what bridge
            and question have in common, in the same units; mode `s3` only.
        idf_power: Exponent of the IDF of a bridge's features. It is high because most features of
            a bridge lead nowhere, and those that lead on are rare.
    """

    bridges: int = Field(default=3, ge=1, le=_MOST_BRIDGES)
    neighbours: int = Field(default=10, ge=1, le=_COUNT)
    weight: Weight = 0.5
    bm25_weight: Weight = 1.0
    similarity_weight: Weight = 0.0
    idf_power: Power = 3.0


class Redundancy(_Part):
    """How spans that repeat what is already chosen are discounted.

    Each time a span is chosen, the weight of every feature and term of the question that it covers
    is multiplied by `decay` for the spans that follow, down to `floor` times the full weight: most
    questions have all their evidence around the same words.

    Attributes:
        decay: Factor of a feature's or a term's weight each time a chosen span has it.
        floor: The smallest factor of a weight.
    """

    decay: float = Field(default=0.7, ge=0, le=1)
    floor: float = Field(default=0.3, ge=0, le=1)


class DocumentBoost(_Part):
    """How the best documents lift their sentences, in mode `hybrid`.

    If a question is about one document, more of its sentences are evidence than their own words
    suggest. A document scores what its best sentence scores; all of its sentences gain the margin
    by which it beats the best of the documents that are not boosted.

    Attributes:
        weight: Factor of the margin.
        best: How many documents are boosted; an index with no more documents gets no boost.
    """

    weight: PositiveWeight = 0.5
    best: int = Field(default=2, ge=1, le=_COUNT)


class Advanced(_Part):
    """Choices that few users change.

    Attributes:
        doc_top_k: Features kept per document token and tap; at most the SAE's k.
        query_top_k: Features kept per question token and tap.
        pooling: How the activations of a question's tokens become one weight.
        weight_power: Exponent of the pooled activation.
        idf_power: Exponent of the IDF.
        radius: Tokens on either side of a peak that a span covers before it grows to sentence
            boundaries; 0 for the peak's own sentence.
        document_boost: How the best documents lift their sentences; None for no boost. Needs
            fusion `ZScore`.
    """

    doc_top_k: Few = 16
    query_top_k: Few = 32
    pooling: Literal["sum", "max"] = "sum"
    weight_power: Power = 0.5
    idf_power: Power = 1.5
    radius: int = Field(default=0, ge=0, le=_COUNT)
    document_boost: DocumentBoost | None = None


class Recipe(_Part):
    """How documents are indexed and questions are scored.

    A feature f of the question weighs

        W[f] = weight * w[f] ** weight_power * IDF(f) ** idf_power

    where w[f] is its activation in the question, pooled over the question's tokens, and IDF(f) =
    -log(share of the index's tokens on which f fires). A token scores the sum of W[f] over the
    features that fire on it (S3-Attention, eq. 7, where both powers are 1). With scoring
    `FeatureAttention`, tokens score otherwise.

    Attributes:
        name: Shown in reports.
        taps: How each tap scores, by tap name, such as `hidden.5`. Without taps the host never
            runs, and BM25 alone ranks.
        sentence: How the mean states of sentences score; None if they do not.
        heads: How retrieval heads score; None if they do not. Needs fusion `ZScore`.
        scoring: How tokens and sentences score: `FeatureCoverage`, `MaxToken` or
            `FeatureAttention`, which has no hop.
        fusion: How signals become one ranking: `ZScore` or `Interleave`.
        hop: The second pass; None for a single pass. Needs fusion `ZScore`.
        redundancy: How repetition is discounted; None for no discount. Needs `ZScore` and
            `FeatureCoverage`.
        advanced: Everything else.
    """

    name: str = "custom"
    taps: dict[str, TapRecipe]
    sentence: SentenceRecipe | None = None
    heads: HeadsRecipe | None = None
    scoring: Annotated[
        FeatureCoverage | MaxToken | FeatureAttention, Field(discriminator="kind")
    ] = MaxToken()
    fusion: Annotated[ZScore | Interleave, Field(discriminator="kind")] = ZScore()
    hop: SecondHop | None = None
    redundancy: Redundancy | None = None
    advanced: Advanced = Advanced()

    @property
    def sentence_layer(self) -> int | None:
        """Layer whose mean states score sentences; None if the recipe does not score them."""
        return None if self.sentence is None else self.sentence.layer

    @model_validator(mode="after")
    def _parts_go_together(self) -> Recipe:
        added = {
            "heads": self.heads,
            "hop": self.hop,
            "redundancy": self.redundancy,
            "advanced.document_boost": self.advanced.document_boost,
        }
        if isinstance(self.fusion, Interleave):
            for name, part in added.items():
                if part is not None:
                    raise ValueError(f"{name} needs fusion z_score, not interleave")
        kind = self.scoring.kind
        if self.redundancy is not None and not isinstance(self.scoring, FeatureCoverage):
            raise ValueError(f"redundancy needs scoring feature_coverage, not {kind}")
        if isinstance(self.scoring, FeatureAttention):
            if self.hop is not None:
                raise ValueError(f"hop needs scoring feature_coverage or max_token, not {kind}")
            for tap, settings in self.taps.items():
                if settings.query_side != "decoder":
                    side = settings.query_side
                    raise ValueError(
                        f"scoring {kind} needs query_side decoder, not {side} at {tap}"
                    )
        return self
