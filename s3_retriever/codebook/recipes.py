"""The recipes that come with a codebook, and which others it can serve."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from s3_retriever.errors import CodebookError, InputError
from s3_retriever.host.taps import Head, Tap
from s3_retriever.recipe import (
    Advanced,
    DocumentBoost,
    FeatureAttention,
    FeatureCoverage,
    HeadsRecipe,
    Interleave,
    MaxToken,
    Recipe,
    Redundancy,
    SecondHop,
    SentenceRecipe,
    TapRecipe,
)
from s3_retriever.sae import TopKSAE
from s3_retriever.types import check_type

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
    """S3-Attention on all key taps, in union with BM25 and the edges of the context.

    The paper does not state the size of the edges; 32 tokens are an assumption.

    Args:
        saes: The codebook's SAEs.
        literal: Whether questions are encoded by the key SAE and scored by eq. 7, as printed, with
            kernel 8 (the paper's value for question answering) and radius 64. Queries are no keys:
            at most layers that finds nothing. Otherwise each token of the question looks at
            features through the SAE's decoder, and spans are the sentences that it looks at. SAEs
            without mean activations, which that needs, are scored by eq. 7 too.

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
    attends = not literal and all(saes[tap].mean_activations is not None for tap in keys)
    query_top_k = k if literal else min(_DECODER_TOP_K, *(saes[tap].features for tap in keys))
    part = TapRecipe(query_side="query" if literal else "decoder")
    return Recipe(
        name="paper-literal" if literal else "paper",
        taps={str(tap): part for tap in keys},
        scoring=FeatureAttention() if attends else MaxToken(kernel=8),
        fusion=Interleave(edge_tokens=32),
        advanced=Advanced(
            doc_top_k=k,
            query_top_k=query_top_k,
            weight_power=1.0,
            idf_power=1.0,
            radius=0 if attends else 64,
        ),
    )


def deepest_hidden_layer(taps: Iterable[Tap]) -> int | None:
    """The deepest layer with a hidden tap; None without one."""
    return max((tap.layer for tap in taps if tap.site == "hidden"), default=None)


def grouped_heads(recipe: Recipe, queries_per_key: int) -> dict[Head, list[Head]]:
    """The key heads that a recipe needs, each with the recipe's query heads."""
    grouped: dict[Head, list[Head]] = {}
    for name in () if recipe.heads is None else recipe.heads.query_heads:
        head = Head.parse(name)
        group = grouped.setdefault(head.key_head(queries_per_key), [])
        if head not in group:
            group.append(head)
    return grouped


def with_query_heads(recipe: Recipe, heads: Sequence[Head]) -> Recipe:
    """A recipe that scores these query heads; none at all without any.

    Raises:
        InputError: The recipe cannot score heads, or not so many.
    """
    try:
        scored = HeadsRecipe(query_heads=tuple(map(str, heads))) if heads else None
        return recipe.changed("heads", scored)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(
            f"Recipe {recipe.name!r} cannot score {len(heads)} query heads: {message}."
        ) from error


def check_recipe(
    recipe: Recipe, taps: Collection[Tap], key_heads: Collection[Head], queries_per_key: int
) -> None:
    """Refuse a recipe that a codebook with these taps and key heads cannot serve.

    Raises:
        CodebookError: The recipe needs a tap or a head that the codebook does not have, or
            uses a query side at a tap other than a key tap.
        InputError: The recipe has a tap name that cannot be read.
    """
    check_type(recipe, Recipe, "recipe")
    needed = [Tap.parse(name) for name in recipe.taps]
    layer = recipe.sentence_layer
    if layer is not None:
        needed.append(Tap("hidden", layer))
    for tap in needed:
        if tap not in taps:
            raise CodebookError(
                f"Recipe {recipe.name!r} needs the tap {tap}, which this codebook does not "
                f"have (it has {', '.join(map(str, taps)) or 'none'}); fit a codebook "
                "with that tap."
            )
    for key_head, heads in grouped_heads(recipe, queries_per_key).items():
        if key_head not in key_heads:
            known = ", ".join(map(str, sorted(key_heads))) or "none"
            raise CodebookError(
                f"Recipe {recipe.name!r} needs the query head {heads[0]}, whose key head "
                f"{key_head} this codebook does not have (it has {known}); fit a codebook with "
                f"--head {heads[0]}, or use a recipe without heads."
            )
    for name, part in recipe.taps.items():
        if part.query_side != "same" and Tap.parse(name).site != "key":
            raise CodebookError(
                f"Recipe {recipe.name!r} has query_side {part.query_side!r} at {name}, which "
                "only key taps support; use 'same'."
            )


def check_activations(recipe: Recipe, saes: Mapping[Tap, TopKSAE]) -> None:
    """Refuse a recipe that needs mean activations that its SAEs come without.

    Raises:
        CodebookError: It does.
    """
    for name in recipe.taps if isinstance(recipe.scoring, FeatureAttention) else ():
        if saes[Tap.parse(name)].mean_activations is None:
            raise CodebookError(
                f"Recipe {recipe.name!r} has scoring feature_attention, which needs the mean "
                f"activations of the features at {name}, and this codebook does not have them; "
                "fit it again, or use scoring max_token."
            )


def check_default_recipe(
    recipe: Recipe, taps: Collection[Tap], key_heads: Collection[Head], queries_per_key: int
) -> None:
    """Refuse a recipe that cannot be the default of a codebook with these taps and key heads.

    Raises:
        S3Error: As `check_recipe`; also if the recipe uses no tap.
    """
    check_recipe(recipe, taps, key_heads, queries_per_key)
    if taps and not recipe.taps:
        raise CodebookError(
            f"Recipe {recipe.name!r} uses none of the codebook's taps, so it cannot be its "
            f"default; add one of {', '.join(map(str, taps))}."
        )
