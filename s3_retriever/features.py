"""What the encoder hands to the index and to search: arrays, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from s3_retriever.document import Document

if TYPE_CHECKING:
    from s3_retriever.recipe import Recipe


# Largest dictionary of a tap. Some arrays have an entry for every feature, whatever is indexed.
MAX_FEATURES = 1 << 22


class Sentence(NamedTuple):
    """A sentence of a document.

    Attributes:
        start: Offset of its first character, which is not white space.
        end: Offset after its last character, which is not white space either.
        n_tokens: Number of its tokens; at least one.
    """

    start: int
    end: int
    n_tokens: int


@dataclass(frozen=True)
class Layout:
    """What an index keeps of each token and sentence, beside texts and terms.

    Attributes:
        features: Size of every tap's dictionary, by tap name.
        vector_bytes: Bytes of a sentence's vector; 0 without sentence vectors.
        key_bytes: Bytes of a token's key, by key head, such as `17.1`.
    """

    features: Mapping[str, int]
    vector_bytes: int = 0
    key_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """Consecutive tokens of one document and the sentences that end among them.

    All chunks of a document follow each other. Its sentences share out its tokens, in order.

    Attributes:
        document: The document.
        starts: Character start of each token, uint32 [n], ascending over the whole document.
        sentences: The sentences that are complete with these tokens, m of them.
        terms: For each of these sentences, term hash to number of occurrences; the terms of the
            document's title count in every sentence.
        features: Tap name to the features of each token, int32 [n, k], -1 where fewer than k fire.
        vectors: Quantized mean states of these sentences, uint8 [m, bytes]; None if the recipe
            does not score sentences.
        last: Whether the document ends here.
        keys: Key head to the quantized key of each token, uint8 [n, bytes]; all 0 for attention
            sinks.
        language: The language that the terms were analysed in; empty if it is not listed.
    """

    document: Document
    starts: NDArray[np.uint32]
    sentences: tuple[Sentence, ...]
    terms: tuple[Mapping[int, int], ...]
    features: Mapping[str, NDArray[np.int32]]
    vectors: NDArray[np.uint8] | None
    last: bool
    keys: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    language: str = "en"


@dataclass(frozen=True, slots=True)
class TapFeatures:
    """Features of a question's tokens at one tap.

    Attributes:
        indices: int64 [tokens, k]; -1 where fewer than k fire.
        values: Activations, float32 [tokens, k]; 0 where fewer than k fire.
    """

    indices: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HeadQueries:
    """What a question asks of a key head or a key tap, through each query head that looks there.

    The product of a query and a token's key is the attention logit, but for a constant of the
    query. A key is its 4-bit coordinates at a key head, and at a key tap 1 for each feature that
    fires, else 0.

    Attributes:
        factors: The queries, float32 [n, axes] or [n, features].
        tokens: The question's token that each of them belongs to, int64 [n], ascending.
    """

    factors: NDArray[np.float32]
    tokens: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class EncodedQuestion:
    """A question as its host encodes it.

    Attributes:
        features: Tap name to the features of the question's tokens.
        direction: Direction of the question's mean state along the axes of sentence vectors,
            float32 [axes], of unit length (0 for a question without tokens); None if the recipe
            does not score sentences.
        queries: Key head to the question's queries.
        tap_queries: Tap name to the question's queries, with scoring `FeatureAttention`; then there
            are no features.
    """

    features: Mapping[str, TapFeatures]
    direction: NDArray[np.float32] | None = None
    queries: Mapping[str, HeadQueries] = field(default_factory=dict)
    tap_queries: Mapping[str, HeadQueries] = field(default_factory=dict)


class QuestionEncoder(Protocol):
    """Encodes questions for search; `encoder.Encoder` does."""

    def question(self, text: str, recipe: Recipe) -> EncodedQuestion:
        """Encode a question for a recipe."""
