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


def default_recipe(host: Host, saes: Mapping[Tap, TopKSAE]) -> Recipe:
    """What measured best on hidden states of an encoder and on keys of a decoder."""
    hidden = [tap for tap in saes if tap.site == "hidden"]
    sentence = last_sentence_tap(saes) if host.family.bidirectional else None
    k = min(saes[tap].k for tap in hidden or saes)
    return Recipe(
        name="default",
        taps={str(tap): TapRecipe() for tap in hidden or saes},
        sentence=SentenceRecipe(tap=str(sentence)) if sentence else None,
        document_k=min(16, k),
        query_k=k,
        weight_power=1.0 if hidden else 0.5,
        scoring="cover" if hidden else "peak",
        second_hop=SecondHop(),
        document=DocumentRecipe() if hidden else None,
        coverage=CoverageRecipe() if hidden else None,
    )


def paper_recipe(saes: Mapping[Tap, TopKSAE]) -> Recipe:
    """S3-Attention as printed: eq. 7 on all key taps, queries through the key SAE.

    Kernel 8 (the paper's value for question answering), radius 64, union with BM25 and the edges.
    The paper does not state the size of the edges; 32 tokens are taken.

    Raises:
        CodebookError: There is no key tap.
    """
    keys = [tap for tap in sorted(saes) if tap.site == "key"]
    if not keys:
        raise CodebookError(
            "The recipe 'paper' reads attention keys, and this codebook has no key tap; fit "
            "one with: s3 fit HOST --taps key.LAYER ..."
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


def last_sentence_tap(taps: Iterable[Tap]) -> Tap | None:
    """The tap of sentences at the last layer of which there are hidden states, if any."""
    layers = [tap.layer for tap in taps if tap.site == "hidden"]
    return Tap("sentence", max(layers)) if layers else None
