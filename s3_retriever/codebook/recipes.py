"""The recipes that come with a codebook: `default`, `paper` and `paper-literal`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from s3_retriever.errors import CodebookError
from s3_retriever.host.taps import Tap
from s3_retriever.recipe import (
    Advanced,
    DocumentBoost,
    FeatureCoverage,
    Interleave,
    MaxToken,
    Recipe,
    Redundancy,
    SecondHop,
    SentenceRecipe,
    TapRecipe,
)
from s3_retriever.sae import TopKSAE

if TYPE_CHECKING:
    from s3_retriever.host import Host


def default_recipe(host: Host, saes: Mapping[Tap, TopKSAE]) -> Recipe:
    """The recipe that measured best: on hidden taps if there are any, else on key taps."""
    hidden = [tap for tap in saes if tap.site == "hidden"]
    layer = deepest_hidden_layer(saes) if host.family.bidirectional else None
    k = min(saes[tap].k for tap in hidden or saes)
    return Recipe(
        name="default",
        taps={str(tap): TapRecipe() for tap in hidden or saes},
        sentence=None if layer is None else SentenceRecipe(layer=layer),
        scoring=FeatureCoverage() if hidden else MaxToken(),
        hop=SecondHop(),
        redundancy=Redundancy() if hidden else None,
        advanced=Advanced(
            doc_top_k=min(16, k),
            query_top_k=k,
            weight_power=1.0 if hidden else 0.5,
            document_boost=DocumentBoost() if hidden else None,
        ),
    )


# A sum over so many decoder directions is close to that over all of them.
_DECODER_TOP_K = 256


def paper_recipe(saes: Mapping[Tap, TopKSAE], *, literal: bool = False) -> Recipe:
    """S3-Attention, eq. 7, on all key taps.

    Kernel 8 (the paper's value for question answering), radius 64, union with BM25 and the edges
    of the context. The paper does not state the size of the edges; 32 tokens are an assumption.

    Args:
        saes: The codebook's SAEs.
        literal: Whether queries are encoded by the key SAE, as printed. Queries are no keys: at
            most layers that finds nothing. Otherwise features weigh what the queries make of the
            SAE's decoder.

    Raises:
        CodebookError: There is no key tap.
    """
    keys = [tap for tap in sorted(saes) if tap.site == "key"]
    if not keys:
        raise CodebookError(
            "Recipe 'paper' reads attention keys, and this codebook has no key tap; fit one with: "
            "s3r fit HOST --taps key.LAYER ..."
        )
    k = min(saes[tap].k for tap in keys)
    query_top_k = k if literal else min(_DECODER_TOP_K, *(saes[tap].features for tap in keys))
    part = TapRecipe(query_side="query" if literal else "decoder")
    return Recipe(
        name="paper-literal" if literal else "paper",
        taps={str(tap): part for tap in keys},
        scoring=MaxToken(kernel=8),
        fusion=Interleave(edge_tokens=32),
        advanced=Advanced(
            doc_top_k=k, query_top_k=query_top_k, weight_power=1.0, idf_power=1.0, radius=64
        ),
    )


def deepest_hidden_layer(taps: Iterable[Tap]) -> int | None:
    """The deepest layer with a hidden tap; None without one."""
    return max((tap.layer for tap in taps if tap.site == "hidden"), default=None)
