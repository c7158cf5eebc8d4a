"""The settings of a recipe that a calibration tries, and the values of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from s3_retriever.calibration.evaluation import Gain
from s3_retriever.codebook import Codebook
from s3_retriever.encoder.caching import query_sides
from s3_retriever.host.taps import Tap
from s3_retriever.recipe import (
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

WEIGHTS = (0.25, 0.5, 1.0, 2.0)
LENGTH_POWERS = (0.0, 0.2, 0.4, 0.6, 0.8)
KERNELS = (1, 4, 8, 16, 32)
WEIGHT_POWERS = (0.25, 0.5, 0.75, 1.0)
IDF_POWERS = (0.5, 1.0, 1.5, 2.0, 3.0)
BM25_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
HOP_WEIGHTS = (0.0, 0.25, 0.5, 1.0)
HOP_BM25_WEIGHTS = (0.0, 0.5, 1.0, 2.0)
BOOST_WEIGHTS = (0.25, 0.5, 1.0)
# Decay and floor.
REDUNDANCIES = ((0.9, 0.5), (0.8, 0.4), (0.7, 0.3))

# Standard errors by which a change must be better. A single standard error would do for a single
# change, but among several, chance always favours some.
_BETTER = 2.0
# The same for settings that questions made without labels judge poorly.
_CLEARLY_BETTER = 4.0

Variants = Iterator[tuple[str, Recipe]]


class Setting(NamedTuple):
    """A setting of the recipe that varies while the others stay.

    Attributes:
        name: Shown in reports.
        variants: Function from a recipe to its variants, each with its new value as text.
        errors: Standard errors by which a variant must be better.
        spares: Whether a variant saves work and need only be as good.
    """

    name: str
    variants: Callable[[Recipe], Variants]
    errors: float = _BETTER
    spares: bool = False

    def keeps(self, gain: Gain) -> bool:
        """Whether a variant with this gain is kept."""
        return gain.mean >= 0 if self.spares else gain.exceeds(self.errors)


def settings(codebook: Codebook, labelled: bool) -> list[Setting]:
    """The settings that are tried for a codebook, in this order.

    Args:
        codebook: Gives the taps.
        labelled: Whether questions come with labels. With questions made from the documents, the
            weight of BM25, the hop, the document boost and redundancy change only if a variant is
            clearly better.
    """
    taps = list(codebook.saes)
    k = max(sae.k for sae in codebook.saes.values())
    top_ks = sorted({max(k // 4, 1), max(k // 2, 1), k})
    hard = _BETTER if labelled else _CLEARLY_BETTER
    return [
        # First, because a variant is compared with each recipe only once.
        *(Setting(str(tap), _without(tap), spares=True) for tap in taps),
        Setting("taps", lambda recipe: _alone(codebook, recipe)),
        *(Setting(str(tap), _weights(tap, codebook)) for tap in taps),
        Setting("sentence", lambda recipe: _sentences(codebook.sentence_layer, recipe)),
        Setting("heads", lambda recipe: _heads(codebook.recipe.heads, recipe)),
        Setting("scoring", _scorings),
        Setting("advanced.weight_power", _field("advanced.weight_power", WEIGHT_POWERS)),
        Setting("advanced.idf_power", _field("advanced.idf_power", IDF_POWERS)),
        Setting(
            "fusion.bm25_weight", _of_z_score(_field("fusion.bm25_weight", BM25_WEIGHTS)), hard
        ),
        Setting("hop", _of_z_score(_hops), hard),
        Setting("hop.weight", _of_hop(_field("hop.weight", HOP_WEIGHTS)), hard),
        Setting("hop.bm25_weight", _of_hop(_field("hop.bm25_weight", HOP_BM25_WEIGHTS)), hard),
        Setting("advanced.document_boost", _of_z_score(_boosts), hard),
        Setting("redundancy", _of_z_score(_redundancies), hard),
        Setting("advanced.doc_top_k", _field("advanced.doc_top_k", top_ks)),
    ]


def _alone(codebook: Codebook, recipe: Recipe) -> Variants:
    for tap in codebook.saes:
        for side in query_sides(tap, recipe, codebook):
            only = {str(tap): TapRecipe(query_side=side)}
            yield f"{tap} alone, {side}", recipe.changed("taps", only)


def _weights(tap: Tap, codebook: Codebook) -> Callable[[Recipe], Variants]:
    name = str(tap)

    def variants(recipe: Recipe) -> Variants:
        others = {key: part for key, part in recipe.taps.items() if key != name}
        # The weight of a single tap changes nothing.
        if not others:
            return
        for side in query_sides(tap, recipe, codebook):
            for weight in WEIGHTS:
                taps = {**others, name: TapRecipe(weight=weight, query_side=side)}
                yield f"{weight}, {side}", recipe.changed("taps", taps)

    return variants


def _without(tap: Tap) -> Callable[[Recipe], Variants]:
    def variants(recipe: Recipe) -> Variants:
        others = {key: part for key, part in recipe.taps.items() if key != str(tap)}
        if others:
            yield "off", recipe.changed("taps", others)

    return variants


def _sentences(layer: int | None, recipe: Recipe) -> Variants:
    if layer is None:
        return
    yield "off", recipe.changed("sentence", None)
    layer = recipe.sentence.layer if recipe.sentence else layer
    for weight in WEIGHTS:
        part = (recipe.sentence or SentenceRecipe(layer=layer)).changed("weight", weight)
        yield f"layer {layer}, {weight}", recipe.changed("sentence", part)


def _heads(known: HeadsRecipe | None, recipe: Recipe) -> Variants:
    """The codebook's heads with several weights; an interleaved recipe can have none."""
    heads = recipe.heads or known
    if heads is None or isinstance(recipe.fusion, Interleave):
        return
    yield "off", recipe.changed("heads", None)
    for weight in WEIGHTS:
        yield str(weight), recipe.changed("heads", heads.changed("weight", weight))


def _scorings(recipe: Recipe) -> Variants:
    for power in LENGTH_POWERS:
        scoring = FeatureCoverage(length_power=power)
        yield f"feature_coverage {power}", recipe.changed("scoring", scoring)
    # Redundancy needs to know which features a sentence covers.
    without = recipe.changed("redundancy", None)
    for kernel in KERNELS:
        yield f"max_token {kernel}", without.changed("scoring", MaxToken(kernel=kernel))


def _field(name: str, values: Iterable[float]) -> Callable[[Recipe], Variants]:
    def variants(recipe: Recipe) -> Variants:
        for value in values:
            yield str(value), recipe.changed(name, value)

    return variants


def _of_z_score(variants: Callable[[Recipe], Variants]) -> Callable[[Recipe], Variants]:
    """No variants for a recipe that interleaves, because it has no weights."""
    return lambda recipe: iter(()) if isinstance(recipe.fusion, Interleave) else variants(recipe)


def _of_hop(variants: Callable[[Recipe], Variants]) -> Callable[[Recipe], Variants]:
    return lambda recipe: iter(()) if recipe.hop is None else variants(recipe)


def _hops(recipe: Recipe) -> Variants:
    if isinstance(recipe.scoring, FeatureAttention):
        return
    yield "off", recipe.changed("hop", None)
    yield "on", recipe.changed("hop", recipe.hop or SecondHop())


def _boosts(recipe: Recipe) -> Variants:
    yield "off", recipe.changed("advanced.document_boost", None)
    part = recipe.advanced.document_boost or DocumentBoost()
    for weight in BOOST_WEIGHTS:
        yield str(weight), recipe.changed("advanced.document_boost", part.changed("weight", weight))


def _redundancies(recipe: Recipe) -> Variants:
    if not isinstance(recipe.scoring, FeatureCoverage):
        return
    yield "off", recipe.changed("redundancy", None)
    for decay, floor in REDUNDANCIES:
        part = Redundancy(decay=decay, floor=floor)
        yield f"{decay}, floor {floor}", recipe.changed("redundancy", part)
