"""The recipes that a codebook comes with: `default` and `paper`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from s3_retriever.errors import CodebookError
from s3_retriever.host.taps import Tap
from s3_retriever.recipe import (
    CoverageRecipe,
    DocumentRecipe,
    Recipe,
    SecondHop,
    SentenceRecipe,
    TapRecipe,
)
from s3_retriever.sae import TopKSAE

if TYPE_CHECKING:
    from s3_retriever.host import Host


def sentence_layer(recipe: Recipe) -> int | None:
    """Find the layer whose mean states a recipe scores; None if it does not score sentences."""
    return int(recipe.sentence.tap.rpartition(".")[2]) if recipe.sentence else None


def deepest_hidden_layer(taps: Iterable[Tap]) -> int | None:
    """Find the deepest layer with a tap of hidden states; None if there is no such tap."""
    return max((tap.layer for tap in taps if tap.site == "hidden"), default=None)


def default_recipe(host: Host, saes: Mapping[Tap, TopKSAE]) -> Recipe:
    """Choose what measured best for the taps of a codebook.

    Hidden states, by the coverage of their features; an encoder's mean states of sentences too.
    Without hidden states all taps, by their best token.
    """
    hidden = [tap for tap in saes if tap.site == "hidden"]
    layer = deepest_hidden_layer(saes) if host.family.bidirectional else None
    k = min(saes[tap].k for tap in hidden or saes)
    return Recipe(
        name="default",
        taps={str(tap): TapRecipe() for tap in hidden or saes},
        sentence=None if layer is None else SentenceRecipe(tap=f"sentence.{layer}"),
        document_k=min(16, k),
        query_k=k,
        weight_power=1.0 if hidden else 0.5,
        scoring="cover" if hidden else "peak",
        second_hop=SecondHop(),
        document=DocumentRecipe() if hidden else None,
        coverage=CoverageRecipe() if hidden else None,
    )


def paper_recipe(saes: Mapping[Tap, TopKSAE]) -> Recipe:
    """Build S3-Attention as printed: eq. 7 on all key taps, queries through the key SAE.

    Kernel 8 (the paper's value for question answering), radius 64, interleaved with BM25 and the
    edges. The paper does not give the size of the edges; this takes 32 tokens.

    Raises:
        CodebookError: There is no key tap.
    """
    keys = [tap for tap in sorted(saes) if tap.site == "key"]
    if not keys:
        raise CodebookError(
            "The recipe 'paper' reads attention keys, and this codebook has no key tap; fit "
            "one with: s3r fit HOST --taps key.LAYER ..."
        )
    k = min(saes[tap].k for tap in keys)
    return Recipe(
        name="paper",
        taps={str(tap): TapRecipe(query_side="query") for tap in keys},
        document_k=k,
        query_k=k,
        weight_power=1.0,
        idf_power=1.0,
        scoring="peak",
        kernel=8,
        radius=64,
        fusion="union",
        edges=32,
    )
