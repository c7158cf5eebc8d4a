"""The settings of a recipe that a calibration tries, and their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from s3_retriever.calibration.evaluation import Gain
from s3_retriever.codebook import Codebook
from s3_retriever.encoder.caching import query_sides
from s3_retriever.host.taps import Tap
from s3_retriever.recipe import (
    CoverageRecipe,
    DocumentRecipe,
    Recipe,
    SecondHop,
    SentenceRecipe,
    TapRecipe,
)

TAP_WEIGHTS = (0.25, 0.5, 1.0, 2.0)
LENGTH_POWERS = (0.0, 0.2, 0.4, 0.6, 0.8)
KERNELS = (1, 4, 8, 16, 32)
WEIGHT_POWERS = (0.25, 0.5, 0.75, 1.0)
IDF_POWERS = (0.5, 1.0, 1.5, 2.0, 3.0)
LEXICAL_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
HOP_WEIGHTS = (0.0, 0.25, 0.5, 1.0)
HOP_LEXICAL_WEIGHTS = (0.0, 0.5, 1.0, 2.0)
DOCUMENT_WEIGHTS = (0.25, 0.5, 1.0)
# Decay and floor.
COVERAGES = ((0.9, 0.5), (0.8, 0.4), (0.7, 0.3))

# Standard errors by which a change must be better than what is there. One would do for a single
# change; here the best of several is looked at, and chance favours one of them.
_BETTER = 2.0
# The same for what questions made without labels are a poor judge of.
_CLEARLY_BETTER = 4.0

Variants = Iterator[tuple[str, Recipe]]


class Setting(NamedTuple):
    """One thing that is varied while the rest stays.

    Attributes:
        name: Shown in reports.
        variants: From a recipe to its variants, each with the value that it differs in.
        errors: Standard errors by which a variant must be better.
        spares: Whether a variant spares work, so that it need only be as good.
    """

    name: str
    variants: Callable[[Recipe], Variants]
    errors: float = _BETTER
    spares: bool = False

    def keeps(self, gain: Gain) -> bool:
        """Whether a variant with that gain is kept."""
        return gain.mean >= 0 if self.spares else gain.exceeds(self.errors)


def settings(codebook: Codebook, labelled: bool) -> list[Setting]:
    """What is tried for a codebook, in this order.

    Args:
        codebook: Has the taps.
        labelled: Whether questions come with labels. Where they are made of the documents, the
            weight of BM25, the second hop, what documents add and coverage are left as they are
            unless clearly better.
    """
    taps = list(codebook.saes)
    k = max(sae.k for sae in codebook.saes.values())
    hard = _BETTER if labelled else _CLEARLY_BETTER
    return [
        # First, as a recipe is compared once with what is there.
        *(Setting(str(tap), _left_out(tap), spares=True) for tap in taps),
        Setting("taps", lambda recipe: _alone(taps, recipe)),
        *(Setting(str(tap), _weights(tap)) for tap in taps),
        Setting("sentence", lambda recipe: _sentences(codebook.sentence_layer, recipe)),
        Setting("scoring", _scorings),
        Setting("weight_power", _field("weight_power", WEIGHT_POWERS)),
        Setting("idf_power", _field("idf_power", IDF_POWERS)),
        Setting("lexical_weight", _of_a_sum(_field("lexical_weight", LEXICAL_WEIGHTS)), hard),
        Setting("second_hop", _of_a_sum(_hops), hard),
        Setting("second_hop.weight", _hop_field("weight", HOP_WEIGHTS), hard),
        Setting(
            "second_hop.lexical_weight", _hop_field("lexical_weight", HOP_LEXICAL_WEIGHTS), hard
        ),
        Setting("document", _of_a_sum(_documents), hard),
        Setting("coverage", _of_a_sum(_coverages), hard),
        Setting("document_k", _field("document_k", sorted({max(k // 4, 1), max(k // 2, 1), k}))),
    ]


def _alone(taps: Iterable[Tap], recipe: Recipe) -> Variants:
    for tap in taps:
        for side in query_sides(tap):
            only = {str(tap): TapRecipe(query_side=side)}
            yield f"{tap} alone, {side}", recipe.model_copy(update={"taps": only})


def _weights(tap: Tap) -> Callable[[Recipe], Variants]:
    name = str(tap)

    def variants(recipe: Recipe) -> Variants:
        others = {key: part for key, part in recipe.taps.items() if key != name}
        # The weight of a tap without others changes nothing.
        if not others:
            return
        for side in query_sides(tap):
            for weight in TAP_WEIGHTS:
                taps = {**others, name: TapRecipe(weight=weight, query_side=side)}
                yield f"{weight}, {side}", recipe.model_copy(update={"taps": taps})

    return variants


def _left_out(tap: Tap) -> Callable[[Recipe], Variants]:
    def variants(recipe: Recipe) -> Variants:
        others = {key: part for key, part in recipe.taps.items() if key != str(tap)}
        if others:
            yield "left out", recipe.model_copy(update={"taps": others})

    return variants


def _sentences(layer: int | None, recipe: Recipe) -> Variants:
    if layer is None:
        return
    yield "off", recipe.model_copy(update={"sentence": None})
    name = recipe.sentence.tap if recipe.sentence else f"sentence.{layer}"
    for weight in TAP_WEIGHTS:
        part = SentenceRecipe(tap=name, weight=weight)
        yield f"{name} {weight}", recipe.model_copy(update={"sentence": part})


def _scorings(recipe: Recipe) -> Variants:
    for power in LENGTH_POWERS:
        update = {"scoring": "cover", "length_power": power}
        yield f"cover, length_power {power}", recipe.model_copy(update=update)
    for kernel in KERNELS:
        update = {"scoring": "peak", "kernel": kernel, "coverage": None}
        yield f"peak, kernel {kernel}", recipe.model_copy(update=update)


def _field(name: str, values: Iterable[float]) -> Callable[[Recipe], Variants]:
    def variants(recipe: Recipe) -> Variants:
        for value in values:
            yield str(value), recipe.model_copy(update={name: value})

    return variants


def _of_a_sum(variants: Callable[[Recipe], Variants]) -> Callable[[Recipe], Variants]:
    """Nothing for a recipe whose fusion is a union, which weighs nothing."""
    return lambda recipe: variants(recipe) if recipe.fusion == "sum" else iter(())


def _hops(recipe: Recipe) -> Variants:
    yield "off", recipe.model_copy(update={"second_hop": None})
    yield "on", recipe.model_copy(update={"second_hop": recipe.second_hop or SecondHop()})


def _documents(recipe: Recipe) -> Variants:
    yield "off", recipe.model_copy(update={"document": None})
    part = recipe.document or DocumentRecipe()
    for weight in DOCUMENT_WEIGHTS:
        update = {"document": part.model_copy(update={"weight": weight})}
        yield str(weight), recipe.model_copy(update=update)


def _coverages(recipe: Recipe) -> Variants:
    # Peaks are of tokens: what another sentence has of their features is not known.
    if recipe.scoring != "cover":
        return
    yield "off", recipe.model_copy(update={"coverage": None})
    for decay, floor in COVERAGES:
        part = CoverageRecipe(decay=decay, floor=floor)
        yield f"{decay}, floor {floor}", recipe.model_copy(update={"coverage": part})


def _hop_field(name: str, values: Iterable[float]) -> Callable[[Recipe], Variants]:
    def variants(recipe: Recipe) -> Variants:
        if recipe.second_hop is None:
            return
        for value in values:
            hop = recipe.second_hop.model_copy(update={name: value})
            yield str(value), recipe.model_copy(update={"second_hop": hop})

    return variants
